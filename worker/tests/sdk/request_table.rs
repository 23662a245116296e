//! What is being served is noted in memory that the supervisor reads.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sys::signal::Signal;
use prefork_proto::message::{HttpLimits, RequestsOffer, ToSupervisor, ToWorker};
use prefork_proto::request_table::RequestStage::{self, Queued, Responding, Working};
use prefork_proto::request_table::{Entry, Table};

use prefork_testkit::client::Client;
use prefork_testkit::door::Door;
use prefork_testkit::raw_http2::Raw;
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

/// A worker with these orders that notes its requests, up to `ready`.
fn noting(orders: Orders) -> (Worker, Table) {
    let mut worker = Worker::spawned(&orders);
    worker.hello();
    worker.say(&ToWorker::Welcome(orders.welcome));
    let table = Table::create(8).unwrap();
    offer(&mut worker, table.offer(false), table.duplicate().unwrap());
    worker.offer();
    worker.say(&ToWorker::Start);
    worker.until_ready();
    (worker, table)
}

fn offer(worker: &mut Worker, offer: RequestsOffer, fd: OwnedFd) {
    let requests = ToWorker::Requests(offer);
    worker.end.queue_with_fd(&requests, fd).unwrap();
    worker.end.flush().unwrap();
}

/// The entries as soon as they are what is expected.
#[track_caller]
fn when(table: &Table, mut holds: impl FnMut(&[Entry]) -> bool) -> Vec<Entry> {
    let begun = Instant::now();
    loop {
        let mut entries = table.read().unwrap().entries;
        entries.sort_by_key(|entry| entry.began_nanos);
        if holds(&entries) {
            return entries;
        }
        assert!(begun.elapsed() < DEADLINE, "{entries:?}");
    }
}

fn stages(entries: &[Entry]) -> Vec<RequestStage> {
    entries.iter().map(|entry| entry.stage).collect()
}

#[test]
fn a_request_is_noted_as_long_as_it_is_served() {
    let (mut worker, table) = noting(Orders::default());
    let mut client = Client::connect(worker.address);
    client.get("/");
    when(&table, <[_]>::is_empty);
    client.ask("/slow?600000");
    let [entry] = when(&table, |entries| entries.len() == 1)
        .try_into()
        .unwrap();
    assert_eq!(
        (entry.method.as_str(), entry.target.as_str()),
        ("GET", "/slow")
    );
    assert_eq!(
        (entry.stage, entry.id, entry.sent_bytes),
        (Working, None, 0)
    );
    assert!(entry.client.is_some_and(|client| client.ip().is_loopback()));
    drop(client);
    when(&table, <[_]>::is_empty);
    worker.in_flight(0);
}

#[test]
fn what_is_being_done_is_noted() {
    let mut orders = Orders::default();
    orders.welcome.http = Box::new(HttpLimits {
        max_concurrency: Some(1),
        max_queue: Some(8),
        queue_timeout_ms: Some(600_000),
        ..HttpLimits::default()
    });
    let (worker, table) = noting(orders);
    let mut first = Client::connect(worker.address);
    first.ask("/stream?600000");
    let streaming = |entries: &[Entry]| stages(entries) == [Responding];
    let answered = |entries: &[Entry]| streaming(entries) && entries[0].sent_bytes == 6;
    when(&table, answered);
    let mut second = Client::connect(worker.address);
    second.ask("/never");
    when(&table, |entries| stages(entries) == [Responding, Queued]);
    drop(first);
    when(&table, |entries| stages(entries) == [Working]);
}

#[test]
fn each_stream_of_http2_has_an_entry_of_its_own() {
    let (worker, table) = noting(Orders::default());
    let mut raw = Raw::connect(worker.address, 1 << 16, 1 << 16);
    for (stream, path) in [(1, "/never"), (3, "/slow?600000"), (5, "/never")] {
        raw.ask(stream, path);
    }
    let entries = when(&table, |entries| entries.len() == 3);
    let mut targets: Vec<_> = entries.iter().map(|it| it.target.as_str()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/never", "/never", "/slow"]);
    drop(raw);
    when(&table, <[_]>::is_empty);
}

#[test]
fn what_was_served_outlives_the_worker() {
    let (mut worker, table) = noting(Orders::default());
    let mut client = Client::connect(worker.address);
    client.ask("/never");
    let entries = when(&table, |entries| entries.len() == 1);
    worker.process.signal(Signal::SIGKILL);
    worker.process.exit();
    assert_eq!(table.read().unwrap().entries, entries);
}

#[test]
fn it_brings_the_very_table_that_it_was_given() {
    let door = Door::opened("s1");
    let (mut worker, table) = noting(door.orders());
    worker.abandon();
    let returned = door.welcome(&mut worker);
    let adopted = Table::adopt(returned.requests.unwrap()).unwrap();
    let mut client = Client::connect(worker.address);
    client.ask("/never");
    let entries = when(&adopted, |entries| entries.len() == 1);
    assert_eq!(table.read().unwrap().entries, entries);
}

#[test]
fn a_table_that_does_not_fit_ends_the_worker_with_the_reason() {
    let table = Table::create(1).unwrap();
    let null = OwnedFd::from(File::open("/dev/null").unwrap());
    let later = RequestsOffer {
        abi: 2,
        ..table.offer(false)
    };
    let duplicate = table.duplicate().unwrap();
    for (said, fd, reason) in [
        (table.offer(false), null, "EINVAL"),
        (later, duplicate, "version 2"),
    ] {
        let orders = Orders::default();
        let mut worker = Worker::spawned(&orders);
        worker.hello();
        worker.say(&ToWorker::Welcome(orders.welcome));
        offer(&mut worker, said, fd);
        let bye = worker.until(Some);
        assert!(
            matches!(&bye, ToSupervisor::Bye { reason: said } if said.contains(reason)),
            "{bye:?}"
        );
        assert_eq!(worker.process.exit().code(), Some(1));
    }
}
