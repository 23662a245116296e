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

/// The generation that answers a new connection.
fn new_connection(prefork: &Prefork) -> u64 {
    let answer = http::get(prefork.address("web"), "/").expect("it is served");
    generation(&answer.body)
}

/// Reloads: whoever connects from then on comes to the new generation, while the old
/// one may still have work.
fn reload(prefork: &Prefork) {
    let output = prefork.cli(&["reload", "--force"]);
    assert_eq!(output.code, 0, "{output:?}");
}

#[test]
fn a_request_that_takes_longer_than_a_reload_is_answered_where_it_began() {
    for mode in Mode::ALL {
        let prefork = Prefork::start(&[Pool::service("web", 2).mode(mode)]);
        let mut long = Connection::open(prefork.address("web")).expect("it listens");
        // It takes until the rest of its body is there.
        long.write(b"POST /digest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
            .expect("it is sent");
        eventually("it is in flight", PATIENCE, || {
            let workers = prefork.pool("web").workers;
            workers.iter().any(|worker| worker.in_flight == 1)
        });
        reload(&prefork);
        for _ in 0..10 {
            assert_eq!(new_connection(&prefork), 2);
        }
        let workers = prefork.pool("web").workers;
        let mut leaving = workers.iter().flat_map(|worker| &worker.draining);
        assert!(
            leaving.any(|it| it.generation == 1 && it.in_flight == 1),
            "{workers:?}"
        );
        long.write(b"cd").expect("it is sent");
        let answer = long.receive().expect("it is answered");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.closes(), "{answer:?}");
        let next = long.get("/").expect("the connection goes on");
        assert_eq!(generation(&next.body), 2);
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
        let mut events = events(&prefork);
        // The drain begins after this and before the new generation has taken over.
        let asked = Instant::now();
        reload(&prefork);
        for _ in 0..10 {
            assert_eq!(new_connection(&prefork), 2);
        }
        let mut rest = Vec::new();
        events.read_to_end(&mut rest).expect("closed, not reset");
        let lasted = asked.elapsed();
        assert!(lasted >= DEADLINE, "it lasted only {lasted:?}");
        // One comes every 50 ms.
        let text = String::from_utf8_lossy(&rest);
        assert!(text.matches("data: ").count() > 10, "{text}");
        eventually("its death says why", PATIENCE, || {
            let reason = [("reason", "drain_timeout")];
            prefork.metric("prefork_worker_exits_total", &reason) == 1.0
        });
    }
}

/// A stream of server-sent events that has begun.
fn events(prefork: &Prefork) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(prefork.address("web")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream
        .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("it is sent");
    let mut events = BufReader::new(stream);
    wait_for_event(&mut events);
    events
}

fn wait_for_event(events: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        let read = events.read_line(&mut line).expect("the stream goes on");
        assert!(read > 0, "the stream has ended");
    }
}
