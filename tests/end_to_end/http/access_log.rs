//! A line for every request, whatever happens to the file, the workers or the
//! supervisor meanwhile.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, pipe};
use serde_json::Value;

use crate::harness::deadline::eventually;
use crate::harness::http::{self, Connection};
use crate::harness::load::{Kind, Load};
use crate::harness::{Pool, Prefork, processes};

const SOON: Duration = Duration::from_secs(20);

fn logging(workers: u32, log: &str) -> Pool {
    Pool::bundled("web", workers).set("access_log", log)
}

const JSON: &str = "{ path = \"access.log\", format = \"json\" }";

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "a line is not whole"
    );
    text.lines().map(str::to_owned).collect()
}

fn entries(path: &Path) -> Vec<Value> {
    let parse = |line: &String| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    };
    lines(path).iter().map(parse).collect()
}

/// Waits until the file has this many lines; no more may come.
fn has_lines(path: &Path, wanted: u64) {
    eventually("every request is in the log", SOON, || {
        lines(path).len() as u64 >= wanted
    });
    assert_eq!(lines(path).len() as u64, wanted);
}

#[test]
fn four_workers_under_load_append_a_whole_line_for_every_request() {
    let mut prefork = Prefork::start(&[logging(4, JSON)]);
    let load = Load::of(Kind::Close, prefork.address("web"), 8);
    load.serves(2_000);
    // A reload in the middle: who drains has to leave nothing unwritten.
    prefork.done(&["reload", "--force"]);
    load.serves(2_000);
    let served = load.stop_flawless();
    prefork.done(&["stop"]);
    assert_eq!(prefork.exit_code(), 0);

    let entries = entries(&prefork.dir().join("access.log"));
    assert_eq!(entries.len() as u64, served);
    let distinct = |key: &str| -> BTreeSet<String> {
        entries.iter().map(|entry| entry[key].to_string()).collect()
    };
    assert_eq!(distinct("request_id").len(), entries.len());
    // With a connection for each request, every worker gets some.
    assert!(
        distinct("pid").len() > 4,
        "both generations, and more than one of each"
    );
    for entry in &entries {
        assert_eq!(
            (&entry["status"], &entry["method"]),
            (&200.into(), &"GET".into())
        );
        assert_eq!(entry["client"], "127.0.0.1");
        assert_eq!(entry["version"], "HTTP/1.1");
        assert!(entry["bytes"].as_u64().unwrap() > 0, "{entry}");
        assert!(entry["duration"].as_f64().unwrap() < 60.0, "{entry}");
    }
}

#[test]
fn a_log_that_is_renamed_and_opened_again_under_load_loses_no_line() {
    let prefork = Prefork::start(&[logging(2, JSON)]);
    let log = prefork.dir().join("access.log");
    let load = Load::start(prefork.address("web"), 4);
    let mut rotated = Vec::new();
    for number in 0..5 {
        load.serves(200);
        let old = prefork.dir().join(format!("access.log.{number}"));
        fs::rename(&log, &old).unwrap();
        prefork.done(&["reopen-logs"]);
        // From here on whoever rotates may compress it.
        rotated.push((old.clone(), fs::metadata(&old).unwrap().len()));
    }
    load.serves(200);
    let served = load.stop_flawless();
    for (old, length) in &rotated {
        assert_eq!(
            fs::metadata(old).unwrap().len(),
            *length,
            "{}",
            old.display()
        );
    }
    let before: usize = rotated.iter().map(|(old, _)| entries(old).len()).sum();
    has_lines(&log, served - before as u64);
    // The signal does the same.
    fs::rename(&log, prefork.dir().join("access.log.last")).unwrap();
    prefork.signal(Signal::SIGUSR1);
    eventually("the file is there again", SOON, || log.exists());
}

#[test]
fn a_pipe_that_nobody_reads_costs_lines_and_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    mkfifo(&pipe, Mode::from_bits_truncate(0o600)).unwrap();
    let mut reader = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&pipe)
        .unwrap();
    let log = format!("{{ path = {:?} }}", pipe.display().to_string());
    let mut prefork = Prefork::start(&[logging(1, &log)]);
    let mut connection = Connection::open(prefork.address("web")).unwrap();
    let path = format!("/{}", "x".repeat(1900));
    // More than 1 MiB waits in the worker and 64 KiB in the pipe.
    for _ in 0..1_000 {
        assert_eq!(connection.get(&path).unwrap().status, 404);
    }
    let dropped = || prefork.metric("prefork_access_log_dropped_lines_total", &[("pool", "web")]);
    eventually("dropped lines are counted", SOON, || dropped() > 0.0);
    assert_eq!(connection.get("/").unwrap().status, 200);
    // A reader that comes to itself gets whole lines.
    let mut text = Vec::new();
    eventually("what waited is read", SOON, || {
        let _ = reader.read_to_end(&mut text);
        text.len() > 1 << 20
    });
    assert!(text.ends_with(b"\n"));
    for line in String::from_utf8(text).unwrap().lines() {
        assert!(line.starts_with("127.0.0.1 - - [") && line.ends_with(" \"-\" \"-\""));
    }
    drop(connection);
    prefork.done(&["stop"]);
    assert_eq!(prefork.exit_code(), 0);
}

#[test]
fn lines_on_stdout_are_whole_and_complete_whatever_becomes_of_the_supervisor() {
    let (read, stdout) = pipe().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).map(|_| text)
    });
    let log = "{ path = \"stdout\", format = \"json\" }";
    let mut prefork = Prefork::launch_printing(&stdout, &[logging(3, log)]);
    prefork.wait_until_ready();
    let load = Load::of(Kind::Close, prefork.address("web"), 6);
    load.serves(300);
    for command in ["reload", "reopen-logs", "upgrade"] {
        prefork.done(&[command]);
        load.serves(300);
    }
    let workers = prefork.ready_pids("web");
    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    load.serves(300);
    prefork.start_again_printing(&stdout);
    prefork.wait_until_ready();
    load.serves(300);
    assert_eq!(prefork.ready_pids("web"), workers);
    let served = load.stop_flawless();
    prefork.done(&["stop"]);
    assert_eq!(prefork.exit_code(), 0);

    // It ends when nobody has it any more.
    drop(stdout);
    let text = reader.join().unwrap().unwrap();
    let ids: BTreeSet<String> = text
        .lines()
        .map(|line| {
            let entry: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
            assert_eq!(
                (&entry["status"], &entry["pool"]),
                (&200.into(), &"web".into())
            );
            entry["request_id"].to_string()
        })
        .collect();
    assert_eq!(text.lines().count() as u64, served);
    assert_eq!(ids.len() as u64, served);
}

/// What the server answers to these bytes on a connection of their own.
fn raw(prefork: &Prefork, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(prefork.address("web")).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("it is not 0");
    stream.write_all(request).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn no_client_can_forge_a_line_or_leave_one_out() {
    let combined = "{ path = \"access.log\" }";
    let prefork = Prefork::start(&[logging(1, combined)]);
    let log = prefork.dir().join("access.log");
    raw(
        &prefork,
        b"GET /a%0d%0aforged HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
          referer: \" 200 0 \"x\r\nuser-agent: \xff\tcurl\\\r\n\r\n",
    );
    // Refused before the application sees it.
    raw(&prefork, b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n");
    has_lines(&log, 2);
    let lines = lines(&log);
    assert!(
        lines[0].contains("\"GET /a%0d%0aforged HTTP/1.1\" 404"),
        "{}",
        lines[0]
    );
    let tail = "\"\\x22 200 0 \\x22x\" \"\\xFF\\x09curl\\x5C\"";
    assert!(lines[0].ends_with(tail), "{}", lines[0]);
    assert!(lines[1].contains("\"GET / HTTP/1.1\" 400"), "{}", lines[1]);
}

#[test]
fn a_request_has_the_id_that_its_line_and_its_answer_have() {
    let prefork = Prefork::start(&[logging(1, JSON)]);
    let log = prefork.dir().join("access.log");
    let made = http::get(prefork.address("web"), "/").unwrap();
    let given = raw(
        &prefork,
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-request-id: from-a-proxy-7\r\n\
          traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n",
    );
    let insane = raw(
        &prefork,
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-request-id: \"} x\r\n\
          traceparent: 00-\"}\r\n\r\n",
    );
    has_lines(&log, 3);
    let entries = entries(&log);
    assert_eq!(
        made.header("x-request-id"),
        entries[0]["request_id"].as_str()
    );
    assert!(
        given.contains("x-request-id: from-a-proxy-7\r\n"),
        "{given}"
    );
    assert_eq!(entries[1]["request_id"], "from-a-proxy-7");
    assert_eq!(
        entries[1]["traceparent"],
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    );
    assert!(entries[0]["traceparent"].is_null() && entries[2]["traceparent"].is_null());
    assert!(!insane.contains("\"}"), "{insane}");
    assert_eq!(entries[2]["request_id"].as_str().map(str::len), Some(32));
}

#[test]
fn without_a_log_there_is_no_request_id_either() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let answer = http::get(prefork.address("web"), "/").unwrap();
    assert_eq!(answer.header("x-request-id"), None);
}

#[test]
fn a_reload_changes_the_log_and_one_that_cannot_be_opened_is_refused() {
    let prefork = Prefork::start(&[logging(1, JSON)]);
    let (first, second) = (
        prefork.dir().join("access.log"),
        prefork.dir().join("other.log"),
    );
    http::get(prefork.address("web"), "/").unwrap();
    has_lines(&first, 1);
    prefork.configure(&[logging(1, "{ path = \"nowhere/access.log\" }")]);
    let refused = prefork.cli(&["reload"]);
    assert_eq!(refused.code, 78, "{refused:?}");
    assert!(
        refused.stderr.contains("cannot write"),
        "{}",
        refused.stderr
    );
    http::get(prefork.address("web"), "/").unwrap();
    has_lines(&first, 2);
    prefork.configure(&[logging(1, "{ path = \"other.log\" }")]);
    prefork.done(&["reload"]);
    http::get(prefork.address("web"), "/").unwrap();
    has_lines(&second, 1);
    has_lines(&first, 2);
    prefork.configure(&[Pool::bundled("web", 1)]);
    prefork.done(&["reload"]);
    http::get(prefork.address("web"), "/").unwrap();
    has_lines(&second, 1);
}

#[test]
fn the_log_goes_on_over_the_supervisors_death_and_its_upgrade() {
    let mut prefork = Prefork::start(&[logging(1, JSON)]);
    let log = prefork.dir().join("access.log");
    let renamed = prefork.dir().join("access.log.1");
    let address = prefork.address("web");
    let worker = prefork.ready_pid("web", 0);
    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    http::get(address, "/").unwrap();
    has_lines(&log, 1);
    // What is renamed now, the next supervisor opens anew.
    fs::rename(&log, &renamed).unwrap();
    prefork.start_again();
    prefork.wait_until_ready();
    assert_eq!(prefork.ready_pid("web", 0), worker);
    let mut asked = 1;
    eventually("the worker writes to the new file", SOON, || {
        http::get(address, "/").unwrap();
        asked += 1;
        eventually("the request is in one of them", SOON, || {
            lines(&renamed).len() + lines(&log).len() == asked
        });
        !lines(&log).is_empty()
    });

    prefork.done(&["upgrade"]);
    let before = lines(&log).len() as u64;
    http::get(address, "/").unwrap();
    has_lines(&log, before + 1);
    fs::rename(&log, prefork.dir().join("access.log.2")).unwrap();
    prefork.done(&["reopen-logs"]);
    http::get(address, "/").unwrap();
    has_lines(&log, 1);
    assert_eq!(prefork.ready_pid("web", 0), worker);
    assert!(processes::alive(worker));
}

#[test]
fn what_is_no_request_has_a_line_for_the_answer_that_it_got() {
    let pool = logging(1, JSON).set("http", "{ header_timeout = \"300ms\" }");
    let prefork = Prefork::start(&[pool]);
    let address = prefork.address("web");
    for (bytes, status) in [
        (&b"GET / HTTP/9.9\r\nhost: a\r\n\r\n"[..], 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 200),
        // What doesn't come in time.
        (b"GET / HT", 408),
    ] {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(bytes).expect("it is taken");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("it is answered");
        assert_eq!(answer, format!("HTTP/1.1 {status}").as_bytes());
    }
    let path = prefork.dir().join("access.log");
    has_lines(&path, 5);
    let entries = entries(&path);
    let statuses: Vec<&Value> = entries.iter().map(|entry| &entry["status"]).collect();
    assert_eq!(statuses, [400, 400, 400, 200, 408]);
    for entry in entries {
        assert_eq!(entry["client"], "127.0.0.1", "{entry}");
        let is_request = entry["status"] == 200;
        assert_eq!(entry["method"] == "GET", is_request, "{entry}");
        assert_eq!(entry["path"] == "/", is_request, "{entry}");
        assert!(entry["request_id"].is_string(), "{entry}");
    }
}
