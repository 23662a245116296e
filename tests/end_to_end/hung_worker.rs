//! A worker that hangs costs nobody else a connection.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::load::{Failure, Kind, Load};
use crate::harness::{Mode, Pool, Prefork, processes};

/// After how long without a word a worker is found to hang.
const TIMEOUT: Duration = Duration::from_secs(1);

fn four_workers(mode: Mode) -> Prefork {
    let pool = Pool::service("web", 4)
        .mode(mode)
        .text("heartbeat_timeout", "1s");
    Prefork::start(&[pool])
}

/// Stops one of four workers and then opens connection after connection until
/// it is replaced; gives the longest time that an answer took.
fn slowest_while_one_hangs(mode: Mode) -> Duration {
    let prefork = four_workers(mode);
    let old = prefork.ready_pid("web", 2);
    processes::send(old, Signal::SIGSTOP);
    let stopped = Instant::now();
    // All of these connect after it has stopped: it has accepted none of them.
    let fresh = [Kind::Close, Kind::KeepAlive, Kind::Digest]
        .map(|kind| Load::of(kind, prefork.address("web"), 8));
    prefork.replaced("web", 2, old);
    let replaced = stopped.elapsed();
    assert!(
        replaced < TIMEOUT + Duration::from_secs(1),
        "it was replaced after {replaced:?}"
    );
    let outcomes = fresh.map(|load| {
        load.serves(50);
        load.stop()
    });
    for outcomes in &outcomes {
        assert!(outcomes.failures.is_empty(), "{outcomes:#?}");
    }
    let hung = [("pool", "web"), ("reason", "heartbeat_timeout")];
    assert_eq!(prefork.metric("prefork_worker_exits_total", &hung), 1.0);
    let slowest = outcomes.iter().map(|outcomes| outcomes.slowest);
    slowest.max().expect("there are three")
}

#[test]
fn on_a_shared_listener_nobody_waits_for_it() {
    let slowest = slowest_while_one_hangs(Mode::Shared);
    assert!(slowest < TIMEOUT, "an answer took {slowest:?}");
}

#[test]
fn of_a_listener_each_its_share_is_answered_by_the_others_in_time() {
    let slowest = slowest_while_one_hangs(Mode::PerSlot);
    assert!(
        slowest < TIMEOUT + Duration::from_secs(1),
        "an answer took {slowest:?}"
    );
    // Otherwise no connection has come to it, and nothing was shown.
    assert!(
        slowest > TIMEOUT / 4,
        "no answer took longer than {slowest:?}"
    );
}

#[test]
fn only_what_it_had_accepted_is_lost() {
    const CLIENTS: usize = 16;
    for mode in Mode::ALL {
        let prefork = four_workers(mode);
        let old = prefork.ready_pid("web", 1);
        let idle = processes::descriptors(old).len();
        let load = Load::start(prefork.address("web"), CLIENTS);
        load.serves(200);
        processes::send(old, Signal::SIGSTOP);
        let accepted = processes::descriptors(old).len() - idle;
        prefork.replaced("web", 1, old);
        load.serves(200);
        let outcomes = load.stop();
        let lost: u64 = outcomes.failures.values().sum();
        assert_eq!(outcomes.of(Failure::Refused), 0, "{outcomes:#?}");
        assert!(accepted <= CLIENTS, "{accepted} descriptors more");
        assert!(
            lost <= accepted as u64,
            "{accepted} had been accepted: {outcomes:#?}"
        );
    }
}
