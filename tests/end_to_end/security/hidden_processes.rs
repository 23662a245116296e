//! `/proc` hides processes from who may not trace them, as where a unit says
//! `ProtectProc=invisible`.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Pool, Prefork, http, processes};
use crate::worker_life::process_trees;

/// Runs the supervisor so, as a user without rights.
const HIDDEN: &str = "exec unshare --mount sh -c '\
     mount -t proc -o hidepid=invisible proc /proc && chown -R 54330 . && \
     exec setpriv --reuid=54330 --regid=54330 --clear-groups \"$@\"' sh \"$@\"";

#[test]
fn workers_are_born_known_taken_over_and_ended_where_processes_are_hidden() {
    let mount = "mount -t proc -o hidepid=invisible proc /proc && setpriv --version";
    let may = Command::new("unshare")
        .args(["--mount", "sh", "-c", mount])
        .output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no /proc can be mounted that hides processes");
        return;
    }
    let pools = [Pool::test_worker("app", 1), Pool::bundled("web", 2)];
    let mut prefork = Prefork::launch_by_script(HIDDEN, "", &pools);
    prefork.wait_until_ready();
    // What is left of it is found by what tells the process from all others.
    let started = process_trees::WAYS.map(|way| process_trees::start(&prefork, way));
    let old = prefork.ready_pid("app", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("app", 0, old);
    process_trees::gone(&started);
    prefork.done(&["restart", "web"]);
    prefork.done(&["reload", "--force"]);
    let workers = prefork.ready_pids("web");
    prefork.killed();
    prefork.start_again_by_script(HIDDEN);
    prefork.wait_until_ready();
    assert_eq!(prefork.ready_pids("web"), workers, "they are taken over");
    let answer = http::get(prefork.address("web"), "/").expect("it serves");
    assert_eq!(answer.status, 200);
    let memory = prefork.metric("prefork_worker_resident_memory_bytes", &[("pool", "web")]);
    assert!(memory > 0.0, "{memory}");
}
