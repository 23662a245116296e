//! A worker that gets no processor is not one that hangs.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, processes};

/// After how long without a word a worker is found to hang.
const TIMEOUT: Duration = Duration::from_secs(2);

const STARVED: &str = "prefork_worker_starved_seconds_total";

/// Runs one of the tools of util-linux on a process.
#[track_caller]
fn set(tool: &str, args: &[&str], pid: i32) {
    let done = Command::new(tool).args(args).arg(pid.to_string()).output();
    let done = done.unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(done.status.success(), "{tool} {args:?}: {done:?}");
}

/// Has a worker's first thread work now and then, and leaves it what nobody else wants of a
/// processor that other threads always want. They are its own: the kernel divides a
/// processor between sessions first, so that others would take nothing from it.
fn starve(prefork: &Prefork, pid: i32) {
    prefork.order("web", 0, "labour 20");
    prefork.order("web", 0, "crowd 4");
    set("taskset", &["-acp", "0"], pid);
    set("chrt", &["-ip", "0"], pid);
}

/// Lets it run as the others do.
fn feed(pid: i32) {
    set("chrt", &["-op", "0"], pid);
    set("taskset", &["-cp", "0-1023"], pid);
}

fn one_worker() -> Prefork {
    let pool = Pool::test_worker("web", 1).text("heartbeat_timeout", "2s");
    Prefork::start(&[pool])
}

fn hung(prefork: &Prefork) -> f64 {
    let hung = [("pool", "web"), ("reason", "heartbeat_timeout")];
    prefork.metric("prefork_worker_exits_total", &hung)
}

/// The successor may be there before the end of what it replaces is counted.
#[track_caller]
fn is_found(prefork: &Prefork) {
    eventually("it is counted as hung", PATIENCE, || hung(prefork) == 1.0);
}

#[test]
fn a_worker_that_gets_no_processor_is_waited_for_and_the_machine_is_blamed() {
    let prefork = one_worker();
    let pid = prefork.ready_pid("web", 0);
    assert_eq!(
        prefork.metric(STARVED, &[("pool", "web"), ("slot", "0")]),
        0.0
    );
    starve(&prefork, pid);
    // The first half of the timeout is not looked at: by then it has been silent for
    // longer than the timeout.
    let enough = TIMEOUT.as_secs_f64() * 0.75;
    eventually("it waits for a processor", PATIENCE, || {
        prefork.metric(STARVED, &[("pool", "web")]) > enough
    });
    feed(pid);
    let line = prefork.logged(&["web/0", "waited for a processor", "this machine"]);
    assert!(line.contains("WARN"), "{line}");
    let answers = prefork.done(&["--output", "json", "tell", "web/0", "who"]);
    assert!(answers.contains(&pid.to_string()), "{answers}");
    assert_eq!(prefork.ready_pid("web", 0), pid);
    assert_eq!(hung(&prefork), 0.0);
}

#[test]
fn one_that_loops_is_found_and_not_taken_for_one_that_waits() {
    let prefork = one_worker();
    let pid = prefork.ready_pid("web", 0);
    prefork.order("web", 0, "spin");
    prefork.replaced("web", 0, pid);
    is_found(&prefork);
}

#[test]
fn one_that_is_stopped_waits_for_no_processor_however_busy_the_machine_is() {
    let prefork = one_worker();
    let pid = prefork.ready_pid("web", 0);
    starve(&prefork, pid);
    processes::send(pid, Signal::SIGSTOP);
    eventually("it is stopped", PATIENCE, || processes::is_stopped(pid));
    let before = prefork.metric(STARVED, &[("pool", "web")]);
    prefork.replaced("web", 0, pid);
    is_found(&prefork);
    let exit = prefork.certificate("web", 0, pid);
    assert!(exit.detail.contains("silent for"), "{}", exit.detail);
    // Before it was stopped it may have waited.
    let after = prefork.metric(STARVED, &[("pool", "web")]);
    assert!(after - before < 0.5, "{}", exit.detail);
}
