//! A worker that hangs costs nobody else a connection.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use prefork_api::SlotState;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::Connection;
use crate::harness::load::{Failure, Kind, Load};
use crate::harness::{Mode, Pool, Prefork, processes};

/// After how long without a word a worker is found to hang.
const TIMEOUT: Duration = Duration::from_secs(1);

fn four_workers(mode: Mode, timeout: &str) -> Prefork {
    let pool = Pool::service("web", 4)
        .mode(mode)
        .text("heartbeat_timeout", timeout);
    Prefork::start(&[pool])
}

fn found_hanging(prefork: &Prefork) -> f64 {
    let hung = [("pool", "web"), ("reason", "heartbeat_timeout")];
    prefork.metric("prefork_worker_exits_total", &hung)
}

/// Clients of three kinds that connect from now on.
fn fresh(prefork: &Prefork) -> [Load; 3] {
    [Kind::Close, Kind::KeepAlive, Kind::Digest]
        .map(|kind| Load::of(kind, prefork.address("web"), 8))
}

fn all_are_served(fresh: [Load; 3]) {
    let outcomes = fresh.map(|load| {
        load.serves(50);
        load.stop()
    });
    for outcomes in &outcomes {
        assert!(outcomes.failures.is_empty(), "{outcomes:#?}");
    }
}

#[test]
fn on_a_shared_listener_nobody_waits_for_it() {
    // It is not found before the end: who is served has not waited for that.
    let prefork = four_workers(Mode::Shared, "10m");
    let pid = prefork.ready_pid("web", 2);
    processes::send(pid, Signal::SIGSTOP);
    eventually("it is stopped", PATIENCE, || processes::is_stopped(pid));
    all_are_served(fresh(&prefork));
    assert_eq!(prefork.ready_pid("web", 2), pid);
    assert_eq!(found_hanging(&prefork), 0.0);
}

#[test]
fn whoever_comes_while_one_hangs_is_served_and_it_is_replaced() {
    for mode in Mode::ALL {
        let prefork = four_workers(mode, "1s");
        let old = prefork.ready_pid("web", 2);
        processes::send(old, Signal::SIGSTOP);
        // All of these connect after it has stopped: it has accepted none of them.
        let fresh = fresh(&prefork);
        prefork.replaced("web", 2, old);
        all_are_served(fresh);
        // Nobody waits for its end, which is counted when it has come.
        eventually("it is counted", PATIENCE, || found_hanging(&prefork) == 1.0);
    }
}

#[test]
fn nobody_is_killed_for_reports_that_a_stopped_supervisor_could_not_hear() {
    let prefork = four_workers(Mode::Shared, "1s");
    let load = Load::of(Kind::KeepAlive, prefork.address("web"), 4);
    load.serves(10);
    let pids = prefork.ready_pids("web");
    processes::send(prefork.pid(), Signal::SIGSTOP);
    // Not to wait for anything: so long it stands still.
    std::thread::sleep(TIMEOUT * 3);
    processes::send(prefork.pid(), Signal::SIGCONT);
    prefork.logged(&["stood still"]);
    let lived = Instant::now();
    eventually("they live on for longer than the timeout", PATIENCE, || {
        load.serves(10);
        assert_eq!(prefork.ready_pids("web"), pids);
        lived.elapsed() > TIMEOUT * 2
    });
    load.stop_flawless();
    assert_eq!(found_hanging(&prefork), 0.0);
}

/// Opens connections and asks on each, until some wait in a queue.
fn asked_until_some_wait(prefork: &Prefork) -> Vec<Connection> {
    let address = prefork.address("web");
    let mut asked = Vec::new();
    eventually("connections wait in a queue", PATIENCE, || {
        let mut connection = Connection::open(address).expect("it listens");
        connection.send("GET", "/", "").expect("it is sent");
        asked.push(connection);
        let waiting = prefork.pool("web").listeners[0].backlog;
        waiting.is_some_and(|waiting| waiting > 3)
    });
    asked
}

/// Four workers with queues of their own, of whose slots none has a second process soon.
fn no_successor_soon() -> Prefork {
    let pool = Pool::service_with("web", &["--slow-successor", "600000"], 4)
        .mode(Mode::PerSlot)
        .text("boot_timeout", "15m")
        .text("heartbeat_timeout", "1s");
    Prefork::start(&[pool])
}

fn has_no_successor_yet(prefork: &Prefork) {
    // The one that hung is counted once it is gone, which may take a moment longer.
    eventually("it is counted as hung", PATIENCE, || {
        found_hanging(prefork) == 1.0
    });
    assert_eq!(prefork.worker("web", 2).state, SlotState::Starting);
}

#[test]
fn what_waits_for_a_hung_worker_is_answered_by_the_others_before_its_successor_is_up() {
    let prefork = no_successor_soon();
    processes::send(prefork.ready_pid("web", 2), Signal::SIGSTOP);
    for mut connection in asked_until_some_wait(&prefork) {
        let answer = connection.receive().expect("it is answered");
        assert_eq!(answer.status, 200);
    }
    has_no_successor_yet(&prefork);
}

#[test]
fn of_a_listener_each_its_share_is_answered_though_its_successor_is_slow() {
    let prefork = no_successor_soon();
    processes::send(prefork.ready_pid("web", 2), Signal::SIGSTOP);
    let load = Load::of(Kind::Close, prefork.address("web"), 16);
    eventually("it is killed", PATIENCE, || found_hanging(&prefork) == 1.0);
    // Most of these come while the slot has nobody who accepts.
    load.serves(500);
    let outcomes = load.stop();
    assert!(outcomes.failures.is_empty(), "{outcomes:#?}");
    has_no_successor_yet(&prefork);
}

/// When a slot goes whose worker hangs, whoever waits in its queue is served
/// by another worker, and whoever comes meanwhile is not reset.
#[test]
fn a_slot_that_goes_while_its_worker_hangs_takes_no_connection_with_it() {
    let pool = Pool::service("web", 2)
        .mode(Mode::PerSlot)
        .text("heartbeat_timeout", "60s")
        .text("drain_timeout", "2s");
    let prefork = Prefork::start(&[pool]);
    let old = prefork.ready_pid("web", 1);
    processes::send(old, Signal::SIGSTOP);
    let load = Load::of(Kind::Close, prefork.address("web"), 16);
    eventually("connections wait in its queue", PATIENCE, || {
        let waiting = prefork.pool("web").listeners[0].backlog;
        waiting.is_some_and(|waiting| waiting > 3)
    });
    prefork.done(&["scale", "web", "1"]);
    eventually("its worker is gone", PATIENCE, || !processes::alive(old));
    load.serves(200);
    load.stop_flawless();
}

#[test]
fn only_what_it_had_accepted_is_lost() {
    const CLIENTS: usize = 16;
    for mode in Mode::ALL {
        let prefork = four_workers(mode, "1s");
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
