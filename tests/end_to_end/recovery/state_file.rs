//! A supervisor is killed, and the next one finds less than it left, or worse.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::deadline::eventually;
use crate::harness::{Pool, Prefork, processes};

const SOON: Duration = Duration::from_secs(20);

fn state(prefork: &Prefork) -> PathBuf {
    prefork.runtime_dir().join("state.json")
}

/// A clean start after `spoil` has been at the state, which is said with `words`.
#[track_caller]
fn not_believed(spoil: impl FnOnce(&Prefork), words: &[&str]) {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let old = prefork.ready_pid("web", 0);
    prefork.killed();
    spoil(&prefork);
    prefork.ready_again();
    assert_ne!(prefork.ready_pid("web", 0), old);
    prefork.logged(&[&["is not used", "state.json.bad"], words].concat());
    assert!(prefork.runtime_dir().join("state.json.bad").exists());
    eventually("the old worker leaves", SOON, || !processes::alive(old));
    // What the new supervisor wrote is good again.
    let serving = prefork.ready_pid("web", 0);
    prefork.killed();
    prefork.ready_again();
    assert_eq!(prefork.ready_pid("web", 0), serving);
}

#[test]
fn a_corrupt_state_is_moved_aside() {
    let spoil = |prefork: &Prefork| {
        let mut bytes = fs::read(state(prefork)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 64].fill(0xff);
        fs::write(state(prefork), bytes).unwrap();
    };
    not_believed(spoil, &["damaged"]);
}

#[test]
fn a_state_of_a_later_version_is_moved_aside() {
    let spoil = |prefork: &Prefork| {
        let text = fs::read(state(prefork)).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        value["version"] = 99.into();
        fs::write(state(prefork), value.to_string()).unwrap();
    };
    not_believed(spoil, &["version 99"]);
}

#[test]
fn a_state_that_somebody_else_wrote_is_moved_aside() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give a file to another user");
        return;
    }
    let spoil = |prefork: &Prefork| chown(state(prefork), Some(65534), None).unwrap();
    not_believed(spoil, &["belongs to user id 65534"]);
}

/// A process that no supervisor started.
struct Stranger(Child);

impl Stranger {
    fn start() -> Self {
        let sleep = Command::new("/bin/sleep").arg("600").spawn();
        Self(sleep.expect("sleep can be run"))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("process ids are small")
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have been killed, which is what a test here looks for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_stranger_that_has_a_dead_workers_number_is_not_touched() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let worker = prefork.ready_pid("web", 0);
    prefork.killed();
    processes::send(worker, Signal::SIGKILL);
    eventually("it is gone", SOON, || !processes::alive(worker));
    let stranger = Stranger::start();
    let text = fs::read_to_string(state(&prefork)).unwrap();
    let [from, to] = [worker, stranger.pid()].map(|pid| format!("\"pid\":{pid},"));
    assert!(text.matches(&from).count() >= 2, "{text}");
    fs::write(state(&prefork), text.replace(&from, &to)).unwrap();
    prefork.ready_again();
    prefork.logged(&["no worker of the supervisor before lives"]);
    assert_ne!(prefork.ready_pid("web", 0), stranger.pid());
    prefork.done(&["stop"]);
    assert_eq!(prefork.exit_code(), 0);
    assert!(processes::alive(stranger.pid()));
}

#[test]
fn a_broken_configuration_does_not_end_a_service_whose_supervisor_was_killed() {
    let pools = || [Pool::bundled("web", 2)];
    for (mistake, told) in [("wrokers = 3\n", "wrokers"), ("[pool.web\n", "[pool.web")] {
        let mut prefork = Prefork::start(&pools());
        let workers = prefork.ready_pids("web");
        prefork.append_to_configuration(mistake);
        prefork.killed();
        prefork.ready_again();
        assert_eq!(prefork.ready_pids("web"), workers);
        prefork.logged(&["prefork.toml:", ": "]);
        prefork.logged(&[told]);
        prefork.logged(&["its workers serve: going on with what was in force"]);
        let reload = prefork.cli(&["reload"]);
        assert_ne!(reload.code, 0, "{reload:?}");
        assert!(reload.stderr.contains(told), "{reload:?}");
        assert_eq!(prefork.ready_pids("web"), workers);
        prefork.configure(&pools());
        prefork.done(&["reload"]);
    }
}

#[test]
fn a_broken_configuration_is_refused_where_no_worker_lives() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let worker = prefork.ready_pid("web", 0);
    prefork.append_to_configuration("wrokers = 3\n");
    prefork.killed();
    processes::send(worker, Signal::SIGKILL);
    eventually("it is gone", SOON, || !processes::alive(worker));
    prefork.start_again();
    assert_eq!(prefork.exit_code(), 78);
}
