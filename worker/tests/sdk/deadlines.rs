//! A client that stays silent, or stops in the middle, holds nothing up.

use std::time::{Duration, Instant};

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

const LONG: Duration = Duration::from_secs(60);
const HEADER: Duration = Duration::from_millis(400);
const IDLE: Duration = Duration::from_millis(800);

/// A worker with these two timeouts.
fn impatient() -> Worker {
    Worker::with(Orders {
        kind: "impatient",
        ..Orders::default()
    })
}

/// What a client of HTTP/2 begins with: the preface and its settings.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[test]
fn half_a_request_ends_with_the_time_for_its_head() {
    let mut worker = impatient();
    let begun = Instant::now();
    let mut fresh = Client::connect(worker.address);
    fresh.send("GET / HT");
    let mut preface = Client::connect(worker.address);
    preface.send("PRI * HT");
    let mut used = Client::connect(worker.address);
    assert_eq!(used.get("/").status, 200);
    used.send("GET / HTTP/1.1\r\nhost: te");
    for client in [&mut fresh, &mut used] {
        let answer = client.response();
        assert_eq!(answer.status, 408);
        assert!(answer.says_close());
        client.until_closed();
    }
    // Whether it begins HTTP/1 can't be told.
    preface.until_closed();
    assert!(begun.elapsed() >= HEADER);
    drop((fresh, preface, used));
    worker.connections(0);
}

#[test]
fn one_byte_now_and_then_is_no_progress() {
    let worker = impatient();
    let mut client = Client::connect(worker.address);
    client.send("GET / HTTP/1.1\r\nx: ");
    let begun = Instant::now();
    while !client.hears_within(Duration::from_millis(50)) {
        assert!(begun.elapsed() < DEADLINE, "it drips on");
        client.send("y");
    }
    assert_eq!(client.response().status, 408);
    client.until_closed();
}

#[test]
fn a_connection_without_requests_is_closed_cleanly() {
    let mut worker = impatient();
    let begun = Instant::now();
    let mut silent = Client::connect(worker.address);
    let mut used = Client::connect(worker.address);
    assert_eq!(used.get("/").status, 200);
    silent.until_closed();
    used.until_closed();
    assert!(begun.elapsed() >= IDLE);
    drop((silent, used));
    worker.connections(0);
}

#[test]
fn what_takes_its_time_is_neither_idle_nor_late() {
    let worker = impatient();
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/slow?1500").status, 200);
    assert_eq!(client.get("/stream?1500").status, 200);
    // The body of a request has no part in it: the application awaits it.
    client.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nab");
    assert!(!client.hears_within(Duration::from_millis(1500)));
    client.send("cd");
    assert_eq!(client.response().text(), "abcd");
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_connection_in_use_outlives_every_timeout() {
    let worker = impatient();
    let mut client = Client::connect(worker.address);
    let begun = Instant::now();
    while begun.elapsed() < IDLE * 3 {
        assert_eq!(client.get("/slow?100").status, 200);
    }
}

#[test]
fn half_a_request_holds_a_drain_no_longer_than_the_time_for_its_head() {
    let mut worker = impatient();
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/").status, 200);
    client.send("GET / HTTP/1.1\r\nhost: te");
    // Long before the drain's time is over.
    worker.drain(LONG);
    assert_eq!(client.response().status, 408);
    client.until_closed();
    drop(client);
    let counts = worker.drained().http.unwrap();
    assert_eq!(counts.requests, [0, 1, 0, 1, 0]);
}

#[test]
fn a_client_of_http_2_that_acknowledges_nothing_does_not_hold_a_drain() {
    let mut worker = Worker::ready();
    let mut client = Client::connect(worker.address);
    client.send(HTTP_2);
    worker.connections(1);
    // Its settings have been answered, so the connection is under way.
    client.until("\0\0\0\u{4}\u{1}\0\0\0\0");
    let begun = Instant::now();
    worker.drain(LONG);
    // GOAWAY comes, the client says nothing, and the connection ends cleanly.
    assert!(!client.rest().is_empty());
    assert!(begun.elapsed() >= Duration::from_secs(1));
    drop(client);
    worker.drained();
}

#[test]
fn a_silent_connection_of_http_2_is_closed() {
    let mut worker = impatient();
    let begun = Instant::now();
    let mut client = Client::connect(worker.address);
    client.send(HTTP_2);
    client.rest();
    assert!(begun.elapsed() >= IDLE);
    drop(client);
    worker.connections(0);
}
