//! What a worker prints while it has no supervisor: it never fails, never waits
//! for long, and goes to the next supervisor.

use std::fs::File;
use std::io::Read;

use prefork_proto::message::{OutputStream, ToWorker};

use prefork_testkit::client::Client;
use prefork_testkit::door::{Door, Returned};
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

/// Orders of a worker that keeps the reading ends of what it prints to.
fn orders(door: &Door) -> Orders {
    Orders {
        keeps_output: true,
        ..door.orders()
    }
}

/// Ends the channel and the readers of the output, as a killed supervisor does.
fn killed(worker: &mut Worker) {
    drop(worker.process.0.stdout.take());
    drop(worker.process.0.stderr.take());
    worker.abandon();
}

/// What is in a pipe that a worker has brought, once all writers have gone.
fn printed(returned: &mut Returned, wanted: OutputStream) -> String {
    let place = returned.outputs.iter().position(|(it, _)| *it == wanted);
    let (_, pipe) = returned.outputs.swap_remove(place.unwrap());
    let mut bytes = Vec::new();
    File::from(pipe).read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn it_goes_on_printing_to_the_very_pipes_and_brings_them_to_the_next_supervisor() {
    let mut door = Door::closed("s1");
    let mut worker = Worker::with(orders(&door));
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/print").status, 200);
    killed(&mut worker);
    // At once: it may not know yet that it is alone.
    for _ in 0..10 {
        assert_eq!(client.get("/print").text(), "printed\n");
    }
    door.open();
    drop(door.welcome(&mut worker));
    assert_eq!(client.get("/print").text(), "printed\n");
    worker.abandon();
    let mut returned = door.welcome(&mut worker);
    assert_eq!(client.get("/print").text(), "printed\n");
    drop(client);
    worker.drain(DEADLINE);
    worker.drained();
    let stdout = printed(&mut returned, OutputStream::Stdout);
    assert_eq!(stdout, "to stdout\n".repeat(13));
    let stderr = printed(&mut returned, OutputStream::Stderr);
    assert_eq!(stderr.matches("to stderr\n").count(), 13, "{stderr}");
    for line in ["lost the channel", "rejoined"] {
        assert_eq!(stderr.matches(line).count(), 2, "{stderr}");
    }
    assert!(!stderr.contains("s1"), "the secret is in it: {stderr}");
    assert!(!stderr.contains("dropped"), "{stderr}");
}

#[test]
fn an_orphan_does_not_wait_for_a_reader_and_drops_the_oldest() {
    let mut door = Door::closed("s1");
    let mut worker = Worker::with(orders(&door));
    let mut client = Client::connect(worker.address);
    killed(&mut worker);
    assert_eq!(client.get("/print-much").text(), "printed\n");
    assert_eq!(client.get("/print").text(), "printed\n");
    door.open();
    let mut returned = door.welcome(&mut worker);
    drop(client);
    worker.drain(DEADLINE);
    worker.drained();
    let stdout = printed(&mut returned, OutputStream::Stdout);
    assert!(stdout.ends_with("x\nto stdout\n"), "the newest are there");
    assert!(stdout.len() > 64 << 10, "{}", stdout.len());
    let stderr = printed(&mut returned, OutputStream::Stderr);
    assert!(stderr.contains("bytes of what was printed"), "{stderr}");
}

#[test]
fn one_that_is_refused_prints_on_while_it_finishes() {
    let door = Door::opened("s1");
    let mut worker = Worker::with(orders(&door));
    let mut client = Client::connect(worker.address);
    killed(&mut worker);
    drop(door.let_in(&mut worker));
    worker.say(&ToWorker::Refused {
        reason: "nobody reads this".to_owned(),
    });
    worker.abandon();
    assert_eq!(client.get("/print-much").text(), "printed\n");
    drop(client);
    assert_eq!(worker.process.exit().code(), Some(0));
}

#[test]
fn one_that_nobody_was_to_follow_prints_on_while_it_finishes() {
    let mut worker = Worker::with(Orders {
        keeps_output: true,
        ..Orders::default()
    });
    let mut client = Client::connect(worker.address);
    killed(&mut worker);
    assert_eq!(client.get("/print-much").text(), "printed\n");
    drop(client);
    assert_eq!(worker.process.exit().code(), Some(0));
}

#[test]
fn it_waits_for_no_supervisor_that_has_not_answered() {
    let door = Door::opened("s1");
    let mut worker = Worker::with(orders(&door));
    let mut client = Client::connect(worker.address);
    killed(&mut worker);
    let mut returned = door.let_in(&mut worker);
    assert_eq!(client.get("/print-much").text(), "printed\n");
    worker.say(&ToWorker::Welcome(door.orders().welcome));
    worker.health(|_| true);
    drop(client);
    worker.drain(DEADLINE);
    worker.drained();
    let stderr = printed(&mut returned, OutputStream::Stderr);
    assert!(stderr.contains("bytes of what was printed"), "{stderr}");
}

#[test]
fn output_that_it_was_not_given_stays_where_it_goes() {
    let door = Door::opened("s1");
    let mut worker = Worker::near(&door);
    let mut client = Client::connect(worker.address);
    worker.abandon();
    let returned = door.welcome(&mut worker);
    assert!(returned.outputs.is_empty());
    assert_eq!(client.get("/print").status, 200);
    drop(client);
    worker.drain(DEADLINE);
    worker.drained();
    let stderr = worker.process.stderr();
    for line in ["lost the channel", "rejoined", "to stderr"] {
        assert!(stderr.contains(line), "{stderr}");
    }
}
