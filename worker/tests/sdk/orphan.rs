//! A worker outlives its supervisor: it goes on as before, and goes to the next one.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use prefork_proto::message::{RejoinState, ToSupervisor, ToWorker};
use prefork_proto::scoreboard::Board;
use serde_json::{Value, json};

use prefork_testkit::client::Client;
use prefork_testkit::door::{Door, cookie};
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn clients_notice_nothing_while_there_is_no_supervisor() {
    let mut door = Door::closed("s1");
    let mut worker = Worker::near(&door);
    let mut keep_alive = Client::connect(worker.address);
    assert_eq!(keep_alive.get("/").status, 200);
    let mut slow = Client::connect(worker.address);
    slow.ask("/slow?300");
    worker.in_flight(1);
    let before = worker.health(|_| true).seq;
    worker.abandon();

    let serve = |keep_alive: &mut Client| {
        for _ in 0..50 {
            let response = keep_alive.get("/");
            assert!(response.status == 200 && !response.says_close());
            assert_eq!(Client::connect(worker.address).get("/").status, 200);
        }
    };
    serve(&mut keep_alive);
    assert_eq!(slow.response().text(), "slow\n");
    door.open();
    serve(&mut keep_alive);
    let rejoin = door.welcome(&mut worker).rejoin;
    assert_eq!(rejoin.state, RejoinState::Ready);
    assert_eq!(rejoin.pid, worker.process.pid());
    let who = (&*rejoin.pool, rejoin.slot, rejoin.generation);
    assert_eq!((who, rejoin.incarnation), (("web", 3, 7), 2));
    assert_eq!((&*rejoin.program, &*rejoin.version), ("probe", "1.2.3"));
    assert!(rejoin.capabilities.contains(&"rejoin".to_owned()));

    let after = worker.health(|_| true);
    assert_eq!(after.seq, before + 1, "reports to nobody");
    assert_eq!(after.http.unwrap().total(), 202);
    assert!(worker.tell("echo", Value::Null).ok);
    let response = keep_alive.get("/");
    assert!(response.status == 200 && !response.says_close());
}

#[test]
fn it_brings_the_very_listeners_and_scoreboard_that_it_was_given() {
    let door = Door::opened("s1");
    let (mut worker, board) = Worker::with_board_and(door.orders());
    let mut client = Client::connect(worker.address);
    client.get("/");
    worker.abandon();
    client.get("/");
    let returned = door.welcome(&mut worker);
    client.get("/");
    let [(offer, listener)] = &returned.listeners[..] else {
        panic!("{} listeners", returned.listeners.len());
    };
    assert_eq!(cookie(listener), cookie(&worker.listener));
    assert_eq!(offer.name, "main");
    assert_eq!(offer.address, worker.address.to_string());
    let adopted = Board::adopt(returned.scoreboard.unwrap()).unwrap();
    client.get("/missing");
    assert_eq!(adopted.read().http.requests, [0, 3, 0, 1, 0]);
    assert_eq!(adopted.read().http, board.read().http);
    assert_eq!(worker.health(|_| true).http, None);
}

#[test]
fn a_refused_worker_finishes_and_leaves_and_does_not_ask_again() {
    let door = Door::opened("s1");
    let mut worker = Worker::near(&door);
    let mut client = Client::connect(worker.address);
    client.ask("/slow?300");
    worker.in_flight(1);
    worker.abandon();
    door.let_in(&mut worker);
    worker.say(&ToWorker::Refused {
        reason: "web/3 is taken".to_owned(),
    });
    let response = client.response();
    assert_eq!(response.text(), "slow\n");
    assert!(response.says_close());
    drop(client);
    assert_eq!(worker.process.exit().code(), Some(0));
    assert!(worker.process.stderr().contains("web/3 is taken"));
    assert!(door.knock().is_none());
}

#[test]
fn with_nobody_there_it_leaves_after_its_time_and_frees_the_port() {
    let door = Door::closed("s1");
    let mut orders = door.orders();
    orders.welcome.rejoin = Some(door.offer(Duration::from_millis(400)));
    let mut worker = Worker::with(orders);
    let mut client = Client::connect(worker.address);
    client.ask("/slow?800");
    worker.in_flight(1);
    let begun = Instant::now();
    worker.abandon();
    let mut other = Client::connect(worker.address);
    assert!(!other.get("/").says_close());
    other.until_closed();
    // Its own time and the grace of an idle connection.
    assert!(begun.elapsed() >= Duration::from_millis(700));
    let response = client.response();
    assert_eq!(response.text(), "slow\n");
    assert!(response.says_close());
    drop((client, other));
    let Worker {
        mut process,
        listener,
        address,
        ..
    } = worker;
    assert_eq!(process.exit().code(), Some(0));
    assert!(process.stderr().contains("no supervisor came"));
    drop(listener);
    TcpListener::bind(address).unwrap();
}

#[test]
fn what_waits_to_be_accepted_is_served_before_the_last_worker_leaves() {
    let door = Door::closed("s1");
    let mut orders = door.orders();
    orders.welcome.paused = true;
    orders.welcome.rejoin = Some(door.offer(Duration::from_millis(200)));
    let mut worker = Worker::with(orders);
    let mut client = Client::connect(worker.address);
    client.ask("/");
    worker.abandon();
    let Worker {
        mut process,
        listener,
        address,
        ..
    } = worker;
    drop(listener);
    assert_eq!(client.response().status, 200);
    assert_eq!(process.exit().code(), Some(0));
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn the_last_words_of_a_supervisor_are_heard() {
    for _ in 0..8 {
        let door = Door::opened("s1");
        let mut orders = door.orders();
        orders.welcome.heartbeat_ms = 1;
        let mut worker = Worker::with(orders);
        let mut client = Client::connect(worker.address);
        client.ask("/slow?60000");
        worker.in_flight(1);
        // A report is due as well when it goes on, and finds no one to take it.
        worker.process.signal(Signal::SIGSTOP);
        worker.process.until_stopped();
        worker.say(&ToWorker::Drain {
            id: 1000,
            deadline_ms: 60_000,
            sweep: false,
            pass_on: Vec::new(),
        });
        worker.abandon();
        worker.process.signal(Signal::SIGCONT);
        assert_eq!(door.let_in(&mut worker).rejoin.state, RejoinState::Draining);
    }
}

#[test]
fn a_worker_that_was_stopped_meanwhile_comes_when_it_goes_on() {
    let door = Door::opened("s1");
    let mut worker = Worker::near(&door);
    let mut client = Client::connect(worker.address);
    client.get("/");
    worker.process.signal(Signal::SIGSTOP);
    worker.process.until_stopped();
    worker.abandon();
    client.ask("/");
    assert!(!client.hears_within(Duration::from_millis(100)));
    assert!(door.knock().is_none());
    worker.process.signal(Signal::SIGCONT);
    door.welcome(&mut worker);
    assert_eq!(client.response().status, 200);
    worker.health(|_| true);
}

#[test]
fn a_worker_that_is_stopped_as_an_orphan_goes_on_as_one() {
    let mut door = Door::closed("s1");
    let mut worker = Worker::near(&door);
    let mut client = Client::connect(worker.address);
    worker.abandon();
    client.get("/");
    worker.process.signal(Signal::SIGSTOP);
    worker.process.until_stopped();
    door.open();
    client.ask("/");
    assert!(!client.hears_within(Duration::from_millis(300)));
    worker.process.signal(Signal::SIGCONT);
    assert_eq!(client.response().status, 200);
    door.welcome(&mut worker);
    worker.health(|_| true);
}

#[test]
fn a_drain_that_has_begun_ends_without_a_supervisor() {
    let door = Door::opened("s1");
    let mut worker = Worker::near(&door);
    let mut client = Client::connect(worker.address);
    client.ask("/slow?400");
    worker.in_flight(1);
    worker.drain(LONG);
    worker.abandon();
    // It keeps a listener from closing for as long as it lives.
    let returned = door.let_in(&mut worker);
    assert_eq!(returned.rejoin.state, RejoinState::Draining);
    assert_eq!(cookie(&returned.listeners[0].1), cookie(&worker.listener));
    let response = client.response();
    assert_eq!(response.text(), "slow\n");
    assert!(response.says_close());
    drop(client);
    assert_eq!(worker.process.exit().code(), Some(0));
}

#[test]
fn a_drain_keeps_its_deadline_over_the_change_of_supervisors() {
    let door = Door::opened("s1");
    let mut worker = Worker::near(&door);
    let mut client = Client::connect(worker.address);
    client.ask("/slow?60000");
    worker.in_flight(1);
    let begun = Instant::now();
    worker.drain(Duration::from_millis(800));
    worker.abandon();
    door.welcome(&mut worker);
    worker.in_flight(1);
    let (_, last) = worker.last_words();
    assert!(begun.elapsed() >= Duration::from_millis(790));
    assert!(
        matches!(&last, ToSupervisor::Bye { reason } if reason.contains("deadline")),
        "{last:?}"
    );
    assert_eq!(worker.process.exit().code(), Some(0));
}

#[test]
fn a_drain_that_ends_under_the_next_supervisor_is_said_to_it() {
    let door = Door::opened("s1");
    let mut worker = Worker::near(&door);
    let mut client = Client::connect(worker.address);
    client.ask("/slow?400");
    worker.in_flight(1);
    worker.drain(LONG);
    worker.abandon();
    door.welcome(&mut worker);
    assert_eq!(client.response().text(), "slow\n");
    drop(client);
    worker.drained();
}

#[test]
fn a_sweep_does_not_hand_over_listeners_that_end_with_it() {
    let door = Door::opened("s1");
    let mut worker = Worker::near(&door);
    let mut client = Client::connect(worker.address);
    client.ask("/slow?400");
    worker.in_flight(1);
    worker.sweep(LONG);
    worker.abandon();
    let returned = door.let_in(&mut worker);
    assert_eq!(returned.rejoin.state, RejoinState::Draining);
    assert!(returned.listeners.is_empty());
    assert_eq!(client.response().text(), "slow\n");
}

#[test]
fn a_paused_worker_stays_paused() {
    let door = Door::opened("s1");
    let mut worker = Worker::near(&door);
    let mut open = Client::connect(worker.address);
    open.get("/");
    assert!(worker.ask(|id| ToWorker::Pause { id }).ok);
    worker.abandon();
    let mut new = Client::connect(worker.address);
    new.ask("/");
    let returned = door.let_in(&mut worker);
    assert_eq!(returned.rejoin.state, RejoinState::Paused);
    assert_eq!(returned.listeners.len(), 1);
    assert!(!new.hears_within(Duration::from_millis(150)));
    worker.say(&ToWorker::Welcome(door.orders().welcome));
    assert_eq!(open.get("/").status, 200);
    assert!(!new.hears_within(Duration::from_millis(150)));
    assert!(worker.ask(|id| ToWorker::Resume { id }).ok);
    assert_eq!(new.response().status, 200);
}

#[test]
fn a_connection_that_breaks_or_talks_nonsense_is_not_the_last() {
    let door = Door::opened("s1");
    let mut worker = Worker::near(&door);
    worker.abandon();
    drop(door.answer());
    door.let_in(&mut worker);
    worker.abandon();
    door.let_in(&mut worker);
    worker.say(&ToWorker::Start);
    assert_eq!(worker.hear(), None);
    door.let_in(&mut worker);
    let mut welcome = door.orders().welcome;
    welcome.protocol += 1;
    worker.say(&ToWorker::Welcome(welcome));
    assert_eq!(worker.hear(), None);
    door.welcome(&mut worker);
    assert!(worker.tell("echo", Value::Null).ok);
}

#[test]
fn a_supervisor_that_does_not_answer_is_asked_again() {
    let door = Door::opened("s1");
    let mut worker = Worker::near(&door);
    worker.abandon();
    let silent = door.answer();
    door.welcome(&mut worker);
    worker.health(|_| true);
    drop(silent);
}

#[test]
fn what_the_new_welcome_says_is_in_force() {
    let first = Door::opened("s1");
    let second = Door::opened("s2");
    let mut worker = Worker::near(&first);
    worker.abandon();
    first.let_in(&mut worker);
    let mut welcome = second.orders().welcome;
    welcome.idle_grace_ms = 60_000;
    welcome.heartbeat_ms = 5000;
    welcome.http.max_uri_size = Some(64);
    let mut old = Client::connect(worker.address);
    let long = format!("/{}", "x".repeat(100));
    assert_eq!(old.get(&long).status, 404);
    worker.say(&ToWorker::Welcome(welcome));
    let begun = Instant::now();
    let first_report = worker.health(|_| true);
    assert_eq!(worker.health(|_| true).seq, first_report.seq + 1);
    assert!(begun.elapsed() >= Duration::from_millis(4900));
    // Who is there already has come on other terms.
    assert_eq!(old.get(&long).status, 404);
    assert_eq!(Client::connect(worker.address).get(&long).status, 414);
    drop(old);

    worker.abandon();
    second.let_in(&mut worker);
    assert!(first.knock().is_none());
    let mut welcome = Orders::default().welcome;
    welcome.idle_grace_ms = 0;
    worker.say(&ToWorker::Welcome(welcome));
    let mut client = Client::connect(worker.address);
    client.get("/");
    worker.connections(1);
    // None has been named this time.
    worker.abandon();
    client.until_closed();
    assert_eq!(worker.process.exit().code(), Some(0));
    assert!(second.knock().is_none() && first.knock().is_none());
}

#[test]
fn requests_of_the_old_supervisor_are_not_answered_to_the_new_one() {
    let door = Door::opened("s1");
    let mut worker = Worker::near(&door);
    let app = json!({ "good": true, "takes_ms": 500 });
    worker.say(&ToWorker::Reload {
        id: 1000,
        app: app.clone(),
    });
    assert!(worker.ask(|id| ToWorker::Ping { id }).ok);
    worker.abandon();
    door.welcome(&mut worker);
    let deadline = Instant::now() + DEADLINE;
    let mut taken = false;
    for id in 1.. {
        let (command, args) = ("settings".to_owned(), Value::Null);
        worker.say(&ToWorker::Tell { id, command, args });
        let reply = worker.until(|message| match message {
            ToSupervisor::Reply(reply) => Some(reply),
            _ => None,
        });
        assert_eq!(reply.id, id);
        if taken {
            // Asked once more after it was done.
            return;
        }
        taken = reply.data == app;
        assert!(Instant::now() < deadline, "the settings are not taken");
    }
}

#[test]
fn a_hundred_supervisors_leave_no_descriptor_behind() {
    let door = Door::opened("s1");
    let (mut worker, board) = Worker::with_board_and(door.orders());
    let mut client = Client::connect(worker.address);
    let mut count = 0;
    let mut round = |worker: &mut Worker| {
        worker.abandon();
        client.get("/");
        count += 1;
        if count % 5 == 0 {
            // One that breaks before it is whole.
            door.let_in(worker);
            worker.abandon();
        }
        door.welcome(worker);
        worker.health(|_| true);
        assert_eq!(board.read().http.requests[1], count);
    };
    round(&mut worker);
    let before = fds(&worker);
    for _ in 0..100 {
        round(&mut worker);
    }
    assert_eq!(fds(&worker), before);
}

fn fds(worker: &Worker) -> usize {
    let path = format!("/proc/{}/fd", worker.process.pid());
    std::fs::read_dir(path).unwrap().count()
}

#[test]
fn a_worker_that_is_not_ready_yet_leaves() {
    let door = Door::opened("s1");
    let orders = door.orders();
    let mut worker = Worker::spawned(&orders);
    worker.hello();
    worker.say(&ToWorker::Welcome(orders.welcome));
    worker.offer();
    worker.abandon();
    assert_eq!(worker.process.exit().code(), Some(1));
    assert!(door.knock().is_none());
}

#[test]
fn sigterm_drains_an_orphan() {
    let door = Door::closed("s1");
    let mut worker = Worker::near(&door);
    let mut client = Client::connect(worker.address);
    client.ask("/slow?300");
    worker.in_flight(1);
    worker.abandon();
    worker.process.signal(Signal::SIGTERM);
    let response = client.response();
    assert_eq!(response.text(), "slow\n");
    drop(client);
    assert_eq!(worker.process.exit().code(), Some(0));
}
