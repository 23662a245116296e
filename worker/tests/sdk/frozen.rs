//! A process that was stopped, or frozen with its group, goes on where it was: its
//! clients could not be heard meanwhile, so none of them has had that time.

use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_proto::message::HttpLimits;

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{Orders, Worker};

/// Every time that a client has: more than what a busy machine takes for what comes
/// before the process stands still.
const TIME: Duration = Duration::from_secs(6);

/// How long it stands still.
const STOPPED: Duration = Duration::from_secs(8);

/// What a client has to do after that, it does this much later: what lies in a
/// socket already would be read in any case.
const LATER: Duration = Duration::from_millis(400);

fn worker(more: HttpLimits) -> Worker {
    let mut orders = Orders::default();
    let time = u64::try_from(TIME.as_millis()).unwrap();
    orders.welcome.idle_grace_ms = time;
    let time = Some(time);
    orders.welcome.http = Box::new(HttpLimits {
        header_timeout_ms: time,
        idle_timeout_ms: time,
        request_timeout_ms: time,
        body_timeout_ms: time,
        write_timeout_ms: time,
        ..more
    });
    Worker::with(orders)
}

/// Has the worker stand still, longer than any of its clients may.
fn freeze(worker: &Worker) {
    worker.process.signal(Signal::SIGSTOP);
    worker.process.until_stopped();
    std::thread::sleep(STOPPED);
    worker.process.signal(Signal::SIGCONT);
    std::thread::sleep(LATER);
}

#[test]
fn no_client_is_cut_off_for_time_in_which_the_worker_stood_still() {
    let mut worker = worker(HttpLimits::default());
    let connect = || Client::connect(worker.address);
    let (mut silent, mut used, mut half_a_head) = (connect(), connect(), connect());
    let (mut half_a_body, mut asked, mut reads_later) = (connect(), connect(), connect());
    let mut next_head = connect();
    worker.connections(7);
    for client in [&mut used, &mut next_head] {
        assert_eq!(client.get("/").status, 200);
    }
    half_a_head.send("GET / HTTP/1.1\r\nho");
    next_head.send("GET / HTTP/1.1\r\nho");
    half_a_body.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nab");
    asked.ask("/slow?9000");
    reads_later.ask("/large");
    // A response that its client does not take is in flight no more.
    worker.in_flight(2);

    freeze(&worker);
    for client in [&mut half_a_head, &mut next_head] {
        client.send("st: test\r\n\r\n");
        assert_eq!(client.response().status, 200);
    }
    for client in [&mut silent, &mut used] {
        assert_eq!(client.get("/").status, 200);
    }
    half_a_body.send("cd");
    assert_eq!(half_a_body.response().text(), "abcd");
    assert_eq!(asked.response().status, 200);
    assert_eq!(reads_later.response().status, 200);
    let counts = worker.health(|health| health.in_flight == 0).http.unwrap();
    assert_eq!(counts.requests, [0, 9, 0, 0, 0]);
}

#[test]
fn one_that_waits_for_its_turn_goes_on_waiting() {
    let mut worker = worker(HttpLimits {
        max_concurrency: Some(1),
        queue_timeout_ms: Some(6000),
        ..HttpLimits::default()
    });
    let (mut first, mut second) = (
        Client::connect(worker.address),
        Client::connect(worker.address),
    );
    worker.connections(2);
    first.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nab");
    worker.in_flight(1);
    second.ask("/");
    worker.in_flight(2);
    freeze(&worker);
    first.send("cd");
    assert_eq!(first.response().text(), "abcd");
    assert_eq!(second.response().status, 200);
}

#[test]
fn a_drain_goes_on_as_long_as_it_may() {
    let mut worker = worker(HttpLimits::default());
    let (mut idle, mut busy) = (
        Client::connect(worker.address),
        Client::connect(worker.address),
    );
    assert_eq!(idle.get("/").status, 200);
    busy.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nab");
    worker.in_flight(1);
    worker.drain(TIME);
    freeze(&worker);
    let last = idle.get("/");
    assert_eq!(last.status, 200);
    assert!(last.says_close());
    busy.send("cd");
    assert_eq!(busy.response().text(), "abcd");
    drop((idle, busy));
    worker.drained();
}

#[test]
fn clients_still_have_their_time_afterwards_and_no_more() {
    let mut orders = Orders::default();
    orders.welcome.http.header_timeout_ms = Some(3000);
    let worker = Worker::with(orders);
    let mut half = Client::connect(worker.address);
    half.send("GET / HTTP/1.1\r\nho");
    freeze(&worker);
    assert!(!half.hears_within(Duration::from_millis(1)));
    assert_eq!(half.response().status, 408);
    half.until_closed();
}
