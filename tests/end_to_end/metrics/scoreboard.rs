//! Every request that a client saw answered is counted, however its worker
//! dies, and nothing that a worker writes goes further than its own numbers.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};

use nix::sys::signal::Signal;
use prefork_api::ExitReason;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::Connection;
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, processes};

/// All requests of a pool, by the newest scrape.
fn requests(prefork: &Prefork, pool: &str) -> f64 {
    prefork.metric("prefork_http_requests_total", &[("pool", pool)])
}

#[test]
fn what_a_client_has_received_is_in_the_next_scrape() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1).text("heartbeat_interval", "5s")]);
    let mut client = Connection::open(prefork.address("web")).expect("it listens");
    for count in 1..=20 {
        assert_eq!(client.get("/").expect("it answers").status, 200);
        assert_eq!(requests(&prefork, "web"), f64::from(count));
        let worker = prefork.worker("web", 0);
        assert_eq!(worker.requests, u64::try_from(count).ok());
        assert_eq!(worker.connections, 1);
    }
    let scrape = prefork.scrape();
    assert_eq!(scrape.sum("prefork_http_connections_active", &[]), 1.0);
    assert!(scrape.sum("prefork_http_sent_bytes_total", &[]) > 0.0);
    let observed = "prefork_http_request_duration_seconds_count";
    assert_eq!(scrape.sum(observed, &[("pool", "web")]), 20.0);
}

#[test]
fn the_certificate_of_a_killed_worker_counts_to_its_last_request() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1).text("heartbeat_interval", "5s")]);
    let mut client = Connection::open(prefork.address("web")).expect("it listens");
    let old = prefork.ready_pid("web", 0);
    for _ in 0..7 {
        client.get("/").expect("it answers");
    }
    // No report was due, and nobody asks before it is gone: a status would read
    // the scoreboard.
    processes::send(old, Signal::SIGKILL);
    prefork.logged(&["ended by signal 9", &old.to_string()]);
    prefork.replaced("web", 0, old);
    let exit = prefork.worker("web", 0).last_exit.expect("it has died");
    assert_eq!((exit.reason, exit.requests), (ExitReason::Signal, 7));
    assert_eq!(requests(&prefork, "web"), 7.0);
    let scrape = prefork.scrape();
    assert_eq!(scrape.sum("prefork_http_connections_active", &[]), 0.0);
}

#[test]
fn after_twenty_kills_under_load_no_answered_request_is_missing_and_none_is_invented() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let load = Load::start(prefork.address("web"), 8);
    let mut before = 0.0;
    for kill in 0..20 {
        load.serves(40);
        let slot = kill % 2;
        let old = prefork.ready_pid("web", slot);
        processes::send(old, Signal::SIGKILL);
        prefork.replaced("web", slot, old);
        let now = requests(&prefork, "web");
        assert!(now > before, "from {before} to {now}");
        before = now;
    }
    let outcomes = load.stop();
    let broken: u64 = outcomes.failures.values().sum();
    assert!(outcomes.served >= 800, "{outcomes:?}");
    assert!(broken > 0, "no kill met a request: {outcomes:?}");

    let counted = requests(&prefork, "web");
    let served = outcomes.served as f64;
    let most = served + broken as f64;
    assert!(
        served <= counted && counted <= most,
        "{counted} counted; {outcomes:?}"
    );
    let workers = prefork.pool("web").workers;
    let shown: u64 = workers.iter().filter_map(|worker| worker.requests).sum();
    assert_eq!(shown as f64, counted);
    let signals = prefork.metric("prefork_worker_exits_total", &[("reason", "signal")]);
    assert_eq!(signals, 20.0);
}

/// Writes this byte over a worker's whole scoreboard, from outside: the memory
/// is the same as if it did so itself.
#[track_caller]
fn scribble(pid: i32, byte: u8) {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it lives");
    let board = maps
        .lines()
        .find(|line| line.contains("prefork-scoreboard"))
        .unwrap_or_else(|| panic!("{pid} has mapped no scoreboard: {maps}"));
    let (from, _) = board.split_once('-').expect("a range comes first");
    let from = u64::from_str_radix(from, 16).expect("addresses are hexadecimal");
    let mut memory = File::options()
        .write(true)
        .open(format!("/proc/{pid}/mem"))
        .expect("it is our descendant");
    memory.seek(SeekFrom::Start(from)).expect("it is a number");
    memory.write_all(&[byte; 4096]).expect("it is mapped");
}

#[test]
fn a_worker_that_scribbles_over_its_scoreboard_spoils_only_its_own_numbers() {
    let prefork = Prefork::start(&[Pool::bundled("odd", 1), Pool::bundled("web", 1)]);
    let load = Load::start(prefork.address("web"), 2);
    let mut client = Connection::open(prefork.address("odd")).expect("it listens");
    let odd = prefork.ready_pid("odd", 0);
    for _ in 0..3 {
        client.get("/").expect("it answers");
    }
    let held = || prefork.metric("prefork_worker_counters_held_total", &[("pool", "odd")]);
    assert_eq!(requests(&prefork, "odd"), 3.0);
    assert_eq!(held(), 0.0);

    scribble(odd, 0);
    assert_eq!(requests(&prefork, "odd"), 3.0, "never backwards");
    assert!(held() > 0.0, "and it is told");
    for byte in [0x01, 0xFF, 0x80, 0xFF] {
        let before = requests(&prefork, "odd");
        scribble(odd, byte);
        assert!(requests(&prefork, "odd") >= before);
        client.get("/").expect("it goes on serving");
        prefork.done(&["status"]);
        prefork.done(&["describe", "odd/0"]);
    }
    load.serves(20);
    assert_eq!(prefork.ready_pid("odd", 0), odd, "it is no reason to die");

    processes::send(odd, Signal::SIGKILL);
    let new = prefork.replaced("odd", 0, odd);
    eventually("the new one's gauges are its own", PATIENCE, || {
        prefork.metric("prefork_http_requests_in_flight", &[("pool", "odd")]) == 0.0
    });
    let worker = prefork.worker("odd", 0);
    assert_eq!((worker.pid, worker.connections), (Some(new), 0));
    let served = load.stop_flawless() as f64;
    assert_eq!(requests(&prefork, "web"), served);
    let others = prefork.metric("prefork_worker_counters_held_total", &[("pool", "web")]);
    assert_eq!(others, 0.0);
}

#[test]
fn the_scoreboard_is_sealed_against_everything_but_counting() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let worker = prefork.ready_pid("web", 0);
    let descriptor = processes::descriptors(worker)
        .into_iter()
        .find(|fd| fd.target.contains("prefork-scoreboard"))
        .expect("the worker keeps it for the next supervisor");
    let path = format!("/proc/{worker}/fd/{}", descriptor.number);
    let open = |options: &mut fs::OpenOptions| options.write(true).open(&path);
    open(File::options().truncate(true)).expect_err("it can't be truncated");
    let mut memory = open(&mut File::options()).expect("it is ours");
    memory.set_len(0).expect_err("it can't shrink");
    memory.set_len(1 << 20).expect_err("it can't grow");
    memory
        .write_all(b"garbage")
        .expect_err("it can't be written");
    assert_eq!(requests(&prefork, "web"), 0.0);
}
