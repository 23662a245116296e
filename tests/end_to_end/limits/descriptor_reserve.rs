//! Where descriptors run out, one slot waits and everything else goes on.

use std::process::Command;
use std::time::Duration;

use prefork_api::SlotState;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, cli, processes};

/// Leaves a running process this many descriptors to open.
#[track_caller]
fn leave_descriptors(pid: i32, free: u32) {
    let held = processes::descriptors(pid);
    let is_free = |number: &u32| !held.iter().any(|fd| fd.number == *number);
    // The limit is on the number, so gaps below it count as free.
    let limit = (0..).filter(is_free).nth(free as usize);
    limit_descriptors(pid, limit.expect("numbers don't end"));
}

/// Sets the soft limit of open descriptors of a running process.
#[track_caller]
fn limit_descriptors(pid: i32, limit: u32) {
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--pid={pid}"))
        .arg(format!("--nofile={limit}:"));
    let output = cli::finish(&mut command, Duration::from_secs(10));
    assert_eq!(output.code, 0, "{output:?}");
}

#[test]
fn without_descriptors_a_slot_backs_off_and_the_supervisor_still_answers() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let load = Load::start(prefork.address("web"), 2);
    leave_descriptors(prefork.pid(), 2);

    let scaled = prefork.cli(&["--timeout", "20s", "scale", "web", "6"]);
    assert_eq!(scaled.code, 1, "{scaled:?}");
    let said = scaled.stderr.to_lowercase();
    assert!(
        said.contains("descriptor") || said.contains("emfile"),
        "{said}"
    );
    eventually("a slot backs off", PATIENCE, || {
        let workers = prefork.pool("web").workers;
        workers
            .iter()
            .any(|worker| worker.state == SlotState::Backoff)
    });
    prefork.logged(&["web/", "descriptors"]);

    // Not once by luck, but again and again at the limit.
    for _ in 0..20 {
        prefork.done(&["--timeout", "5s", "status"]);
        prefork.scrape();
    }
    let serving = prefork.pool("web");
    assert!(serving.ready >= 2, "{serving:?}");
    load.serves(20);

    limit_descriptors(prefork.pid(), 1024);
    prefork.done(&["wait", "--for", "ready"]);
    assert_eq!(prefork.pool("web").ready, 6);
    load.stop_flawless();
}

#[test]
fn a_crash_without_descriptors_is_made_good_when_they_come_back() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    leave_descriptors(prefork.pid(), 0);
    let old = prefork.ready_pid("web", 0);
    processes::send(old, nix::sys::signal::Signal::SIGKILL);
    eventually("the slot backs off", PATIENCE, || {
        prefork.worker("web", 0).state == SlotState::Backoff
    });
    prefork.done(&["--timeout", "5s", "status"]);
    limit_descriptors(prefork.pid(), 1024);
    prefork.replaced("web", 0, old);
}
