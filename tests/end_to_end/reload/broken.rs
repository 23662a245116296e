//! A bad deploy never takes a healthy service down: whatever is wrong with the
//! new configuration or program, the old workers go on serving, the command
//! fails and says why, and the next good reload works.

use std::net::TcpListener;

use nix::sys::signal::Signal;
use nix::unistd::mkfifo;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::load::mixed::Mixed;
use crate::harness::{Mode, Pool, Prefork, cli};

/// The pool as it is when all is well.
fn good(mode: Mode) -> Pool {
    Pool::service("web", 4).mode(mode)
}

/// The pool with another program.
fn program(mode: Mode, program: &[&str]) -> Pool {
    let path = program[0];
    let path = if path == "service" {
        cli::example("service").display().to_string()
    } else {
        path.to_owned()
    };
    let words: Vec<&str> = std::iter::once(&*path)
        .chain(program[1..].iter().copied())
        .collect();
    Pool::command("web", &words, 4)
        .mode(mode)
        .text("idle_grace", "5s")
        .text("min_ready", "50ms")
}

/// How a reload has to fail.
struct Failure<'a> {
    code: i32,
    /// What stderr has to say.
    says: &'a [&'a str],
    /// Slots whose processes may be others afterwards: they had been replaced
    /// and were put back.
    put_back: &'a [usize],
}

/// Makes the configuration bad under load, reloads, makes it good again.
fn fails(mode: Mode, break_it: impl FnOnce(&Prefork), failure: &Failure<'_>) {
    let prefork = Prefork::start(&[good(mode)]);
    let load = Mixed::start(prefork.address("web"), 2);
    load.serves(10);
    let before = prefork.ready_pids("web");

    break_it(&prefork);
    let output = prefork.cli(&["reload"]);
    assert_eq!(output.code, failure.code, "{output:#?}");
    for word in failure.says {
        assert!(output.stderr.contains(word), "no {word:?} in {output:#?}");
    }
    load.serves(10);
    still_serves(&prefork, &before, failure);

    prefork.configure(&[good(mode)]);
    prefork.done(&["reload", "--force"]);
    let after = prefork.ready_pids("web");
    assert!(before.iter().all(|pid| !after.contains(pid)));
    assert!(prefork.status().last_reload.expect("just now").ok);
    load.serves(10);
    load.stop_flawless();
}

#[track_caller]
fn still_serves(prefork: &Prefork, before: &[i32], failure: &Failure<'_>) {
    let after = prefork.ready_pids("web");
    assert_eq!(after.len(), 4);
    for (slot, (before, after)) in before.iter().zip(&after).enumerate() {
        if !failure.put_back.contains(&slot) {
            assert_eq!(before, after, "slot {slot} was replaced");
        }
    }
    let status = prefork.status();
    assert_eq!(status.generation, 1, "{status:#?}");
    let workers = &status.pools[0].workers;
    assert!(
        workers.iter().all(|worker| worker.generation == Some(1)),
        "{workers:#?}"
    );
    let last = status.last_reload.expect("it was tried");
    assert!(!last.ok, "{last:?}");
    let why = last.error.expect("it says why");
    assert!(!why.is_empty());
    let failures = prefork.metric("prefork_config_reload_failures_total", &[]);
    assert_eq!(failures, 1.0);
    let successful = prefork.metric("prefork_config_last_reload_successful", &[]);
    assert_eq!(successful, 0.0);
}

/// The same on both kinds of listener.
fn fails_on_both(break_it: impl Fn(&Prefork, Mode), failure: &Failure<'_>) {
    for mode in Mode::ALL {
        fails(mode, |prefork| break_it(prefork, mode), failure);
    }
}

fn new_program_fails(words: &[&str], failure: &Failure<'_>) {
    fails_on_both(
        |prefork, mode| prefork.configure(&[program(mode, words)]),
        failure,
    );
}

#[test]
fn a_syntax_error() {
    fails_on_both(
        |prefork, _| prefork.append_to_configuration("workers = = 3\n"),
        &Failure {
            code: 78,
            says: &["workers = = 3", "prefork.toml:"],
            put_back: &[],
        },
    );
}

#[test]
fn a_pipe_in_place_of_the_file() {
    fails_on_both(
        |prefork, _| {
            let path = prefork.dir().join("prefork.toml");
            std::fs::remove_file(&path).expect("it is ours");
            mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("the directory is writable");
        },
        &Failure {
            code: 78,
            says: &["prefork.toml", "not a regular file"],
            put_back: &[],
        },
    );
}

#[test]
fn an_unknown_key() {
    fails_on_both(
        |prefork, mode| prefork.configure(&[good(mode).set("wrokers", 3)]),
        &Failure {
            code: 78,
            says: &["wrokers", "workers", "prefork.toml:"],
            put_back: &[],
        },
    );
}

#[test]
fn a_program_that_is_missing() {
    for mode in Mode::ALL {
        let break_it = |prefork: &Prefork| {
            prefork.configure(&[program(mode, &["/nonexistent/shop"])]);
        };
        let failure = Failure {
            code: 78,
            says: &["/nonexistent/shop"],
            put_back: &[],
        };
        fails(mode, break_it, &failure);
    }
}

#[test]
fn a_program_that_exits_1() {
    new_program_fails(
        &["/bin/sh", "-c", "echo no database >&2; exit 1"],
        &Failure {
            code: 1,
            says: &["web/0", "code 1", "no database"],
            put_back: &[],
        },
    );
}

#[test]
fn a_program_that_hangs_at_boot() {
    fails_on_both(
        |prefork, mode| {
            let hangs = program(mode, &["/bin/sh", "-c", "echo well >&2; exec sleep 60"]);
            prefork.configure(&[hangs.text("boot_timeout", "500ms")]);
        },
        &Failure {
            code: 1,
            says: &["web/0", "well"],
            put_back: &[],
        },
    );
}

#[test]
fn a_program_that_crashes_200_ms_after_it_was_ready() {
    fails_on_both(
        |prefork, mode| {
            let crashes = program(mode, &["service", "--crash-after", "200"]);
            prefork.configure(&[crashes.text("min_ready", "2s")]);
        },
        &Failure {
            code: 1,
            says: &["web/0", "code 7", "the new version has a bug"],
            put_back: &[],
        },
    );
}

#[test]
fn a_program_whose_third_worker_of_four_fails() {
    new_program_fails(
        &["service", "--fail-in-slot", "2"],
        &Failure {
            code: 1,
            says: &["web/2", "there is no place for slot 2"],
            put_back: &[0, 1],
        },
    );
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    fails_on_both(
        |prefork, mode| {
            let mode_name = mode.as_str();
            let listen = ["127.0.0.1:0", &address]
                .map(|address| format!("{{ address = {address:?}, mode = {mode_name:?} }}"));
            let listen = format!("[{}]", listen.join(", "));
            prefork.configure(&[good(mode).set("listen", listen)]);
        },
        &Failure {
            code: 1,
            says: &[&address, "in use"],
            put_back: &[],
        },
    );
}

#[test]
fn sighup_with_a_broken_configuration_changes_nothing_and_the_log_says_why() {
    let prefork = Prefork::start(&[good(Mode::Shared)]);
    let load = Mixed::start(prefork.address("web"), 2);
    let before = prefork.ready_pids("web");
    prefork.append_to_configuration("workers = = 3\n");
    prefork.signal(Signal::SIGHUP);
    prefork.logged(&["ERROR", "reload", "prefork.toml"]);
    eventually("the status says so", PATIENCE, || {
        prefork.status().last_reload.is_some_and(|last| !last.ok)
    });
    load.serves(10);
    assert_eq!(prefork.ready_pids("web"), before);
    load.stop_flawless();
}

#[test]
fn a_reload_asked_for_during_one_that_fails_is_made_with_what_is_there_by_then() {
    let mode = Mode::Shared;
    let prefork = Prefork::start(&[good(mode)]);
    let load = Mixed::start(prefork.address("web"), 2);
    let hangs = program(mode, &["/bin/sleep", "60"]);
    prefork.configure(&[hangs.text("boot_timeout", "3s")]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| prefork.cli(&["reload"]));
        // From here on it has read what is there: before, its file is not yet read.
        prefork.logged(&["generation 2 begins"]);
        prefork.configure(&[good(mode)]);
        let second = prefork.cli(&["reload"]);
        let first = first.join().expect("no panic");
        assert_eq!(first.code, 1, "{first:?}");
        assert_eq!(second.code, 0, "{second:?}");
    });
    let status = prefork.status();
    assert!(status.last_reload.expect("just now").ok);
    let workers = &status.pools[0].workers;
    assert!(
        workers
            .iter()
            .all(|worker| worker.generation == Some(status.generation))
    );
    load.serves(10);
    load.stop_flawless();
}
