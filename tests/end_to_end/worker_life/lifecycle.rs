//! What operators do to a running service, and what the service does by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_api::{ExitReason, SlotState};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::Connection;
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, http, processes};
use crate::http::serving::pid_on_page;

#[track_caller]
fn exits(prefork: &Prefork, reason: &str) -> f64 {
    prefork.metric("prefork_worker_exits_total", &[("reason", reason)])
}

#[test]
fn scale_is_absolute_and_done_when_it_returns() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let load = Load::start(prefork.address("web"), 2);
    let first = [prefork.ready_pid("web", 0), prefork.ready_pid("web", 1)];

    prefork.done(&["scale", "web", "5"]);
    let pool = prefork.pool("web");
    assert_eq!((pool.desired, pool.ready), (5, 5));
    prefork.done(&["scale", "web", "5"]);
    assert_eq!(prefork.metric("prefork_worker_starts_total", &[]), 5.0);

    prefork.done(&["scale", "web", "1"]);
    let pool = prefork.pool("web");
    assert_eq!((pool.desired, pool.ready), (1, 1));
    assert_eq!(prefork.ready_pid("web", 0), first[0]);
    assert!(!processes::alive(first[1]));
    assert_eq!(exits(&prefork, "scale_down"), 4.0);
    load.stop_flawless();
}

#[test]
fn ttin_and_ttou_scale_by_one() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    prefork.signal(Signal::SIGTTIN);
    eventually("one more is ready", PATIENCE, || {
        prefork.pool("web").ready == 2
    });
    prefork.signal(Signal::SIGTTOU);
    eventually("one has gone", PATIENCE, || prefork.processes().len() == 2);
    assert_eq!(prefork.pool("web").desired, 1);
}

#[test]
fn restart_replaces_every_worker_and_breaks_no_request() {
    let prefork = Prefork::start(&[Pool::bundled("web", 3)]);
    let pids = || -> BTreeSet<i32> { (0..3).map(|slot| prefork.ready_pid("web", slot)).collect() };
    let before = pids();
    let load = Load::start(prefork.address("web"), 4);
    load.serves(20);
    let restarted = prefork.cli(&["restart", "web"]);
    assert_eq!(restarted.code, 0, "{restarted:?}");
    assert!(
        restarted.stderr.contains("web/2"),
        "progress: {restarted:?}"
    );
    load.serves(20);
    load.stop_flawless();
    assert!(pids().is_disjoint(&before));
    assert_eq!(exits(&prefork, "operator"), 3.0);
    assert!(!before.iter().any(|pid| processes::alive(*pid)));
}

#[test]
fn restart_of_one_slot_leaves_the_others_alone() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let (left, right) = (prefork.ready_pid("web", 0), prefork.ready_pid("web", 1));
    prefork.done(&["restart", "web/1"]);
    assert_eq!(prefork.ready_pid("web", 0), left);
    assert_ne!(prefork.ready_pid("web", 1), right);
}

#[test]
fn a_restart_whose_successor_fails_keeps_the_old_worker() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 2)]);
    let load = Load::start(prefork.address("app"), 2);
    let before = [prefork.ready_pid("app", 0), prefork.ready_pid("app", 1)];
    prefork.order_boot("app", "exit 2 bad deploy");
    let failed = prefork.cli(&["restart", "app"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("bad deploy"), "{failed:?}");
    assert!(
        failed.stderr.contains("app/0"),
        "says which slot: {failed:?}"
    );
    assert_eq!(
        [prefork.ready_pid("app", 0), prefork.ready_pid("app", 1)],
        before
    );
    load.stop_flawless();
}

#[test]
fn a_paused_worker_serves_what_is_open_and_accepts_nothing() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let address = prefork.address("web");
    let paused = prefork.ready_pid("web", 0);
    let other = prefork.ready_pid("web", 1);
    prefork.done(&["pause", "web/0"]);
    assert_eq!(prefork.worker("web", 0).state, SlotState::Paused);
    for _ in 0..10 {
        assert_eq!(pid_on_page(address), other);
    }
    prefork.done(&["resume", "web/0"]);
    prefork.done(&["pause", "web/1"]);
    assert_eq!(pid_on_page(address), paused);
    assert_eq!(prefork.ready_pid("web", 0), paused);
}

#[test]
fn drain_lets_a_request_in_flight_finish_while_its_successor_serves() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    let address = prefork.address("app");
    let old = prefork.ready_pid("app", 0);
    let mut slow = Connection::open(address).expect("it listens");
    slow.send("GET", "/slow/2000", "").expect("it is sent");
    eventually("the request is in flight", PATIENCE, || {
        prefork.worker("app", 0).in_flight == 1
    });
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| prefork.cli(&["drain", "app/0"]));
        let new = prefork.replaced("app", 0, old);
        assert_eq!(pid_on_page(address), new);
        let answer = slow.receive().expect("it is answered by the old one");
        assert!(answer.body.contains(&old.to_string()), "{answer:?}");
        let drained = drain.join().expect("no panic");
        assert_eq!(drained.code, 0, "{drained:?}");
    });
    assert!(!processes::alive(old));
    assert_eq!(exits(&prefork, "operator"), 1.0);
    assert_eq!(
        prefork.metric("prefork_worker_drain_duration_seconds_count", &[]),
        1.0
    );
}

#[test]
fn an_idle_connection_of_a_draining_worker_is_served_once_more_and_closed_cleanly() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1).text("idle_grace", "3s")]);
    let address = prefork.address("web");
    let old = prefork.ready_pid("web", 0);
    let mut speaks = Connection::open(address).expect("it listens");
    let mut silent = Connection::open(address).expect("it listens");
    for connection in [&mut speaks, &mut silent] {
        assert!(!connection.get("/").expect("it is served").closes());
    }
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| prefork.cli(&["drain", "web/0"]));
        prefork.succeeded("web", 0, old);
        let last = speaks.get("/").expect("it is served once more");
        assert!(last.body.contains(&old.to_string()), "{last:?}");
        assert!(last.closes(), "{last:?}");
        speaks.closed_cleanly().expect("closed after its answer");
        silent.closed_cleanly().expect("closed after the grace");
        assert_eq!(drain.join().expect("no panic").code, 0);
    });
}

#[test]
fn a_worker_that_will_not_leave_is_killed_after_its_deadlines() {
    let pool = Pool::test_worker("app", 1)
        .text("drain_timeout", "500ms")
        .text("kill_timeout", "500ms");
    let prefork = Prefork::launch(&[pool]);
    prefork.order_boot("app", "stubborn");
    prefork.wait_until_ready();
    // The first boot may have come before the order.
    let first = prefork.ready_pid("app", 0);
    processes::send(first, Signal::SIGKILL);
    let old = prefork.replaced("app", 0, first);
    prefork.done(&["drain", "app/0"]);
    let exit = prefork.certificate("app", 0, old);
    assert_eq!(exit.reason, ExitReason::DrainTimeout);
    assert_eq!(exit.signal, Some(9));
}

#[test]
fn kill_is_immediate_and_its_successor_is_ready_when_it_returns() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let old = prefork.ready_pid("web", 0);
    prefork.done(&["kill", "web/0"]);
    assert!(!processes::alive(old));
    let worker = prefork.worker("web", 0);
    assert_eq!(worker.state, SlotState::Ready);
    assert_ne!(worker.pid, Some(old));
    assert_eq!(exits(&prefork, "operator"), 1.0);
}

#[test]
fn stop_drains_and_breaks_no_request() {
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGINT)] {
        let mut prefork = Prefork::start(&[Pool::test_worker("app", 2)]);
        let mut slow = Connection::open(prefork.address("app")).expect("it listens");
        slow.send("GET", "/slow/1000", "").expect("it is sent");
        eventually("the request is in flight", PATIENCE, || {
            prefork
                .pool("app")
                .workers
                .iter()
                .any(|worker| worker.in_flight == 1)
        });
        match signal {
            Some(signal) => prefork.signal(signal),
            None => drop(prefork.done(&["stop"])),
        }
        let answer = slow.receive().expect("it is answered");
        assert_eq!(answer.status, 200);
        assert_eq!(prefork.exit_code(), 0, "{signal:?}");
        assert_eq!(prefork.processes(), Vec::<i32>::new());
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut prefork = Prefork::start(&[Pool::test_worker("app", 2).text("drain_timeout", "10m")]);
    let mut slow = Connection::open(prefork.address("app")).expect("it listens");
    slow.send("GET", "/slow/600000", "").expect("it is sent");
    eventually("the request is in flight", PATIENCE, || {
        prefork
            .pool("app")
            .workers
            .iter()
            .any(|worker| worker.in_flight == 1)
    });
    prefork.signal(Signal::SIGTERM);
    eventually("it is stopping", PATIENCE, || prefork.status().stopping);
    // One that comes at once is the same order.
    eventually("one more ends it", PATIENCE, || {
        prefork.has_ended() || {
            prefork.signal(Signal::SIGTERM);
            false
        }
    });
    slow.receive().expect_err("it was cut");
    assert_eq!(prefork.processes(), Vec::<i32>::new());
}

#[test]
fn stop_now_waits_for_nothing() {
    let mut prefork = Prefork::start(&[Pool::test_worker("app", 2).text("drain_timeout", "10m")]);
    let mut slow = Connection::open(prefork.address("app")).expect("it listens");
    slow.send("GET", "/slow/600000", "").expect("it is sent");
    eventually("the request is in flight", PATIENCE, || {
        prefork
            .pool("app")
            .workers
            .iter()
            .any(|worker| worker.in_flight == 1)
    });
    prefork.done(&["stop", "--now"]);
    prefork.ended();
    slow.receive().expect_err("it was cut");
    assert_eq!(prefork.processes(), Vec::<i32>::new());
}

#[test]
fn a_worker_is_recycled_after_its_number_of_requests_and_no_request_breaks() {
    let pool = Pool::bundled("web", 2)
        .set("max_requests", 50)
        .text("max_requests_jitter", "10%");
    let prefork = Prefork::start(&[pool]);
    let load = Load::start(prefork.address("web"), 3);
    eventually("three are recycled", Duration::from_secs(60), || {
        exits(&prefork, "max_requests") >= 3.0
    });
    load.stop_flawless();
    let other = ["crash", "signal", "drain_timeout"].map(|reason| exits(&prefork, reason));
    assert_eq!(other, [0.0; 3]);
}

#[test]
fn a_worker_is_recycled_when_it_has_grown_too_large() {
    let pool = Pool::test_worker("app", 1).text("max_rss", "64MiB");
    let prefork = Prefork::start(&[pool]);
    let old = prefork.ready_pid("app", 0);
    prefork.order("app", 0, format!("grow {}", 128 << 20));
    prefork.replaced("app", 0, old);
    eventually("the old one has left", PATIENCE, || {
        exits(&prefork, "max_rss") == 1.0
    });
    let last = prefork.worker("app", 0).last_exit.expect("it has gone");
    assert_eq!(last.pid, old);
    assert!(last.peak_memory_bytes > 128 << 20, "{last:?}");
}

#[test]
fn a_worker_is_recycled_at_its_age() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1).text("max_age", "1s")]);
    let load = Load::start(prefork.address("web"), 2);
    eventually("two have been too old", PATIENCE, || {
        exits(&prefork, "max_age") >= 2.0
    });
    load.stop_flawless();
}

#[test]
fn two_supervisors_cannot_share_a_runtime_directory() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let config = prefork.dir().join("prefork.toml");
    let config = config.to_str().expect("the path is text");
    let second = prefork.cli(&["run", "--config", config]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(
        second.stderr.contains(&prefork.pid().to_string()),
        "says who: {second:?}"
    );
    prefork.done(&["status"]);
    prefork.done(&["stop"]);
    assert_eq!(prefork.exit_code(), 0);
}

#[test]
fn a_runtime_directory_can_be_used_again_after_everything_was_killed() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let worker = prefork.ready_pid("web", 0);
    prefork.signal(Signal::SIGKILL);
    processes::send(worker, Signal::SIGKILL);
    prefork.ended();
    eventually("nothing of it is left", PATIENCE, || {
        prefork.processes().is_empty()
    });
    prefork.start_again();
    prefork.wait_until_ready();
    assert_eq!(
        http::get(prefork.address("web"), "/")
            .expect("it serves")
            .status,
        200
    );
}

#[test]
fn what_a_worker_writes_is_in_the_log_with_its_pool_slot_and_pid() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 2)]);
    let pid = prefork.ready_pid("app", 1);
    prefork.order("app", 1, "print good morning");
    let line = prefork.logged(&["good morning"]);
    assert!(line.contains("app/1"), "{line}");
    assert!(line.contains(&pid.to_string()), "{line}");
}

#[test]
fn the_log_level_can_be_changed_while_it_runs() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    prefork.done(&["log-level", "error"]);
    prefork.logged(&["audit: log-level error"]);
    let quiet = prefork.log().len();
    let old = prefork.ready_pid("web", 0);
    prefork.done(&["restart", "web/0"]);
    assert_ne!(prefork.ready_pid("web", 0), old);
    assert_eq!(prefork.log().len(), quiet, "{}", &prefork.log()[quiet..]);
    assert_eq!(prefork.cli(&["log-level", "shouting"]).code, 2);
}

#[test]
fn strangers_are_reaped() {
    // As a subreaper the supervisor inherits what workers leave behind.
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let old = prefork.ready_pid("web", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("web", 0, old);
    let children = format!("/proc/{0}/task/{0}/children", prefork.pid());
    // The reader of outputs is its child as well.
    let is_reader = |pid: &&str| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words
            .split(|byte| *byte == 0)
            .any(|word| word == b"read-output")
    };
    eventually("its worker is its one child", PATIENCE, || {
        let children = std::fs::read_to_string(&children).unwrap_or_default();
        let children = children.split_ascii_whitespace();
        children.filter(|pid| !is_reader(pid)).count() == 1
    });
}

#[test]
fn the_log_file_is_opened_again_after_rotation() {
    let logs = crate::harness::directory();
    let file = logs.path().join("prefork.log");
    let log = format!("log = {file:?}");
    let prefork = Prefork::launch_with(&log, &[Pool::bundled("web", 1)]);
    prefork.wait_until_ready();
    let rotations: [(&str, &dyn Fn()); 2] = [
        ("by command", &|| drop(prefork.done(&["reopen-logs"]))),
        ("by signal", &|| prefork.signal(Signal::SIGUSR1)),
    ];
    for (how, reopen) in rotations {
        let rotated = logs.path().join(how);
        std::fs::rename(&file, &rotated).expect("the log is there");
        reopen();
        eventually(how, PATIENCE, || file.exists());
        prefork.done(&["restart", "web"]);
        let text = |path| std::fs::read_to_string(path).expect("the log is there");
        eventually("it is written to", PATIENCE, || {
            text(&file).contains("ready")
        });
        assert!(text(&rotated).contains("ready"), "{how}");
    }
}

#[test]
fn workers_run_as_the_user_that_the_pool_names() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can start workers as another user");
        return;
    }
    let prefork = Prefork::start(&[Pool::bundled("web", 1).text("user", "nobody")]);
    let pid = prefork.ready_pid("web", 0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let ids = |name| {
        let line = status.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {status}"));
        line.split_ascii_whitespace()
            .skip(1)
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(ids("Uid:"), BTreeSet::from(["65534"]));
    assert!(!ids("Gid:").contains("0"), "{status}");
    assert!(!ids("Groups:").contains("0"), "{status}");
    assert_eq!(pid_on_page(prefork.address("web")), pid);
}

#[test]
fn workers_inherit_the_environment_and_what_the_pool_adds() {
    let worker = crate::harness::cli::example("test_worker");
    let script = "echo \"greeting=$GREETING path=$PATH.\" >&2; exec \"$0\"";
    let program = ["/bin/sh", "-c", script, worker.to_str().expect("text")];
    let pool = Pool::command("app", &program, 1).set("env", "{ GREETING = \"good day\" }");
    let prefork = Prefork::start(&[pool]);
    let line = prefork.logged(&["greeting=good day", "stderr"]);
    assert!(!line.contains("path=."), "PATH is not inherited: {line}");
}

#[test]
fn a_pool_is_scaled_by_what_is_to_be_added_or_taken_away() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    for (by, workers) in [("+2", 4), ("-1", 3), ("2", 2), ("+0", 2)] {
        let told = prefork.done(&["scale", "web", by]);
        assert!(
            told.contains(&format!("web has {workers} workers")),
            "{by}: {told}"
        );
        assert_eq!(prefork.pool("web").desired, workers, "{by}");
    }
    let refused = prefork.cli(&["scale", "web", "-2"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("at least 1"), "{refused:?}");
    assert_eq!(prefork.cli(&["scale", "web", "+"]).code, 2);
    assert_eq!(prefork.pool("web").desired, 2);
}

#[test]
fn what_a_pool_was_scaled_to_outlives_a_reload_an_upgrade_and_the_supervisor() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let load = Load::start(prefork.address("web"), 2);
    prefork.done(&["scale", "web", "3"]);
    let is_kept = |prefork: &Prefork| {
        let pool = prefork.pool("web");
        assert_eq!(
            (pool.ready, pool.desired, pool.configured),
            (3, 3, Some(2)),
            "{pool:?}"
        );
        let status = prefork.done(&["status"]);
        assert!(status.contains("3/3 (file: 2)"), "{status}");
    };
    is_kept(&prefork);
    let told = prefork.cli(&["reload"]);
    let keeps = "web keeps the 3 that it was scaled to (configured: 2)";
    assert!(told.stderr.contains(keeps), "{told:?}");
    is_kept(&prefork);
    prefork.done(&["upgrade"]);
    is_kept(&prefork);
    prefork.killed();
    prefork.ready_again();
    is_kept(&prefork);
    prefork.done(&["scale", "web", "--file"]);
    assert_eq!(prefork.pool("web").desired, 2);
    prefork.done(&["scale", "web", "1"]);
    prefork.configure(&[Pool::bundled("web", 4)]);
    let planned = prefork.done(&["reload", "--dry-run"]);
    let change = "1 worker would stay, 3 workers would be started";
    assert!(planned.contains(change), "{planned}");
    prefork.done(&["reload"]);
    let pool = prefork.pool("web");
    assert_eq!((pool.desired, pool.configured), (4, Some(4)));
    load.stop_flawless();
}
