//! Numbers that would say something else than what is so: a limit below what a program
//! needs is no leak, and what nobody counts is not zero.

use std::fs::File;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, directory, processes};

#[test]
fn a_worker_that_is_over_its_limit_at_birth_is_said_once_and_not_recycled() {
    let pool = Pool::bundled("app", 1).text("max_rss", "1MiB");
    let prefork = Prefork::start(&[pool]);
    let pid = prefork.ready_pid("app", 0);
    let line = prefork.logged(&["app/0", "from the beginning", "max_rss is"]);
    assert!(line.contains("WARN"), "{line}");
    // Its memory is looked at once a second.
    eventually("it has been looked at", PATIENCE, || {
        let uptime = prefork.worker("app", 0).uptime_seconds;
        uptime.is_some_and(|uptime| uptime > 5.0)
    });
    assert_eq!(prefork.ready_pid("app", 0), pid);
    assert_eq!(prefork.log().matches("from the beginning").count(), 1);
    let recycled = [("pool", "app"), ("reason", "max_rss")];
    assert_eq!(prefork.metric("prefork_worker_exits_total", &recycled), 0.0);
}

#[test]
fn a_worker_that_counts_no_http_has_no_totals_rather_than_none_served() {
    let prefork = Prefork::launch(&[Pool::test_worker("app", 1), Pool::bundled("web", 1)]);
    prefork.order_boot("app", "uncounted");
    prefork.wait_until_ready();
    let old = prefork.ready_pid("app", 0);
    prefork.done(&["restart", "app"]);
    prefork.replaced("app", 0, old);
    let has = |pool: &str, name: &str| {
        !prefork
            .scrape()
            .matching(name, &[("pool", pool)])
            .is_empty()
    };
    for name in [
        "prefork_http_requests_total",
        "prefork_http_connections_accepted_total",
        "prefork_http_request_duration_seconds_count",
    ] {
        assert!(has("web", name), "{name}");
        assert!(!has("app", name), "{name}");
    }
    assert!(has("app", "prefork_worker_up"));
    let described = prefork.done(&["describe", "app/0"]);
    assert!(
        described.contains("lived") && !described.contains("served"),
        "{described}"
    );
    assert_eq!(prefork.describe("app", 0).exits[0].served(), None);
    let line = prefork.logged(&["app/0", "exited with code"]);
    assert!(!line.contains("requests"), "{line}");
    assert_eq!(prefork.worker("app", 0).requests, None);
    assert_eq!(prefork.worker("web", 0).requests, Some(0));
}

#[test]
fn what_a_worker_will_count_is_not_known_before_it_has_said_hello() {
    let prefork = Prefork::launch(&[
        Pool::command("mute", &["/bin/sleep", "600"], 1).text("boot_timeout", "10m"),
        Pool::bundled("web", 1),
    ]);
    prefork.logged(&["web/0", "ready after"]);
    eventually("it has been started", PATIENCE, || {
        prefork.worker("mute", 0).pid.is_some()
    });
    assert_eq!(prefork.worker("mute", 0).requests, None);
    let scrape = prefork.scrape();
    let family = "prefork_http_requests_total";
    assert!(!scrape.matching(family, &[("pool", "web")]).is_empty());
    assert!(scrape.matching(family, &[("pool", "mute")]).is_empty());
    // One that died without a word has served nobody knows what.
    processes::send(
        prefork.worker("mute", 0).pid.expect("it runs"),
        Signal::SIGKILL,
    );
    eventually("its certificate is written", PATIENCE, || {
        !prefork.describe("mute", 0).exits.is_empty()
    });
    assert_eq!(prefork.describe("mute", 0).exits[0].served(), None);
}

/// A worker that maps a file and touches each page of it once it is ready.
const MAPS_A_FILE: &str = r#"
import json, mmap, os, socket, sys, time
channel = socket.socket(fileno=int(os.environ["PREFORK_CHANNEL_FD"]))
def say(**message):
    channel.sendall(json.dumps(message).encode() + b"\n")
say(type="hello", protocol=1, pid=os.getpid(), program="maps", version="1", capabilities=[])
heard, kept = b"", []
while b'"start"' not in heard:
    data, descriptors, *_ = socket.recv_fds(channel, 65536, 16)
    heard += data
    kept += descriptors
say(type="ready")
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
touched = sum(mapped[page] for page in range(0, len(mapped), 4096))
for seq in range(1, 10**9):
    say(type="health", seq=seq, in_flight=0, connections=0, loop_lag_us=0, status=f"touched {touched}")
    time.sleep(0.2)
"#;

#[test]
fn pages_of_a_file_that_a_worker_maps_are_no_memory_that_it_holds() {
    let python = Command::new("python3").args(["-c", "import mmap"]).status();
    if !python.is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: there is no python3");
    }
    let large = 256 << 20;
    let dir = directory();
    let file = dir.path().join("large");
    let made = File::create(&file).and_then(|file| file.set_len(large));
    made.expect("a file with holes needs no room");
    let file = file.to_str().expect("it is text");
    let program = ["python3", "-c", MAPS_A_FILE, file];
    let pool = Pool::command("app", &program, 1).text("max_rss", "64MiB");
    let prefork = Prefork::start(&[pool]);
    let pid = prefork.ready_pid("app", 0);
    let resident = || processes::resident_bytes(pid);
    eventually("the file's pages are resident", PATIENCE, || {
        resident() > large
    });
    // Its memory is looked at once a second.
    let uptime = || prefork.worker("app", 0).uptime_seconds.unwrap_or(0.0);
    let since = uptime();
    eventually("it has been looked at", PATIENCE, || uptime() > since + 5.0);
    assert_eq!(prefork.ready_pid("app", 0), pid);
    assert!(resident() > large);
    assert!(
        !prefork.log().contains("max_rss is"),
        "nor is it said to be large"
    );
}
