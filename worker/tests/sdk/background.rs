//! What an application does beside answering.

use std::fs;
use std::time::Duration;

use prefork_proto::message::{ToSupervisor, ToWorker};
use serde_json::{Value, json};

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{Orders, Worker};

/// More than any test waits.
const LONG: Duration = Duration::from_secs(60);

fn busy() -> Worker {
    Worker::with(Orders {
        kind: "busy",
        ..Orders::default()
    })
}

fn panics(message: &ToSupervisor) -> Option<f64> {
    let ToSupervisor::Metrics(metrics) = message else {
        return None;
    };
    let json = serde_json::to_value(&metrics.families).unwrap();
    let families = json.as_array().unwrap();
    let family = families
        .iter()
        .find(|family| family["name"] == "background_panics_total")?;
    family["series"][0]["value"].as_f64()
}

#[test]
fn a_task_is_told_of_the_drain_and_the_drain_waits_for_it() {
    let mut worker = busy();
    worker.tell("spawn", json!(300));
    worker.drain(LONG);
    let (health, goodbye) = worker.last_words();
    assert_eq!(health.status, "told, done");
    assert_eq!(goodbye, ToSupervisor::Drained);
    assert!(worker.process.exit().success());
}

#[test]
fn a_task_that_does_not_end_is_cut_at_the_drains_deadline() {
    let mut worker = busy();
    worker.tell("forever", Value::Null);
    worker.drain(Duration::from_millis(400));
    let (_, goodbye) = worker.last_words();
    let ToSupervisor::Bye { reason } = goodbye else {
        panic!("not cut: {goodbye:?}");
    };
    assert!(reason.contains("deadline"), "{reason}");
    assert!(reason.ends_with("and 1 background tasks"), "{reason}");
}

#[test]
fn a_panic_in_the_background_is_counted_and_ends_nothing_else() {
    let mut worker = busy();
    worker.tell("spawn", json!(0));
    worker.until(|message| panics(&message).filter(|panics| *panics == 0.0));
    worker.tell("panic", Value::Null);
    worker.until(|message| panics(&message).filter(|panics| *panics == 1.0));
    let error = worker.tell("panic_blocking", Value::Null).data;
    assert_eq!(error, "the blocking call panicked");
    worker.until(|message| panics(&message).filter(|panics| *panics == 2.0));
    assert_eq!(Client::connect(worker.address).get("/").status, 200);
    worker.drain(LONG);
    assert_eq!(worker.last_words().0.status, "told, done");
    assert!(worker.process.stderr().contains("as asked for"));
}

#[test]
fn while_a_call_blocks_requests_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let end = directory.path().join("end");
    let mut worker = busy();
    worker.say(&ToWorker::Tell {
        id: 77,
        command: "block".to_owned(),
        args: json!(end),
    });
    let mut client = Client::connect(worker.address);
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
    }
    fs::write(end, "").unwrap();
    let reply = worker.until(|message| match message {
        ToSupervisor::Reply(reply) if reply.id == 77 => Some(reply),
        _ => None,
    });
    assert_eq!(reply.data, json!(true));
}

#[test]
fn the_drain_waits_for_a_blocking_call_whose_result_nobody_wants() {
    let directory = tempfile::tempdir().unwrap();
    let end = directory.path().join("end");
    let mut worker = busy();
    worker.tell("leave_blocking", json!(end));
    worker.drain(LONG);
    // It lives on.
    for _ in 0..5 {
        worker.health(|_| true);
    }
    fs::write(end, "").unwrap();
    assert_eq!(worker.last_words().1, ToSupervisor::Drained);
}

#[test]
fn the_application_hears_of_the_drain_once_and_may_take_its_time() {
    let mut worker = busy();
    worker.drain(Duration::from_secs(30));
    worker.drain(Duration::from_secs(20));
    assert_eq!(worker.last_words().1, ToSupervisor::Drained);
    let stderr = worker.process.stderr();
    assert_eq!(stderr, "leaving within 30s\nsaid goodbye\n");
}
