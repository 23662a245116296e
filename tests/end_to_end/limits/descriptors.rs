//! A worker holds what is its own and nothing of the supervisor's; the
//! supervisor holds no more after many deaths than before.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_api::SlotState;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::processes::{self, Descriptor};
use crate::harness::{Pool, Prefork};

/// Which socket a `socket:[INODE]` is: a listening TCP socket, or a unix one.
fn listening_inodes() -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc is mounted");
    table
        .lines()
        .skip(1)
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|columns| columns[3] == "0A")
        .map(|columns| format!("socket:[{}]", columns[9]))
        .collect()
}

/// What a fresh worker of the bundled web server may hold.
#[track_caller]
fn holds_only_its_own(prefork: &Prefork, pid: i32) {
    let held = processes::descriptors(pid);
    let supervisors: BTreeSet<String> = processes::descriptors(prefork.pid())
        .into_iter()
        .map(|descriptor| descriptor.target)
        .collect();
    let listening = listening_inodes();
    let standard: Vec<u32> = held.iter().take(3).map(|fd| fd.number).collect();
    assert_eq!(standard, [0, 1, 2], "{held:#?}");
    assert_eq!(held[0].target, "/dev/null", "{held:#?}");

    let beyond: Vec<&Descriptor> = held.iter().filter(|fd| fd.number > 2).collect();
    let sockets = beyond.iter().filter(|fd| fd.target.starts_with("socket:"));
    let (listeners, channels): (Vec<&&Descriptor>, Vec<&&Descriptor>) =
        sockets.partition(|fd| listening.contains(&fd.target));
    assert_eq!(listeners.len(), 1, "one listener: {held:#?}");
    assert!(supervisors.contains(&listeners[0].target), "{held:#?}");
    // tokio keeps a socketpair of its own for signals: one inode per end.
    let foreign: Vec<_> = channels
        .iter()
        .filter(|fd| supervisors.contains(&fd.target))
        .collect();
    // The way on for its connections, once it is ready.
    assert!(foreign.len() <= 1, "of the supervisor: {foreign:#?}");
    let kernels_word_on_its_epoll = format!("/proc/{pid}/fdinfo/");
    // The reading ends of what it prints to.
    let pipes = beyond.iter().filter(|fd| fd.target.starts_with("pipe:"));
    let pipes: Vec<&str> = pipes.map(|fd| fd.target.as_str()).collect();
    assert_eq!(pipes.len(), 2, "{held:#?}");
    for output in &held[1..=2] {
        assert!(pipes.contains(&output.target.as_str()), "{held:#?}");
    }
    for fd in &beyond {
        let own = [
            kernels_word_on_its_epoll.as_str(),
            "socket:",
            "pipe:",
            "anon_inode:[eventpoll]",
            "anon_inode:[eventfd]",
            "anon_inode:[timerfd]",
            "/memfd:prefork-scoreboard",
            "/memfd:prefork-requests",
        ];
        assert!(
            own.iter().any(|kind| fd.target.starts_with(kind)),
            "unexpected {fd:?} in {held:#?}"
        );
    }
    assert!(beyond.len() <= 19, "{held:#?}");
}

#[test]
fn a_worker_holds_nothing_of_the_supervisors_also_after_50_restarts() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2), Pool::bundled("other", 1)]);
    holds_only_its_own(&prefork, prefork.ready_pid("web", 0));
    holds_only_its_own(&prefork, prefork.ready_pid("web", 1));
    let count = |pid| {
        prefork.has_its_passage(pid);
        processes::descriptors(pid).len()
    };
    let first = count(prefork.ready_pid("web", 0));

    for _ in 0..50 {
        let old = prefork.ready_pid("web", 0);
        processes::send(old, Signal::SIGKILL);
        prefork.replaced("web", 0, old);
    }
    let last = prefork.ready_pid("web", 0);
    holds_only_its_own(&prefork, last);
    assert_eq!(count(last), first);
}

#[test]
fn a_program_is_born_with_its_standard_descriptors_and_its_channel() {
    // The shell shows what it was born with before it becomes the worker.
    let worker = crate::harness::cli::example("test_worker");
    let script =
        "exec >&2; ls -l /proc/$$/fd; echo \"channel is $PREFORK_CHANNEL_FD.\"; exec \"$0\"";
    let worker = worker.to_str().expect("the path is text");
    let program = ["/bin/sh", "-c", script, worker];
    let prefork = Prefork::start(&[Pool::command("app", &program, 1)]);
    let line = prefork.logged(&["channel is ", "stderr"]);
    let (_, rest) = line.split_once("channel is ").expect("it was found");
    let (channel, _) = rest.split_once('.').expect("a dot follows");
    let log = prefork.log();
    let numbers: BTreeSet<&str> = log
        .lines()
        .filter_map(|line| line.split_once(" -> ")?.0.rsplit(' ').next())
        .collect();
    assert_eq!(numbers, BTreeSet::from(["0", "1", "2", channel]), "{log}");
}

#[test]
fn the_supervisor_holds_no_more_descriptors_after_500_crashes() {
    let workers = 10;
    let pool = Pool::test_worker("app", workers)
        .text("backoff_initial", "10ms")
        .text("backoff_max", "10ms");
    let prefork = Prefork::start(&[pool]);
    // The reader of outputs is there from the first one that there was something to
    // read from.
    let first = prefork.ready_pid("app", 0);
    processes::send(first, Signal::SIGKILL);
    prefork.replaced("app", 0, first);
    let held = || processes::descriptors(prefork.pid()).len();
    let before = held();
    let resident = processes::resident_bytes(prefork.pid());

    let mut killed = BTreeSet::new();
    let crashes = || prefork.metric("prefork_worker_exits_total", &[("reason", "signal")]);
    eventually("500 workers die", Duration::from_secs(120), || {
        for worker in prefork.pool("app").workers {
            if let Some(pid) = worker.pid
                && worker.state == SlotState::Ready
                && killed.insert(pid)
            {
                processes::send(pid, Signal::SIGKILL);
            }
        }
        killed.len() >= 500
    });
    prefork.done(&["wait", "--for", "ready"]);
    eventually("all are accounted for", Duration::from_secs(10), || {
        crashes() >= 500.0
    });
    eventually("the descriptors are flat", Duration::from_secs(10), || {
        held() <= before
    });
    let grown = processes::resident_bytes(prefork.pid()).saturating_sub(resident);
    assert!(grown < 8 << 20, "the supervisor grew by {grown} bytes");
    // A scrape has connections of its own, and others may be about to close.
    eventually("it says so itself", PATIENCE, || {
        prefork.metric("process_open_fds", &[]) <= (before + 4) as f64
    });
}
