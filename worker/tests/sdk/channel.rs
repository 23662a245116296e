use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use prefork_proto::message::{ToSupervisor, ToWorker};
use serde_json::{Value, json};

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

#[test]
fn health_counts_up_and_carries_the_applications_status() {
    let mut worker = Worker::ready();
    let first = worker.health(|_| true);
    let second = worker.health(|_| true);
    assert_eq!(second.seq, first.seq + 1);
    assert_eq!(second.status, "");
    assert!(worker.tell("status", json!("warming up")).ok);
    worker.health(|health| health.status == "warming up");
}

#[test]
fn health_tells_how_late_the_serving_loop_is() {
    let mut worker = Worker::ready();
    worker.health(|health| health.loop_lag_us < 100_000);
    // Blocks for 300 ms, with a report due every 20 ms; whether that one or
    // the reply comes first is not said.
    worker.say(&ToWorker::Tell {
        id: 1000,
        command: "block".to_owned(),
        args: Value::Null,
    });
    worker.health(|health| health.loop_lag_us > 200_000);
}

#[test]
fn a_ping_is_answered_while_a_command_runs() {
    let mut worker = Worker::ready();
    worker.say(&ToWorker::Tell {
        id: 1000,
        command: "never".to_owned(),
        args: Value::Null,
    });
    assert!(worker.ask(|id| ToWorker::Ping { id }).ok);
}

#[test]
fn a_command_gets_its_data_or_its_refusal() {
    let mut worker = Worker::ready();
    let reply = worker.tell("echo", json!({ "deep": [1, 2] }));
    assert_eq!((reply.ok, reply.data), (true, json!({ "deep": [1, 2] })));
    let reply = worker.tell("who", Value::Null);
    assert_eq!(reply.data, json!(["web", 3, 7, 2]));
    let code = |reply: prefork_proto::message::Reply| reply.error.unwrap().code;
    assert_eq!(
        code(worker.tell("nonsense", Value::Null)),
        "unknown_command"
    );
    assert_eq!(code(worker.tell("panic", Value::Null)), "panicked");
    assert_eq!(code(worker.tell("large", Value::Null)), "too_long");
    assert!(worker.ask(|id| ToWorker::Ping { id }).ok, "it lives on");
}

#[test]
fn a_worker_without_handlers_refuses_what_they_would_do() {
    let mut worker = Worker::with(Orders {
        kind: "plain",
        ..Orders::default()
    });
    let reply = worker.tell("echo", Value::Null);
    assert_eq!(reply.error.unwrap().code, "unknown_command");
    let app = json!({});
    let reply = worker.ask(|id| ToWorker::Reload { id, app });
    assert_eq!(reply.error.unwrap().code, "unsupported");
}

#[test]
fn new_settings_are_in_force_once_they_are_taken() {
    let mut worker = Worker::ready();
    let bad = json!({ "good": false });
    let reply = worker.ask(|id| ToWorker::Reload { id, app: bad });
    assert_eq!(reply.error.unwrap().code, "invalid");
    assert_eq!(worker.tell("settings", Value::Null).data, json!({}));
    let good = json!({ "good": true });
    let app = good.clone();
    assert!(worker.ask(|id| ToWorker::Reload { id, app }).ok);
    assert_eq!(worker.tell("settings", Value::Null).data, good);
}

#[test]
fn an_unknown_request_is_answered_and_an_unknown_message_ignored() {
    let mut worker = Worker::ready();
    let mut raw = std::os::unix::net::UnixStream::from(
        std::os::fd::AsFd::as_fd(&worker.end)
            .try_clone_to_owned()
            .unwrap(),
    );
    std::io::Write::write_all(
        &mut raw,
        b"{\"type\":\"dance\"}\n{\"type\":\"dance\",\"id\":77}\n",
    )
    .unwrap();
    let reply = worker.until(|message| match message {
        ToSupervisor::Reply(reply) => Some(reply),
        _ => None,
    });
    assert_eq!((reply.id, reply.ok), (77, false));
    assert_eq!(reply.error.unwrap().code, "unknown_type");
}

#[test]
fn a_paused_worker_serves_what_is_open_and_takes_nothing_new() {
    let mut worker = Worker::ready();
    let mut open = Client::connect(worker.address);
    assert_eq!(open.get("/").status, 200);
    assert!(worker.ask(|id| ToWorker::Pause { id }).ok);
    let mut new = Client::connect(worker.address);
    new.ask("/");
    assert_eq!(open.get("/").status, 200);
    assert!(!new.hears_within(Duration::from_millis(200)));
    assert!(worker.ask(|id| ToWorker::Resume { id }).ok);
    assert_eq!(new.response().status, 200);
}

#[test]
fn a_worker_that_is_welcomed_as_paused_is_ready_and_takes_nothing_until_resume() {
    let mut orders = Orders::default();
    orders.welcome.paused = true;
    let mut worker = Worker::with(orders);
    let mut client = Client::connect(worker.address);
    client.ask("/");
    assert!(!client.hears_within(Duration::from_millis(200)));
    assert_eq!(worker.health(|_| true).connections, 0);
    assert!(worker.ask(|id| ToWorker::Resume { id }).ok);
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_supervisor_that_does_not_read_is_not_waited_for() {
    let mut orders = Orders::default();
    orders.welcome.heartbeat_ms = 1;
    let mut worker = Worker::with(orders);
    // More than the socket and the worker's queue hold together.
    for id in 0..20_000 {
        let args = json!("x".repeat(100));
        let command = "echo".to_owned();
        worker
            .end
            .queue(&ToWorker::Tell { id, command, args })
            .unwrap();
        let deadline = Instant::now() + DEADLINE;
        while worker.end.queued_bytes() > 0 {
            assert!(Instant::now() < deadline, "the worker does not read");
            if worker.end.flush().unwrap() == prefork_proto::channel::Flush::Blocked {
                std::thread::yield_now();
            }
        }
    }
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/").status, 200);
    // Read again, it goes on where it was.
    worker.health(|health| health.http.as_ref().unwrap().requests[1] == 1);
    assert!(worker.ask(|id| ToWorker::Ping { id }).ok);
}

#[test]
fn a_worker_that_loses_its_channel_finishes_what_is_in_flight() {
    let mut worker = Worker::ready();
    let mut client = Client::connect(worker.address);
    client.ask("/slow?300");
    worker.in_flight(1);
    let Worker {
        mut process, end, ..
    } = worker;
    drop(end);
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "slow\n"));
    assert_eq!(process.exit().code(), Some(0));
    assert!(process.stderr().contains("lost the channel"));
}

#[test]
fn stop_ends_at_once_and_says_what_it_cut() {
    let mut worker = Worker::ready();
    let mut client = Client::connect(worker.address);
    client.ask("/slow?60000");
    worker.in_flight(1);
    assert!(worker.ask(|id| ToWorker::Stop { id }).ok);
    let (_, last) = worker.last_words();
    assert!(
        matches!(&last, ToSupervisor::Bye { reason } if reason.contains("1 requests in flight")),
        "{last:?}"
    );
    assert_eq!(worker.process.exit().code(), Some(0));
}

#[test]
fn under_a_supervisor_a_terminals_signals_do_nothing() {
    let mut worker = Worker::ready();
    worker.process.signal(Signal::SIGINT);
    worker.process.signal(Signal::SIGHUP);
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/").status, 200);
    assert!(worker.ask(|id| ToWorker::Ping { id }).ok);
}

#[test]
fn sigterm_drains_and_a_second_one_ends_it() {
    let mut orders = Orders::default();
    orders.welcome.idle_grace_ms = 50;
    let mut worker = Worker::with(orders);
    let mut busy = Client::connect(worker.address);
    busy.ask("/slow?60000");
    let mut idle = Client::connect(worker.address);
    worker.health(|health| health.in_flight == 1 && health.connections == 2);
    worker.process.signal(Signal::SIGTERM);
    idle.until_closed();
    assert!(!busy.is_closed());
    worker.process.signal(Signal::SIGTERM);
    let (_, last) = worker.last_words();
    assert!(matches!(&last, ToSupervisor::Bye { reason } if reason.contains("second signal")));
    assert_eq!(worker.process.exit().code(), Some(0));
}
