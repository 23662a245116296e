//! A program that cannot stay up costs little and takes nothing down with it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use prefork_api::{ExitReason, SlotState};

use crate::harness::deadline::{PATIENCE, eventually, eventually_some};
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, processes};

/// A pool with the backoff that a configuration without any has.
fn with_default_backoff(pool: Pool) -> Pool {
    pool.text("backoff_initial", "100ms")
        .text("backoff_max", "30s")
        .text("backoff_reset", "10s")
}

#[test]
fn a_worker_that_exits_at_once_starts_at_most_ten_times_in_ten_seconds() {
    let prefork = Prefork::start(&[
        with_default_backoff(Pool::test_worker("app", 1)),
        Pool::bundled("web", 1),
    ]);
    let starts = || prefork.metric("prefork_worker_starts_total", &[("pool", "app")]);
    let load = Load::start(prefork.address("web"), 2);
    let before = starts();
    prefork.order_boot("app", "exit 7 no database");
    processes::send(prefork.ready_pid("app", 0), Signal::SIGKILL);
    let began = Instant::now();

    // For long enough that it is still so when it is looked at again.
    let backing_off = eventually_some("the slot backs off", PATIENCE, || {
        let worker = prefork.worker("app", 0);
        let is_long = worker.backoff_seconds.is_some_and(|seconds| seconds > 2.0);
        is_long.then_some(worker)
    });
    assert_eq!(backing_off.state, SlotState::Backoff);
    assert_eq!(backing_off.pid, None);
    assert!(backing_off.backoff_seconds.is_some(), "{backing_off:?}");
    let last = backing_off.last_exit.expect("it has crashed");
    assert_eq!((last.reason, last.code), (ExitReason::Crash, Some(7)));
    assert!(last.stderr.contains("no database"), "{last:?}");
    // A machine with much to do may take longer to show it than it lasts.
    eventually("status says so, and why", PATIENCE, || {
        let table = prefork.done(&["status"]);
        table.contains("backoff") && table.contains("crash")
    });
    assert_eq!(prefork.cli(&["status", "--exit-code"]).code, 7);

    // The law covers the first ten seconds, so they have to pass.
    eventually("ten seconds pass", PATIENCE, || {
        began.elapsed() >= Duration::from_secs(10)
    });
    let started = starts() - before;
    assert!((3.0..=10.0).contains(&started), "{started} starts");
    load.stop_flawless();
}

#[test]
fn a_crash_loop_ends_as_soon_as_the_program_is_good_again() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 2)]);
    prefork.order_boot("app", "exit 1 broken");
    for slot in 0..2 {
        processes::send(prefork.ready_pid("app", slot), Signal::SIGKILL);
    }
    let crashes = || prefork.metric("prefork_worker_exits_total", &[("reason", "crash")]);
    eventually("they crash again and again", PATIENCE, || crashes() >= 6.0);
    let backoff = "prefork_worker_restart_backoff_seconds";
    eventually("the wait is exported", PATIENCE, || {
        prefork.metric(backoff, &[("slot", "0")]) > 0.0
    });

    prefork.clear_boot("app");
    prefork.done(&["wait", "--for", "ready"]);
    let ready = prefork.pool("app").ready;
    assert_eq!(ready, 2);
}

#[test]
fn a_first_boot_that_fails_ends_run_with_1_and_the_workers_last_words() {
    let script = "echo 'cannot read the licence' >&2; exit 9";
    let broken = Pool::command("app", &["/bin/sh", "-c", script], 2);
    let mut prefork = Prefork::launch(&[broken]);
    assert_eq!(prefork.exit_code(), 1);
    eventually("its log says why", PATIENCE, || {
        prefork.log().contains("cannot read the licence")
    });
    let log = prefork.log();
    assert!(log.contains("app/0") || log.contains("app/1"), "{log}");
    assert_eq!(prefork.processes(), Vec::<i32>::new());
}

#[test]
fn a_first_boot_that_hangs_ends_run_with_1_when_its_deadline_passes() {
    let pool = Pool::command("app", &["/bin/sleep", "1000"], 1).text("boot_timeout", "500ms");
    let mut prefork = Prefork::launch(&[pool]);
    assert_eq!(prefork.exit_code(), 1);
    prefork.logged(&["boot_timeout"]);
    assert_eq!(prefork.processes(), Vec::<i32>::new());
}

#[test]
fn a_successor_that_is_never_ready_is_killed_and_tried_again() {
    let pool = Pool::test_worker("app", 1).text("boot_timeout", "1s");
    let prefork = Prefork::start(&[pool, Pool::bundled("web", 1)]);
    for order in ["mute", "unready"] {
        let before = prefork.metric("prefork_worker_exits_total", &[("reason", "boot_timeout")]);
        prefork.order_boot("app", order);
        processes::send(prefork.ready_pid("app", 0), Signal::SIGKILL);
        eventually("its boot deadline passes", PATIENCE, || {
            prefork.metric("prefork_worker_exits_total", &[("reason", "boot_timeout")]) > before
        });
        prefork.clear_boot("app");
        prefork.ready_pid("app", 0);
    }
}

#[test]
fn a_slow_boot_within_its_deadline_is_waited_for() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    prefork.order_boot("app", "slow 1500");
    let old = prefork.ready_pid("app", 0);
    processes::send(old, Signal::SIGKILL);
    eventually("it is starting", PATIENCE, || {
        prefork.worker("app", 0).state == SlotState::Starting
    });
    prefork.replaced("app", 0, old);
    let booted = prefork.metric(
        "prefork_worker_boot_duration_seconds_sum",
        &[("pool", "app")],
    );
    assert!(booted >= 1.5, "{booted}");
    assert_eq!(
        prefork.metric("prefork_worker_exits_total", &[("reason", "boot_timeout")]),
        0.0
    );
}
