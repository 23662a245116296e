//! A worker that holds its pipe's lock: its write waits for memory that does not come,
//! and whoever touches the pipe waits with it.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::cli::binary;
use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, processes};

/// Two workers, of which the first holds its stderr when the supervisor comes to look at
/// it. `None` where the kernel has no such memory for it.
fn held() -> Option<Prefork> {
    let prefork = Prefork::start(&[Pool::test_worker("app", 2)]);
    let worker = prefork.ready_pid("app", 0);
    prefork.signal(Signal::SIGSTOP);
    prefork.order("app", 0, "hold let go");
    eventually("a write waits for its memory", PATIENCE, || {
        waits_for_memory(worker) || !processes::alive(worker)
    });
    let holds = waits_for_memory(worker);
    prefork.signal(Signal::SIGCONT);
    if !holds {
        eprintln!("SKIPPED: the kernel gives a worker no userfaultfd for its own faults");
    }
    holds.then_some(prefork)
}

/// Whether a thread of a process waits for a fault to be answered.
fn waits_for_memory(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    threads.flatten().any(|thread| {
        let place = fs::read_to_string(thread.path().join("wchan"));
        place.is_ok_and(|place| place.contains("userfault"))
    })
}

/// Answers, logs of the others, and says which pipe is held.
#[track_caller]
fn goes_on(prefork: &Prefork) {
    let status = prefork.cli(&["--timeout", "10s", "status"]);
    assert_eq!(status.code, 0, "{status:?}");
    prefork.order("app", 1, "print something else");
    prefork.logged(&["app/1", "something else"]);
    prefork.logged(&[
        "app/0",
        "stderr",
        "is held by a write whose memory does not come",
    ]);
}

#[test]
fn a_pipe_that_its_worker_holds_keeps_nobody_waiting_and_its_lines_come_later() {
    let Some(prefork) = held() else { return };
    goes_on(&prefork);
    let held = "prefork_supervisor_output_held_total";
    assert_eq!(prefork.metric(held, &[]), 1.0);
    assert_eq!(
        prefork.metric("prefork_supervisor_output_readers", &[]),
        2.0
    );
    prefork.order("app", 0, "let-go");
    prefork.logged(&["app/0", "about to hold it"]);
    prefork.logged(&["app/0", "let go"]);
    eventually("one reader is enough again", PATIENCE, || {
        prefork.metric("prefork_supervisor_output_readers", &[]) == 1.0
    });
    let said = prefork.log().matches("is held by a write").count();
    assert_eq!((said, prefork.metric(held, &[])), (1, 1.0));
}

#[test]
fn a_supervisor_whose_worker_holds_its_pipe_can_be_stopped() {
    let Some(mut prefork) = held() else { return };
    goes_on(&prefork);
    prefork.signal(Signal::SIGTERM);
    assert_eq!(prefork.exit_code(), 0);
}

#[test]
fn the_lines_of_a_pipe_that_was_held_are_logged_by_the_program_that_came_meanwhile() {
    let Some(prefork) = held() else { return };
    goes_on(&prefork);
    let program = binary();
    prefork.done(&[
        "upgrade",
        "--program",
        program.to_str().expect("the path is text"),
    ]);
    assert!(!prefork.log().contains("let go"));
    goes_on(&prefork);
    prefork.order("app", 0, "let-go");
    prefork.logged(&["app/0", "let go"]);
    let log = prefork.log();
    assert_eq!(log.matches("about to hold it").count(), 1, "{log}");
}

#[test]
fn a_worker_that_dies_holding_its_pipe_leaves_what_it_had_written() {
    let Some(prefork) = held() else { return };
    goes_on(&prefork);
    let worker = prefork.ready_pid("app", 0);
    processes::send(worker, Signal::SIGKILL);
    prefork.replaced("app", 0, worker);
    let exit = prefork.certificate("app", 0, worker);
    assert!(exit.stderr.contains("about to hold it"), "{exit:?}");
    prefork.logged(&["app/0", "about to hold it"]);
}
