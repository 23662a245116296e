//! The end: what was accepted is answered, then connections are refused, and
//! never in between.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::Connection;
use crate::harness::load::Failure;
use crate::harness::load::mixed::Mixed;
use crate::harness::{Mode, Pool, Prefork, processes};

fn stops_under_load(mode: Mode, workers: u32) {
    let mut prefork = Prefork::start(&[Pool::service("web", workers).mode(mode)]);
    let load = Mixed::start(prefork.address("web"), 4);
    load.serves(50);
    prefork.signal(Signal::SIGTERM);
    eventually("clients of every kind are refused", PATIENCE, || {
        load.all_fail()
    });
    assert_eq!(prefork.exit_code(), 0);
    only_refused(load, &format!("{mode:?} with {workers}"));
    assert_eq!(prefork.processes(), Vec::<i32>::new());
}

/// Wants clients to have been served, then refused, and nothing else.
#[track_caller]
fn only_refused(load: Mixed, when: &str) {
    for (kind, outcomes) in load.stop() {
        let context = format!("{kind:?}, {when}: {outcomes:#?}");
        let only = |failure: &Failure| *failure == Failure::Refused;
        assert!(outcomes.failures.keys().all(only), "{context}");
        assert_eq!(outcomes.served_after_refusal, 0, "{context}");
    }
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
fn what_waits_to_be_accepted_at_sigterm_is_answered() {
    for mode in Mode::ALL {
        let mut prefork = Prefork::start(&[Pool::service("web", 2).mode(mode)]);
        let address = prefork.address("web");
        let workers = prefork.ready_pids("web");
        let signal = |signal| workers.iter().for_each(|pid| processes::send(*pid, signal));
        // While they can't accept, what comes has to wait.
        signal(Signal::SIGSTOP);
        let mut waiting: Vec<_> = (0..20)
            .map(|_| {
                let mut connection = Connection::open(address).expect("it listens");
                connection.send("GET", "/", "").expect("it is sent");
                connection
            })
            .collect();
        prefork.signal(Signal::SIGTERM);
        eventually("it is stopping", PATIENCE, || prefork.status().stopping);
        signal(Signal::SIGCONT);
        for connection in &mut waiting {
            let answer = connection.receive().expect("it is answered");
            assert_eq!(answer.status, 200);
            // A worker that goes on may answer before it reads that it drains.
            if !answer.closes() {
                connection.closed_cleanly().expect("its connection ends");
            }
        }
        assert_eq!(prefork.exit_code(), 0);
        let refused = TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn who_comes_after_sigterm_is_refused_and_never_reset() {
    for mode in Mode::ALL {
        let mut prefork = Prefork::start(&[Pool::service("web", 2).mode(mode)]);
        let address = prefork.address("web");
        let workers = prefork.ready_pids("web");
        let signal = |signal| workers.iter().for_each(|pid| processes::send(*pid, signal));
        // The listeners stay open for as long as the workers can't drain.
        signal(Signal::SIGSTOP);
        prefork.signal(Signal::SIGTERM);
        eventually("it is stopping", PATIENCE, || prefork.status().stopping);
        // Where the kernel took it, nobody might be left to answer it.
        let unanswered = TcpStream::connect_timeout(&address, Duration::from_millis(500));
        let unanswered = unanswered.expect_err("no handshake begins any more");
        assert_eq!(unanswered.kind(), ErrorKind::TimedOut, "{mode:?}");
        let late = thread::spawn(move || TcpStream::connect(address));
        signal(Signal::SIGCONT);
        let refused = late.join().expect("it connects").expect_err("it is late");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{mode:?}");
        assert_eq!(prefork.exit_code(), 0);
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
        // One that comes at once is the same order. The first one alone would have it
        // wait for ten minutes.
        eventually("one more ends it", PATIENCE, || {
            prefork.has_ended() || {
                prefork.signal(Signal::SIGTERM);
                false
            }
        });
        assert_eq!(prefork.processes(), Vec::<i32>::new());
        drop(load.stop());
    }
}

#[test]
fn sigterm_within_a_reload_ends_both_and_loses_nothing() {
    let pool = Pool::service("web", 2).text("min_ready", "20s");
    let mut prefork = Prefork::start(&[pool]);
    let processes = prefork.processes().len();
    let load = Mixed::start(prefork.address("web"), 2);
    load.serves(10);
    prefork.done(&["reload", "--force", "--no-wait"]);
    eventually("the new worker is on probation", PATIENCE, || {
        prefork.processes().len() > processes
    });
    prefork.signal(Signal::SIGTERM);
    eventually("clients of every kind are refused", PATIENCE, || {
        load.all_fail()
    });
    assert_eq!(prefork.exit_code(), 0);
    only_refused(load, "within a reload");
}
