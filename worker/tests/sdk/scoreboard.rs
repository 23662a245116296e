//! Counting in memory that the supervisor reads.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use prefork_proto::message::{ToSupervisor, ToWorker};
use prefork_proto::scoreboard::{self, ABI};

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{Orders, Worker};

#[test]
fn what_a_client_has_received_is_on_the_scoreboard() {
    let (worker, board) = Worker::with_board();
    let mut client = Client::connect(worker.address);
    for count in 1..=200 {
        client.get("/");
        assert_eq!(board.read().http.requests, [0, count, 0, 0, 0]);
    }
}

#[test]
fn what_was_counted_outlives_the_worker() {
    let (mut worker, board) = Worker::with_board();
    let mut client = Client::connect(worker.address);
    for path in ["/", "/missing", "/error", "/panic", "/stream?5"] {
        client.get(path);
    }
    client.ask("/slow?60000");
    // A report may still be of the request before.
    worker.health(|_| board.read().in_flight == 1);
    worker.process.signal(Signal::SIGKILL);
    worker.process.exit();

    let seen = board.read();
    assert_eq!(seen.http.requests, [0, 2, 0, 1, 2]);
    assert_eq!(seen.http.accepted, 1);
    assert_eq!(seen.http.duration_buckets.iter().sum::<u64>(), 5);
    assert!(seen.http.received_bytes > 100 && seen.http.sent_bytes > 100);
    assert_eq!((seen.in_flight, seen.connections), (1, 1));
}

#[test]
fn health_leaves_out_what_is_on_the_scoreboard() {
    let (mut worker, board) = Worker::with_board();
    let mut client = Client::connect(worker.address);
    client.get("/");
    worker.connections(1);
    assert_eq!(board.read().connections, 1);
    assert_eq!(worker.health(|_| true).http, None);
    drop(client);
    worker.connections(0);
    assert_eq!(board.read().connections, 0);
    assert_eq!(board.read().in_flight, 0);
}

#[test]
fn a_scoreboard_that_does_not_fit_ends_the_worker_with_the_reason() {
    let null = OwnedFd::from(File::open("/dev/null").unwrap());
    let (_, board) = scoreboard::create().unwrap();
    for (abi, fd, reason) in [(ABI, null, "EINVAL"), (2, board, "version 2")] {
        let orders = Orders::default();
        let mut worker = Worker::spawned(&orders);
        worker.hello();
        worker.say(&ToWorker::Welcome(orders.welcome));
        worker.offer_board(abi, fd);
        let bye = worker.until(Some);
        assert!(
            matches!(&bye, ToSupervisor::Bye { reason: said } if said.contains(reason)),
            "{bye:?}"
        );
        assert_eq!(worker.process.exit().code(), Some(1));
    }
}

#[test]
fn a_second_scoreboard_is_out_of_order() {
    let orders = Orders::default();
    let mut worker = Worker::spawned(&orders);
    worker.hello();
    worker.say(&ToWorker::Welcome(orders.welcome));
    for _ in 0..2 {
        worker.offer_board(ABI, scoreboard::create().unwrap().1);
    }
    assert!(matches!(worker.until(Some), ToSupervisor::Bye { .. }));
    assert_eq!(worker.process.exit().code(), Some(1));
    let stderr = worker.process.stderr();
    assert!(stderr.contains("received `scoreboard`"), "{stderr}");
}
