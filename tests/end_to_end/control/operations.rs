//! No operation breaks a request or refuses a connection: every kind of client
//! asks all the time while the operation is done again and again, on both
//! kinds of listener.
//!
//! Here each is done often enough to notice; the tests that are ignored by
//! default do it a hundred times and have `wrk` count, too.

use std::time::{Duration, Instant};

use crate::harness::deadline::PATIENCE;
use crate::harness::load::mixed::Mixed;
use crate::harness::load::wrk::Wrk;
use crate::harness::{Mode, Pool, Prefork};

/// How many clients of each kind.
const CLIENTS: usize = 4;

/// A pool under a load of every kind, and what is done to it.
fn under_load(pool: Pool, operate: impl FnOnce(&Prefork, &Mixed)) {
    let prefork = Prefork::start(&[pool]);
    let load = Mixed::start(prefork.address("web"), CLIENTS);
    load.serves(20);
    operate(&prefork, &load);
    load.serves(20);
    load.stop_flawless();
}

/// Reloads so often; each has to be a new generation in every slot.
fn reloads(mode: Mode, workers: u32, times: u64) {
    under_load(Pool::service("web", workers).mode(mode), |prefork, load| {
        let first = prefork.status().generation;
        for _ in 0..times {
            prefork.done(&["reload", "--force"]);
            load.serves(5);
        }
        let status = prefork.status();
        assert_eq!(status.generation, first + times);
        let workers = &status.pools[0].workers;
        assert!(workers.iter().all(|w| w.generation == Some(first + times)));
    });
}

#[test]
fn reloads_of_two_workers_lose_nothing() {
    reloads(Mode::Shared, 2, 10);
}

#[test]
fn reloads_of_two_workers_with_a_listener_each_lose_nothing() {
    reloads(Mode::PerSlot, 2, 10);
}

#[test]
fn reloads_of_eight_workers_lose_nothing() {
    reloads(Mode::Shared, 8, 4);
}

#[test]
fn reloads_of_eight_workers_with_a_listener_each_lose_nothing() {
    reloads(Mode::PerSlot, 8, 4);
}

#[test]
fn reloads_of_a_single_worker_lose_nothing() {
    for mode in Mode::ALL {
        reloads(mode, 1, 6);
    }
}

fn restarts(mode: Mode, workers: u32, times: u32) {
    under_load(Pool::service("web", workers).mode(mode), |prefork, load| {
        for _ in 0..times {
            let before = prefork.ready_pids("web");
            prefork.done(&["restart", "web"]);
            let after = prefork.ready_pids("web");
            assert!(
                before.iter().all(|pid| !after.contains(pid)),
                "{before:?} {after:?}"
            );
            load.serves(5);
        }
    });
}

#[test]
fn restarts_lose_nothing() {
    restarts(Mode::Shared, 2, 6);
    restarts(Mode::Shared, 8, 2);
}

#[test]
fn restarts_of_workers_with_a_listener_each_lose_nothing() {
    restarts(Mode::PerSlot, 2, 6);
    restarts(Mode::PerSlot, 8, 2);
}

fn scaling(mode: Mode, times: u32) {
    under_load(Pool::service("web", 1).mode(mode), |prefork, load| {
        for _ in 0..times {
            for workers in ["8", "1"] {
                prefork.done(&["scale", "web", workers]);
                load.serves(5);
                assert_eq!(prefork.pool("web").ready.to_string(), workers);
            }
        }
    });
}

#[test]
fn scaling_between_eight_and_one_loses_nothing() {
    scaling(Mode::Shared, 3);
}

#[test]
fn scaling_between_eight_and_one_with_a_listener_each_loses_nothing() {
    scaling(Mode::PerSlot, 3);
}

fn recycling(mode: Mode, workers: u32, max_requests: u32, recycled: f64) {
    let pool = Pool::service("web", workers)
        .mode(mode)
        .set("max_requests", max_requests);
    under_load(pool, |prefork, load| {
        let exits = || {
            let labels = [("pool", "web"), ("reason", "max_requests")];
            prefork.metric("prefork_worker_exits_total", &labels)
        };
        let from = exits();
        while exits() < from + recycled {
            load.serves(20);
        }
    });
}

#[test]
fn recycling_loses_nothing() {
    recycling(Mode::Shared, 2, 200, 10.0);
}

#[test]
fn recycling_with_a_listener_each_loses_nothing() {
    recycling(Mode::PerSlot, 2, 200, 10.0);
}

fn drains(mode: Mode, workers: u32, times: u32) {
    under_load(Pool::service("web", workers).mode(mode), |prefork, load| {
        for time in 0..times {
            let slot = time % workers;
            let old = prefork.ready_pid("web", slot);
            prefork.done(&["drain", &format!("web/{slot}")]);
            prefork.replaced("web", slot, old);
            load.serves(5);
        }
    });
}

#[test]
fn draining_one_worker_after_the_other_loses_nothing() {
    drains(Mode::Shared, 2, 6);
    drains(Mode::Shared, 1, 3);
}

#[test]
fn draining_one_worker_after_the_other_with_a_listener_each_loses_nothing() {
    drains(Mode::PerSlot, 2, 6);
    drains(Mode::PerSlot, 1, 3);
}

/// The same counted by `wrk` on 32 connections: `operate` again and again for
/// so long, and on a busy machine until it was done three times beside
/// thousands of requests.
fn under_wrk(pool: Pool, seconds: u64, operate: impl Fn(&Prefork)) {
    let prefork = Prefork::start(&[pool]);
    let long = Duration::from_secs(seconds);
    let within = long + 4 * PATIENCE;
    let Some(mut wrk) = Wrk::start(prefork.address("web"), 32, within) else {
        return;
    };
    let began = Instant::now();
    let answers = || prefork.metric("prefork_http_requests_total", &[]);
    let mut times = 0;
    while began.elapsed() < long || times < 3 || answers() < 2000.0 {
        assert!(wrk.asks(), "{times} operations within {within:?}");
        operate(&prefork);
        times += 1;
    }
    let counts = wrk.stop();
    eprintln!("{counts:?} over {times} operations");
    assert!(counts.requests > 1000, "{counts:?}");
    assert_eq!(
        (counts.socket_errors, counts.not_2xx),
        (0, 0),
        "{counts:?} after {times} operations"
    );
}

#[test]
fn wrk_counts_no_error_while_it_reloads() {
    for mode in Mode::ALL {
        under_wrk(Pool::service("web", 2).mode(mode), 6, |prefork| {
            prefork.done(&["reload", "--force"]);
        });
    }
}

#[test]
#[ignore = "takes minutes"]
fn in_full_reloads_lose_nothing() {
    for mode in Mode::ALL {
        for workers in [1, 2, 8] {
            reloads(mode, workers, 100);
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn in_full_all_other_operations_lose_nothing() {
    for mode in Mode::ALL {
        scaling(mode, 20);
        recycling(mode, 8, 1000, 40.0);
        for workers in [1, 2, 8] {
            restarts(mode, workers, 20);
            drains(mode, workers, 20);
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn in_full_wrk_counts_no_error() {
    for mode in Mode::ALL {
        for workers in [1, 2, 8] {
            let pool = || Pool::service("web", workers).mode(mode);
            under_wrk(pool(), 10, |prefork| {
                drop(prefork.done(&["reload", "--force"]));
            });
            under_wrk(pool(), 5, |prefork| drop(prefork.done(&["restart", "web"])));
            under_wrk(pool(), 5, |prefork| {
                prefork.done(&["scale", "web", "8"]);
                prefork.done(&["scale", "web", "1"]);
            });
        }
    }
}
