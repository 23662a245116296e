//! A log on a disk that is full for a while: lines are lost and counted, and those
//! that are there are whole.
//!
//! The disk is a tmpfs of 64 KiB in a mount namespace of the supervisor's own, so it
//! goes with it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::deadline::eventually;
use crate::harness::http;
use crate::harness::{Pool, Prefork};

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
        let is_whole = line.len() < 3000 || line.contains(" end slot=app/0 pid=");
        let begins = line.starts_with("prefork: ") || line.starts_with("20");
        assert!(is_whole && begins && line.len() < 3200, "{line}");
    }
}
