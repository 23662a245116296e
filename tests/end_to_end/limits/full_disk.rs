//! A log on a disk that is full for a while: lines are lost and counted, and those
//! that are there are whole. A state file on such a disk is written all the same.
//!
//! The disk of a log is a tmpfs of 64 KiB in a mount namespace of the supervisor's own, so it
//! goes with it. That of a state outlives its supervisor.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::deadline::eventually;
use crate::harness::{Pool, Prefork, http, processes};

const SOON: Duration = Duration::from_secs(20);

/// Starts prefork with a small disk at `disk/`, half of it taken.
const ON_SMALL_DISK: &str = r#"exec unshare -m /bin/sh -c '
    mkdir disk &&
    mount -t tmpfs -o size=64k,mode=0755 none disk &&
    head -c 32768 /dev/zero > disk/ballast &&
    exec "$@"' sh "$@""#;

/// Whether a disk can be mounted here; says so where not.
fn can_mount() -> bool {
    let mount = "mount -t tmpfs -o size=64k none /mnt";
    let tried = Command::new("unshare")
        .args(["-m", "sh", "-c", mount])
        .output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("SKIPPED: a full disk, since none can be mounted here");
    }
    can
}

/// A file on the disk, as it can be reached from here.
fn on_disk(prefork: &Prefork, name: &str) -> PathBuf {
    let dir = prefork.dir().join("disk").join(name);
    let inside = dir.strip_prefix("/").expect("the path is absolute");
    PathBuf::from(format!("/proc/{}/root", prefork.pid())).join(inside)
}

#[test]
fn an_access_log_keeps_whole_lines_and_goes_on_when_there_is_room() {
    if !can_mount() {
        return;
    }
    let log = "{ path = \"disk/access.log\", format = \"json\" }";
    let pool = Pool::bundled("web", 3).set("access_log", log);
    let prefork = Prefork::launch_by_script(ON_SMALL_DISK, "", &[pool]);
    prefork.wait_until_ready();
    let address = prefork.address("web");
    let mut asked = 0;
    let mut ask = |times: usize| {
        for _ in 0..times {
            asked += 1;
            // No length that a page is a multiple of.
            let path = format!("/{}", "x".repeat(300 + asked % 700));
            assert_eq!(http::get(address, &path).unwrap().status, 404);
        }
        asked
    };
    let dropped = || prefork.metric("prefork_access_log_dropped_lines_total", &[("pool", "web")]);
    let file = on_disk(&prefork, "access.log");
    let text = || String::from_utf8(fs::read(&file).unwrap()).unwrap();
    eventually("the disk is full", SOON, || {
        ask(20);
        dropped() > 0.0
    });
    ask(60);
    // What fits up to the last byte is not a whole line, and is not there.
    eventually("no half line is left", SOON, || text().ends_with('\n'));
    fs::remove_file(on_disk(&prefork, "ballast")).unwrap();
    ask(20);
    let asked = ask(0);
    eventually("every line is written or counted as lost", SOON, || {
        text().lines().count() + dropped() as usize >= asked
    });
    assert_eq!(text().lines().count() + dropped() as usize, asked);
    for line in text().lines() {
        let entry: Result<Value, _> = serde_json::from_str(line);
        assert!(entry.is_ok(), "{entry:?}: {line}");
    }
}

#[test]
fn the_supervisors_own_log_does_the_same() {
    if !can_mount() {
        return;
    }
    let log = "log = \"disk/prefork.log\"";
    let pool = Pool::test_worker("app", 1);
    let prefork = Prefork::launch_by_script(ON_SMALL_DISK, log, &[pool]);
    prefork.wait_until_ready();
    let long = "x".repeat(3000);
    for number in 0..14 {
        prefork.order("app", 0, format!("print {number:02}{long} end"));
    }
    let file = on_disk(&prefork, "prefork.log");
    let text = || String::from_utf8(fs::read(&file).unwrap()).unwrap();
    eventually("the disk is full", SOON, || text().len() > 28_000);
    fs::remove_file(on_disk(&prefork, "ballast")).unwrap();
    prefork.signal(Signal::SIGHUP);
    eventually("it goes on, and says what is missing", SOON, || {
        let text = text();
        text.contains("generation 2 is in force") && text.contains("log lines were lost")
    });
    for line in text().lines() {
        let is_whole = line.len() < 3000 || line.contains(" end pid=");
        let begins = line.starts_with("prefork: ") || line.starts_with("20");
        assert!(is_whole && begins && line.len() < 3200, "{line}");
    }
}

/// Mounts a small disk where the runtime directory is to be, and starts prefork.
const STATE_ON_SMALL_DISK: &str = r#"
    mkdir run && mount -t tmpfs -o size=1m,mode=0755 none run && exec "$@""#;

/// The disk under a runtime directory; unmounted when dropped.
struct RuntimeDisk(PathBuf);

impl RuntimeDisk {
    /// Writes to it until it takes no byte more.
    fn fill(&self) {
        let mut ballast = fs::File::options()
            .append(true)
            .create(true)
            .open(self.0.join("ballast"))
            .expect("the disk is ours");
        for piece in [4096, 1] {
            while ballast.write_all(&vec![b'x'; piece]).is_ok() {}
        }
    }
}

impl Drop for RuntimeDisk {
    fn drop(&mut self) {
        // Those who still have files there keep them.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Has the worker replaced, and returns the process id of the new one.
fn replaced(prefork: &Prefork) -> i32 {
    let old = prefork.ready_pid("web", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("web", 0, old)
}

fn write_failures(prefork: &Prefork) -> f64 {
    prefork.metric("prefork_supervisor_state_write_failures_total", &[])
}

#[test]
fn a_state_is_written_on_a_disk_that_others_have_filled() {
    if !can_mount() {
        return;
    }
    let pool = Pool::bundled("web", 1);
    let mut prefork = Prefork::launch_by_script(STATE_ON_SMALL_DISK, "", &[pool]);
    let disk = RuntimeDisk(prefork.runtime_dir());
    prefork.wait_until_ready();
    disk.fill();
    replaced(&prefork);
    // Nor is what the last state held to be had.
    disk.fill();
    let serving = replaced(&prefork);
    // Before it answers, a scrape has the state written.
    assert_eq!(write_failures(&prefork), 0.0);
    prefork.killed();
    prefork.ready_again();
    assert_eq!(prefork.ready_pid("web", 0), serving);
}

#[test]
fn a_state_that_cannot_be_written_is_counted_until_it_can() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let spare = prefork.runtime_dir().join("state.json.new");
    let other_name = prefork.dir().join("other-name");
    eventually("there is room for the next state", SOON, || {
        fs::hard_link(&spare, &other_name).is_ok()
    });
    eventually("writes fail and are counted", SOON, || {
        write_failures(&prefork) > 0.0
    });
    prefork.logged(&["cannot write", "state.json", "has other names"]);
    fs::remove_file(&other_name).unwrap();
    prefork.logged(&["state.json", "is written again"]);
}
