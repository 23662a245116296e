//! Another program in the supervisor's place: nothing that is served notices,
//! and a program that can't go on changes nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;

use crate::harness::cli::{Output, binary};
use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::exposition::Exposition;
use crate::harness::http;
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork};

/// What each descriptor of a process is, without those of its connections.
fn descriptors(pid: i32) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
    let mut targets: Vec<String> = open
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    targets.sort();
    targets
}

/// Panics where a counter of `before` is smaller or gone in `after`.
#[track_caller]
fn assert_monotonic(before: &Exposition, after: &Exposition) {
    let counters = before.samples().iter().filter(|sample| {
        sample.name.ends_with("_total")
            || sample.name.ends_with("_count")
            || sample.name.ends_with("_bucket")
    });
    let mut compared = 0;
    for sample in counters {
        let labels: Vec<(&str, &str)> = sample
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let now = after.sum(&sample.name, &labels);
        assert!(now >= sample.value, "{sample:?} fell to {now}");
        compared += 1;
    }
    assert!(compared > 50, "compared only {compared} counters");
}

/// A script in the test's directory.
fn script(prefork: &Prefork, name: &str, text: &str) -> PathBuf {
    let path = prefork.dir().join(name);
    fs::write(&path, text).expect("the directory is writable");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("the file is ours");
    path
}

fn upgrade_to(prefork: &Prefork, program: &Path) -> Output {
    let program = program.to_str().expect("the path is text");
    prefork.cli(&["upgrade", "--program", program])
}

#[test]
fn twenty_upgrades_under_load_break_no_request_and_keep_every_process_and_counter() {
    let prefork = Prefork::start(&[Pool::service("web", 3), Pool::bundled("idle", 1)]);
    let (pid, workers) = (prefork.pid(), prefork.ready_pids("web"));
    let idle = prefork.ready_pid("idle", 0);
    prefork.has_its_passage(idle);
    let held = descriptors(idle);
    let admin = prefork.admin();
    let load = Load::start(prefork.address("web"), 32);
    load.serves(100);
    prefork.done(&["upgrade"]);
    let open = descriptors(pid).len();
    let uptime = prefork.status().uptime_seconds;
    let mut before = prefork.scrape();
    for round in 2..=20 {
        prefork.done(&["upgrade"]);
        load.serves(50);
        let status = prefork.status();
        assert_eq!((status.pid, status.upgrades), (pid, round));
        assert_eq!(prefork.admin(), admin);
        let after = prefork.scrape();
        assert_monotonic(&before, &after);
        before = after;
    }
    assert_eq!(load.failed(), 0);
    load.stop_flawless();
    assert_eq!(prefork.ready_pids("web"), workers);
    assert_eq!(prefork.ready_pid("idle", 0), idle);
    assert_eq!(descriptors(idle), held);
    assert!(prefork.status().uptime_seconds > uptime);
    assert_eq!(before.sum("prefork_upgrades_total", &[]), 20.0);
    assert_eq!(before.sum("prefork_worker_starts_total", &[]), 4.0);
    eventually("no more descriptors are open than before", PATIENCE, || {
        descriptors(pid).len() <= open
    });
}

#[test]
fn the_fleet_is_managed_after_an_upgrade_as_before() {
    let prefork = Prefork::start(&[Pool::service("web", 2)]);
    let killed = prefork.ready_pid("web", 0);
    crate::harness::processes::send(killed, Signal::SIGKILL);
    let second = prefork.replaced("web", 0, killed);
    let seen = prefork.done(&["events"]).lines().count();
    prefork.done(&["log-level", "debug"]);
    prefork.done(&["upgrade"]);

    let slot = prefork.describe("web", 0);
    let text = format!("{slot:?}");
    assert!(text.contains(&killed.to_string()), "no certificate: {text}");
    assert!(prefork.done(&["events"]).lines().count() > seen);
    crate::harness::processes::send(second, Signal::SIGKILL);
    prefork.replaced("web", 0, second);
    // It is our child still: how it ended is known.
    assert_eq!(
        prefork
            .worker("web", 0)
            .last_exit
            .and_then(|exit| exit.signal),
        Some(9)
    );
    prefork.done(&["scale", "web", "3"]);
    prefork.done(&["reload", "--force"]);
    assert_eq!(prefork.pool("web").ready, 3);
    prefork.done(&["stop"]);
}

#[test]
fn a_program_that_cannot_go_on_is_refused_and_the_next_good_one_is_not() {
    let prefork = Prefork::start(&[Pool::service("web", 2)]);
    let workers = prefork.ready_pids("web");
    let load = Load::start(prefork.address("web"), 4);
    let binary = binary();
    let text = script(&prefork, "text", "to be, or not to be\n");
    let plain = prefork.dir().join("plain");
    fs::write(&plain, "no program").expect("the directory is writable");
    let hangs = script(&prefork, "hangs", "#!/bin/sh\nsleep 600\n");
    let talks = script(&prefork, "talks", "#!/bin/sh\necho hello\n");
    let future = format!(
        "#!/bin/sh\nsed 's/\"version\":1,/\"version\":99,/' | {} preflight\n",
        binary.display()
    );
    let future = script(&prefork, "future", &future);
    let closed = format!(
        "#!/bin/sh\nsed 's/\"lock\":[0-9]*/\"lock\":9999/' | {} preflight\n",
        binary.display()
    );
    let closed = script(&prefork, "closed", &closed);
    // It passes its preflight, and is gone when it is to be run.
    let gone = script(&prefork, "gone", "#!/bin/sh\nrm \"$0\"\necho ok 9\n");
    let cases = [
        (PathBuf::from("/bin/false"), "exit code 1"),
        (prefork.dir().join("nothing"), "No such file"),
        (text, "Exec format error"),
        (plain, "Permission denied"),
        (hangs, "did not end within 5 s"),
        (talks, "is no prefork"),
        (gone, "it cannot be run: No such file"),
        (future, "of version 99, and this program knows version 1"),
        (closed, "descriptor 9999 should be a file"),
    ];
    for (program, why) in &cases {
        let output = upgrade_to(&prefork, program);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains(why), "{why}: {output:?}");
        load.serves(10);
    }
    assert_eq!(prefork.status().upgrades, 0);
    let failures = prefork.metric("prefork_upgrade_failures_total", &[]);
    assert_eq!(failures, cases.len() as f64);
    let output = upgrade_to(&prefork, &binary);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(prefork.status().upgrades, 1);
    assert_eq!(prefork.ready_pids("web"), workers);
    load.stop_flawless();
}

#[test]
fn an_upgrade_during_a_job_is_refused_and_the_job_goes_on() {
    let prefork = Prefork::start(&[Pool::test_worker("web", 1)]);
    prefork.order_boot("web", "slow 2000");
    std::thread::scope(|scope| {
        let restart = scope.spawn(|| prefork.cli(&["restart", "web"]));
        prefork.logged(&["audit", "restart"]);
        let output = prefork.cli(&["upgrade"]);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(
            output.stderr.contains("restart is in progress"),
            "{output:?}"
        );
        let restart = restart.join().expect("no panic");
        assert_eq!(restart.code, 0, "{restart:?}");
    });
    prefork.clear_boot("web");
    prefork.done(&["upgrade"]);
}

#[test]
fn a_worker_that_is_starting_comes_up_under_the_next_program() {
    let prefork = Prefork::start(&[Pool::test_worker("web", 1)]);
    let old = prefork.ready_pid("web", 0);
    prefork.order_boot("web", "slow 1000");
    crate::harness::processes::send(old, Signal::SIGKILL);
    let started = "prefork_worker_starts_total";
    eventually("the next one is started", PATIENCE, || {
        prefork.metric(started, &[]) == 2.0
    });
    prefork.done(&["upgrade"]);
    prefork.replaced("web", 0, old);
    assert_eq!(prefork.metric(started, &[]), 2.0);
}

#[test]
fn sigusr2_upgrades_and_whoever_comes_meanwhile_is_answered() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = 0;
                    while !ended.load(Ordering::Relaxed) {
                        let answer = http::get_unix(&prefork.control_socket(), "/v1/livez");
                        let answer = answer.expect("nobody is turned away");
                        assert_eq!(answer.status, 200, "{answer:?}");
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        for round in 1..=5 {
            prefork.signal(Signal::SIGUSR2);
            eventually("the next program answers", PATIENCE, || {
                prefork.status().upgrades == round
            });
        }
        ended.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().expect("no panic") > 10);
        }
    });
}
