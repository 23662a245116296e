//! What a worker has started goes with it, however it was started and however
//! the worker ends.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::harness::cli;
use crate::harness::deadline::{PATIENCE, eventually, eventually_some};
use crate::harness::{Pool, Prefork, processes};

/// Ways to start something that outlives its parent. Each writes its process id
/// to `$file`.
pub(crate) const WAYS: [(&str, &str); 5] = [
    ("child", "echo $$ > $file; exec sleep 600"),
    (
        "session",
        "exec setsid sh -c 'echo $$ > $file; exec sleep 600'",
    ),
    (
        "twice-forked",
        "(setsid sh -c 'echo $$ > $file; exec sleep 600' &)",
    ),
    (
        "deep",
        "setsid sh -c '(setsid sh -c \"echo \\$\\$ > $file; exec sleep 600\") & wait'",
    ),
    (
        // Nothing but what it prints to is left of its origin.
        "without-environment",
        "exec env -i PREFORK_TEST=$PREFORK_TEST file=$file \
         setsid sh -c 'echo $$ > $file; exec sleep 600'",
    ),
];

fn file(prefork: &Prefork, name: &str) -> PathBuf {
    prefork.dir().join(name)
}

/// Has the test worker start something; gives its process id.
#[track_caller]
pub(crate) fn start(prefork: &Prefork, (name, command): (&str, &str)) -> i32 {
    let file = file(prefork, name);
    let file = file.to_str().expect("the path is text");
    let command = format!("start export file={file}; {command}");
    prefork.order("app", 0, command);
    eventually_some("it runs", PATIENCE, || {
        fs::read_to_string(file).ok()?.trim().parse().ok()
    })
}

#[track_caller]
pub(crate) fn gone(pids: &[i32]) {
    eventually("what it had started is gone", PATIENCE, || {
        pids.iter().all(|pid| !processes::alive(*pid))
    });
}

#[test]
fn what_a_worker_has_started_goes_with_it_however_it_was_started() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1), Pool::bundled("web", 2)]);
    let started = WAYS.map(|way| start(&prefork, way));
    let old = prefork.ready_pid("app", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("app", 0, old);
    gone(&started);
    let line = prefork.logged(&["app/0", "ended", "that it left", "sleep"]);
    assert!(line.contains(&format!("pid={old}")), "{line}");
    // Nobody else was touched.
    assert_eq!(
        prefork.metric("prefork_worker_exits_total", &[("pool", "web")]),
        0.0
    );
}

#[test]
fn a_worker_that_lives_keeps_what_it_has_started() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1), Pool::bundled("web", 1)]);
    let started = WAYS.map(|way| start(&prefork, way));
    let other = prefork.ready_pid("web", 0);
    processes::send(other, Signal::SIGKILL);
    prefork.replaced("web", 0, other);
    prefork.done(&["kill", "web/0"]);
    assert!(started.into_iter().all(processes::alive));
}

#[test]
fn after_a_stop_nothing_is_left_and_the_port_is_free() {
    let mut prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    let address = prefork.address("app");
    let started = WAYS.map(|way| start(&prefork, way));
    prefork.signal(Signal::SIGTERM);
    assert_eq!(prefork.exit_code(), 0);
    assert!(!started.into_iter().any(processes::alive));
    TcpListener::bind(address).expect("nobody holds the port");
}

#[test]
fn a_pool_may_leave_what_its_workers_start() {
    let pool = Pool::test_worker("app", 1).set("kill_tree", false);
    let mut prefork = Prefork::start(&[pool]);
    let left = start(&prefork, WAYS[1]);
    let old = prefork.ready_pid("app", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("app", 0, old);
    prefork.signal(Signal::SIGTERM);
    assert_eq!(prefork.exit_code(), 0);
    assert!(processes::alive(left));
}

#[test]
fn what_a_worker_leaves_whose_supervisor_was_killed_is_ended_by_the_next() {
    let mut prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    let started = WAYS[..4].iter().map(|way| start(&prefork, *way));
    let started: Vec<i32> = started.collect();
    let worker = prefork.ready_pid("app", 0);
    prefork.killed();
    // It speaks the channel and no more, so it ends with it.
    eventually("the worker has gone", PATIENCE, || {
        !processes::alive(worker)
    });
    prefork.ready_again();
    gone(&started);
}

#[test]
fn what_an_adopted_worker_has_started_goes_with_it() {
    let service = cli::example("service");
    let service = service.to_str().expect("the path is text");
    let script = format!("(setsid sleep 600 & echo $! > sleeper); exec {service}");
    let pool = Pool::command("web", &["/bin/sh", "-c", &script], 1);
    let mut prefork = Prefork::start(&[pool]);
    let worker = prefork.ready_pid("web", 0);
    let sleeper = fs::read_to_string(file(&prefork, "sleeper")).expect("it was written");
    let sleeper: i32 = sleeper.trim().parse().expect("a process id");
    prefork.killed();
    prefork.ready_again();
    assert_eq!(prefork.ready_pid("web", 0), worker, "it was adopted");
    assert!(processes::alive(sleeper));
    processes::send(worker, Signal::SIGKILL);
    prefork.replaced("web", 0, worker);
    gone(&[sleeper]);
}
