//! A drain breaks no request, closes what has nothing to say, and ends as soon
//! as nothing is left.

use std::time::{Duration, Instant};

use prefork_proto::message::{ToSupervisor, ToWorker};

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{Orders, Worker};

const LONG: Duration = Duration::from_secs(60);

fn with_grace(idle_grace_ms: u64) -> Worker {
    let mut orders = Orders::default();
    orders.welcome.idle_grace_ms = idle_grace_ms;
    Worker::with(orders)
}

#[test]
fn with_nothing_open_it_ends_at_once() {
    let mut worker = with_grace(60_000);
    // It is waited for, though not for as long as a grace or the drain.
    worker.drain(LONG);
    worker.drained();
}

#[test]
fn a_request_in_flight_finishes_and_its_response_says_close() {
    let mut worker = with_grace(60_000);
    let mut client = Client::connect(worker.address);
    client.ask("/slow?300");
    worker.in_flight(1);
    worker.drain(LONG);
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "slow\n"));
    assert!(response.says_close());
    client.until_closed();
    drop(client);
    assert_eq!(worker.drained().http.unwrap().total(), 1);
}

#[test]
fn the_next_response_of_an_idle_connection_says_close_and_is_its_last() {
    let mut worker = with_grace(60_000);
    let mut client = Client::connect(worker.address);
    assert!(!client.get("/").says_close());
    worker.drain(LONG);
    assert!(!client.is_closed(), "closed with a request on its way");
    let response = client.get("/");
    assert_eq!(response.status, 200);
    assert!(response.says_close());
    client.until_closed();
    drop(client);
    worker.drained();
}

#[test]
fn an_idle_connection_is_closed_cleanly_when_its_grace_ends() {
    let mut worker = with_grace(300);
    let mut used = Client::connect(worker.address);
    used.get("/");
    let mut fresh = Client::connect(worker.address);
    worker.connections(2);
    let begun = Instant::now();
    worker.drain(LONG);
    fresh.until_closed();
    used.until_closed();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    drop((used, fresh));
    worker.drained();
}

#[test]
fn the_grace_begins_again_when_a_response_that_was_under_way_ends() {
    let mut worker = with_grace(400);
    let mut client = Client::connect(worker.address);
    let asked = Instant::now();
    client.ask("/stream?600");
    // Its head is out, without a word of closing.
    client.until("first\n\r\n");
    worker.in_flight(1);
    worker.drain(LONG);
    client.until("last\n\r\n0\r\n\r\n");
    client.until_closed();
    // The response's time and the grace after it; from the drain's beginning
    // the grace would have been over by the response's end.
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(600 + 400), "{took:?}");
    drop(client);
    worker.drained();
}

#[test]
fn a_request_that_has_begun_to_arrive_is_answered_after_the_grace() {
    let mut worker = with_grace(100);
    let mut used = Client::connect(worker.address);
    used.get("/");
    let mut fresh = Client::connect(worker.address);
    worker.connections(2);
    used.send("GET / HTTP/1.1\r\nho");
    fresh.send("GET /");
    worker.drain(LONG);
    assert!(!used.hears_within(Duration::from_millis(400)));
    assert!(!fresh.hears_within(Duration::from_millis(1)));
    used.send("st: test\r\n\r\n");
    fresh.send(" HTTP/1.1\r\nhost: test\r\n\r\n");
    for client in [&mut used, &mut fresh] {
        let response = client.response();
        assert_eq!(response.status, 200);
        assert!(response.says_close());
        client.until_closed();
    }
    drop((used, fresh));
    worker.drained();
}

#[test]
fn requests_that_were_sent_ahead_are_all_answered() {
    let mut worker = with_grace(60_000);
    let mut client = Client::connect(worker.address);
    client.send(
        "GET /slow?300 HTTP/1.1\r\nhost: test\r\n\r\n\
         POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello\
         GET / HTTP/1.1\r\nhost: test\r\n\r\n",
    );
    worker.in_flight(1);
    worker.drain(LONG);
    let first = client.response();
    assert_eq!((first.text(), first.says_close()), ("slow\n", false));
    let second = client.response();
    assert_eq!((second.text(), second.says_close()), ("hello", false));
    let third = client.response();
    assert_eq!((third.text(), third.says_close()), ("ok\n", true));
    client.until_closed();
    drop(client);
    assert_eq!(worker.drained().http.unwrap().total(), 3);
}

#[test]
fn a_slow_reader_gets_all_of_a_large_response() {
    let mut worker = with_grace(50);
    let mut client = Client::connect(worker.address);
    client.ask("/large");
    client.until("\r\n\r\n");
    worker.health(|health| health.http.as_ref().unwrap().requests[1] == 1);
    worker.drain(LONG);
    // Longer than the grace with nothing read.
    assert!(worker.ask(|id| ToWorker::Ping { id }).ok);
    for _ in 0..10 {
        worker.health(|_| true);
    }
    assert_eq!(client.rest().len(), 32 << 20);
    drop(client);
    worker.drained();
}

#[test]
fn a_response_to_a_body_that_nobody_reads_arrives_whole() {
    let worker = with_grace(60_000);
    let mut client = Client::connect(worker.address);
    client.send("POST /large HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n");
    client.send(vec![b'x'; 300_000]);
    client.until("\r\n\r\n");
    // Most of it waits in the worker's socket, and a reset would discard that.
    assert_eq!(client.rest().len(), 32 << 20);
}

#[test]
fn an_upgraded_connection_lives_to_the_deadline_and_is_cut_then() {
    let mut worker = with_grace(50);
    let mut client = Client::connect(worker.address);
    client.send(
        "GET /upgrade HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
    );
    let response = client.response();
    assert_eq!(response.status, 101);
    let begun = Instant::now();
    worker.drain(Duration::from_millis(700));
    assert!(!client.hears_within(Duration::from_millis(300)));
    client.send("still there");
    client.until("still there");
    let (_, last) = worker.last_words();
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert!(
        matches!(&last, ToSupervisor::Bye { reason }
            if reason == "the drain's deadline: cut 1 connections with 0 requests in flight"),
        "{last:?}"
    );
    client.until_closed();
    assert_eq!(worker.process.exit().code(), Some(0));
    assert!(worker.process.stderr().contains("cut 1 connections"));
}

#[test]
fn at_the_deadline_what_is_left_is_cut_without_a_reset() {
    let mut worker = with_grace(50);
    let mut client = Client::connect(worker.address);
    client.ask("/slow?60000");
    worker.in_flight(1);
    worker.drain(Duration::from_millis(100));
    client.until_closed();
    let (health, last) = worker.last_words();
    assert!(
        matches!(&last, ToSupervisor::Bye { reason }
            if reason == "the drain's deadline: cut 1 connections with 1 requests in flight"),
        "{last:?}"
    );
    assert_eq!(health.http.unwrap().total(), 0);
}

#[test]
fn a_cut_leaves_the_client_what_was_sent() {
    let mut worker = with_grace(50);
    let mut client = Client::connect(worker.address);
    client.ask("/large");
    client.send(vec![b'x'; 500_000]);
    client.until("\r\n\r\n");
    worker.health(|health| health.http.as_ref().unwrap().requests[1] == 1);
    worker.drain(Duration::from_millis(100));
    worker.last_words();
    worker.process.exit();
    // The end is cut off, and what had left the worker comes without a reset.
    let rest = client.rest().len();
    assert!((1..32 << 20).contains(&rest), "{rest}");
}

#[test]
fn nothing_is_accepted_and_the_listener_stays_open() {
    let mut worker = with_grace(60_000);
    let mut client = Client::connect(worker.address);
    client.get("/");
    worker.drain(LONG);
    let mut waiting = Client::connect(worker.address);
    waiting.ask("/");
    assert!(!waiting.hears_within(Duration::from_millis(200)));
    assert!(client.get("/").says_close());
    drop(client);
    worker.drained();
    // The supervisor holds the listener: the connection waits for another worker.
    assert!(!waiting.hears_within(Duration::from_millis(50)));
    let reply = worker.listener.accept();
    assert!(reply.is_ok());
}

#[test]
fn a_second_drain_may_bring_the_deadline_closer() {
    let mut worker = with_grace(60_000);
    let mut client = Client::connect(worker.address);
    client.get("/");
    worker.drain(LONG);
    worker.drain(Duration::from_millis(50));
    client.until_closed();
    let (_, last) = worker.last_words();
    assert!(matches!(last, ToSupervisor::Bye { .. }));
}

#[test]
fn clients_that_never_retry_lose_nothing_however_the_drain_meets_them() {
    for round in 0..20 {
        let mut worker = with_grace(1000);
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let mut client = Client::connect(worker.address);
                std::thread::spawn(move || {
                    let mut answered = 0;
                    loop {
                        let response = client.get("/");
                        assert_eq!(response.status, 200);
                        answered += 1;
                        if response.says_close() {
                            client.until_closed();
                            return answered;
                        }
                    }
                })
            })
            .collect();
        // Another moment of the load each time.
        worker.health(|health| health.http.as_ref().unwrap().total() > 20 * round);
        worker.connections(8);
        worker.drain(LONG);
        let answered: u64 = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum();
        assert_eq!(worker.drained().http.unwrap().total(), answered);
    }
}

#[test]
fn a_client_of_http_1_0_is_not_promised_another_response() {
    let mut worker = with_grace(60_000);
    let mut client = Client::connect(worker.address);
    let request = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    client.send(request);
    assert_eq!(client.response().header("connection"), Some("keep-alive"));
    worker.drain(LONG);
    client.send(request);
    // Where HTTP/1.0 says nothing it means close.
    assert_ne!(client.response().header("connection"), Some("keep-alive"));
    client.until_closed();
    drop(client);
    worker.drained();
}
