//! Work that takes longer than a reload: it is finished where it began, up to
//! the drain's deadline, while new connections go to the new generation.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::{self, Connection};
use crate::harness::{Mode, Pool, Prefork};

/// The generation that the page names.
fn generation(body: &str) -> u64 {
    let after = body.split("generation ").nth(1).expect("the page names it");
    let digits = after.split(' ').next().expect("a number follows");
    digits.parse().expect("a generation is a number")
}

/// Wants every one of a few new connections to be served by this generation.
fn new_connections_are_served_by(prefork: &Prefork, wanted: u64) {
    for _ in 0..10 {
        let answer = http::get(prefork.address("web"), "/").expect("it is served");
        assert_eq!(generation(&answer.body), wanted);
    }
}

#[test]
fn a_response_of_five_seconds_survives_a_reload() {
    for mode in Mode::ALL {
        let prefork = Prefork::start(&[Pool::service("web", 2).mode(mode)]);
        let mut slow = Connection::open(prefork.address("web")).expect("it listens");
        let began = Instant::now();
        slow.send("GET", "/slow/5000", "").expect("it is sent");
        eventually("it is in flight", PATIENCE, || {
            let workers = prefork.pool("web").workers;
            workers.iter().any(|worker| worker.in_flight == 1)
        });
        prefork.done(&["reload"]);
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the reload waited for the slow response"
        );
        new_connections_are_served_by(&prefork, 2);
        let answer = slow.receive().expect("it is answered");
        assert!(began.elapsed() >= Duration::from_secs(5));
        assert_eq!(generation(&answer.body), 1, "{answer:?}");
        assert!(answer.closes(), "{answer:?}");
        slow.closed_cleanly().expect("nothing follows it");
    }
}

#[test]
fn a_stream_of_events_ends_at_the_drains_deadline_and_not_before() {
    const DEADLINE: Duration = Duration::from_secs(2);
    for mode in Mode::ALL {
        let pool = Pool::service("web", 2)
            .mode(mode)
            .text("drain_timeout", "2s");
        let prefork = Prefork::start(&[pool]);
        let mut stream = TcpStream::connect(prefork.address("web")).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream
            .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("it is sent");
        let mut events = BufReader::new(stream);
        wait_for_event(&mut events);

        // The drain begins within the reload.
        let asked = Instant::now();
        prefork.done(&["reload"]);
        let committed = Instant::now();
        new_connections_are_served_by(&prefork, 2);
        wait_for_event(&mut events);
        // What is cut has an end, which is not the end of a chunked body.
        let mut rest = Vec::new();
        events.read_to_end(&mut rest).expect("closed, not reset");
        assert!(
            asked.elapsed() >= DEADLINE,
            "it ended {:?} after the reload was asked for",
            asked.elapsed()
        );
        let late = committed.elapsed().saturating_sub(DEADLINE);
        assert!(late < Duration::from_secs(3), "{late:?} too late");
        let text = String::from_utf8_lossy(&rest);
        assert!(text.matches("data: ").count() > 10, "{text}");
        eventually("its death says why", PATIENCE, || {
            prefork.metric("prefork_worker_exits_total", &[("reason", "drain_timeout")]) == 1.0
        });
    }
}

fn wait_for_event(events: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        let read = events.read_line(&mut line).expect("the stream goes on");
        assert!(read > 0, "the stream has ended");
    }
}
