//! The end: what was accepted is answered, then connections are refused, and
//! never in between.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::load::Failure;
use crate::harness::load::mixed::Mixed;
use crate::harness::{Mode, Pool, Prefork};

fn stops_under_load(mode: Mode, workers: u32) {
    let mut prefork = Prefork::start(&[Pool::service("web", workers).mode(mode)]);
    let load = Mixed::start(prefork.address("web"), 4);
    load.serves(50);
    prefork.signal(Signal::SIGTERM);
    eventually("clients of every kind are refused", PATIENCE, || {
        load.all_fail()
    });
    assert_eq!(prefork.exit_code(), 0);
    for (kind, outcomes) in load.stop() {
        let context = format!("{kind:?} on {mode:?} with {workers}: {outcomes:#?}");
        let only = |failure: &Failure| *failure == Failure::Refused;
        assert!(outcomes.failures.keys().all(only), "{context}");
        assert_eq!(outcomes.served_after_refusal, 0, "{context}");
    }
    assert_eq!(prefork.processes(), Vec::<i32>::new());
}

#[test]
fn at_sigterm_all_is_answered_and_then_all_is_refused() {
    for workers in [1, 2, 8] {
        stops_under_load(Mode::Shared, workers);
    }
}

#[test]
fn at_sigterm_all_is_answered_and_then_all_is_refused_with_a_listener_each() {
    for workers in [1, 2, 8] {
        stops_under_load(Mode::PerSlot, workers);
    }
}

#[test]
fn a_second_sigterm_ends_it_at_once_under_load() {
    for mode in Mode::ALL {
        let pool = Pool::service("web", 2)
            .mode(mode)
            .text("drain_timeout", "10m");
        let mut prefork = Prefork::start(&[pool]);
        let load = Mixed::start(prefork.address("web"), 2);
        load.serves(10);
        let mut stream = TcpStream::connect(prefork.address("web")).expect("it listens");
        stream
            .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("it is sent");
        let mut first = String::new();
        BufReader::new(&stream)
            .read_line(&mut first)
            .expect("it begins");
        assert_eq!(first, "HTTP/1.1 200 OK\r\n");

        prefork.signal(Signal::SIGTERM);
        eventually("it is stopping", PATIENCE, || prefork.status().stopping);
        let began = Instant::now();
        prefork.signal(Signal::SIGTERM);
        prefork.ended();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "it took {took:?}");
        assert_eq!(prefork.processes(), Vec::<i32>::new());
        drop(load.stop());
    }
}
