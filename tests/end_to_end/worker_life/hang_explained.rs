//! Of a worker that hangs it is known where it was.

use std::fs;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid};
use prefork_api::{Exit, ExitReason, ThreadDump};

use crate::harness::http::Connection;
use crate::harness::{Pool, Prefork, cli, processes};

/// The certificate of a pool's only worker, which hangs for want of what `hang` does to it.
#[track_caller]
fn hung(prefork: &Prefork, pool: &str, hang: impl FnOnce(i32)) -> (Exit, ThreadDump) {
    let pid = prefork.ready_pid(pool, 0);
    hang(pid);
    let mut exit = prefork.certificate(pool, 0, pid);
    assert_eq!(exit.reason, ExitReason::HeartbeatTimeout, "{exit:?}");
    let dump = exit.thread_dump.take();
    let dump = dump.unwrap_or_else(|| panic!("it was not looked at: {exit:?}"));
    (exit, *dump)
}

fn impatient(pool: Pool) -> Pool {
    pool.text("heartbeat_timeout", "1s")
}

#[test]
fn a_certificate_names_the_function_and_the_system_call_that_a_worker_hung_in() {
    let pools = [
        impatient(Pool::service("asleep", 1)),
        impatient(Pool::service("busy", 1)),
    ];
    let prefork = Prefork::start(&pools);
    let ways = [
        ("asleep", "/block/600000", "block_the_thread"),
        ("busy", "/spin/600000", "spin_in_a_loop"),
    ];
    for (pool, path, function) in ways {
        let mut client = Connection::open(prefork.address(pool)).expect("it listens");
        let (_, dump) = hung(&prefork, pool, |_| {
            client.send("GET", path, "").expect("it is taken");
        });
        let first = &dump.threads[0];
        let frame = first.frames.iter().find(|frame| {
            let name = frame.function.as_deref().unwrap_or_default();
            name.ends_with(function)
        });
        let frame = frame.unwrap_or_else(|| panic!("{function} is not in {dump:#?}"));
        let source = frame.source.as_deref().unwrap_or_default();
        assert!(source.contains("service.rs:"), "{frame:?}");
        prefork.logged(&[pool, "heartbeat_timeout", function]);
        let words = prefork.done(&["describe", &format!("{pool}/0")]);
        assert!(words.contains(function), "{words}");
    }
    let exits = prefork.describe("asleep", 0).exits;
    let dump = exits[0].thread_dump.as_ref().expect("it was looked at");
    assert_eq!(dump.threads[0].syscall.as_deref(), Some("clock_nanosleep"));
    assert!(dump.threads[0].wchan.is_some(), "{dump:?}");
    // What a program is made of is not told to everybody.
    let status = prefork.status();
    let last = status.pools[0].workers[0].last_exit.as_ref();
    assert_eq!(last.map(|exit| &exit.thread_dump), Some(&None));
}

#[test]
fn the_bundled_server_and_a_program_without_the_channel_are_looked_at() {
    let program = cli::example("plain_http");
    let program = program.to_str().expect("the path is text");
    let behind = Pool::command("app", &[program, "--uds", "{socket}"], 1)
        .set("adapter", "{}")
        .without_listeners()
        .text("min_ready", "50ms");
    let bundled = impatient(Pool::bundled("files", 1));
    let prefork = Prefork::start(&[bundled, impatient(behind)]);
    let (_, dump) = hung(&prefork, "files", |pid| {
        processes::send(pid, Signal::SIGSTOP);
    });
    let first = &dump.threads[0];
    assert_eq!(first.state, "T", "{dump:?}");
    let is_named = |name: &str| name.contains("prefork_web::main");
    assert!(
        first
            .frames
            .iter()
            .filter_map(|it| it.function.as_deref())
            .any(is_named),
        "{dump:#?}"
    );

    let (_, dump) = hung(&prefork, "app", |pid| {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let program = children.expect("the adapter lives");
        let program = program.trim().parse().expect("it has one child");
        processes::send(program, Signal::SIGSTOP);
    });
    let program = dump
        .threads
        .iter()
        .find(|thread| thread.name == "plain_http");
    let program = program.unwrap_or_else(|| panic!("its program is not in {dump:#?}"));
    assert_eq!(program.state, "T", "{dump:#?}");
    assert_eq!(!program.frames.is_empty(), may_trace(), "{dump:#?}");
}

/// Whether what is no descendant may be traced, and has not said who may (Yama, in the
/// kernel's documentation).
fn may_trace() -> bool {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    Uid::effective().is_root() || scope.is_ok_and(|scope| scope.trim() == "0")
}

#[test]
fn what_may_not_be_traced_says_so_and_is_replaced_all_the_same() {
    let prefork = Prefork::start(&[impatient(Pool::service("web", 1))]);
    let (exit, dump) = hung(&prefork, "web", |pid| {
        // Nobody else may then; it stands still in the next system call that fails it.
        let pid = Pid::from_raw(pid);
        ptrace::seize(pid, ptrace::Options::empty()).expect("it is our descendant");
        ptrace::interrupt(pid).expect("it is traced");
    });
    assert_eq!(dump.threads[0].frames, [], "{dump:?}");
    let lacks = dump.lacks.join("\n");
    assert!(lacks.contains("tracing it is not permitted"), "{lacks}");
    prefork.replaced("web", 0, exit.pid);
}
