//! What `prefork reload` shows and how it exits, for each thing that a
//! supervisor can say.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{cli, directory};

/// A control socket that answers one request as it was told to.
struct Canned {
    dir: TempDir,
    asked: Receiver<(String, Value)>,
}

impl Canned {
    /// Says these lines; the last one ends the answer, if `ends`.
    fn saying(lines: &[Value], ends: bool) -> Self {
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Self::answering("200 OK", lines, ends)
    }

    fn answering(status: &'static str, body: String, ends: bool) -> Self {
        let dir = directory();
        let listener = UnixListener::bind(dir.path().join("control.sock")).expect("it is ours");
        let (tell, asked) = channel();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("the command comes");
            let request = read_request(&stream);
            // The test may be over.
            let _ = tell.send(request);
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n{body}");
            let _ = (&stream).write_all(head.as_bytes());
            if !ends {
                // Until the command hangs up.
                let _ = (&stream).read(&mut [0]);
            }
        });
        Self { dir, asked }
    }

    fn run(&self, args: &[&str]) -> cli::Output {
        let runtime_dir = self.dir.path().to_str().expect("the path is text");
        let all = [&["--runtime-dir", runtime_dir][..], args].concat();
        cli::run_alone(self.dir.path(), &all)
    }

    /// The request's first line and body.
    #[track_caller]
    fn asked(&self) -> (String, Value) {
        self.asked
            .recv_timeout(Duration::from_secs(10))
            .expect("the command has asked")
    }
}

fn read_request(stream: &UnixStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).expect("a request");
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let body = serde_json::from_slice(&body).expect("JSON");
    (first.trim_end().to_owned(), body)
}

fn step(slot: u32, message: &str) -> Value {
    json!({"type": "progress", "pool": "web", "slot": slot, "message": message})
}

fn committed() -> Value {
    json!({"type": "result", "ok": true, "message": "2 workers still drain", "generation": 3})
}

#[test]
fn a_committed_reload_says_which_generation_is_in_force() {
    let canned = Canned::saying(&[step(0, "ready"), step(1, "ready"), committed()], true);
    let output = canned.run(&["reload"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(output.stdout, "generation 3 is in force\n");
    assert_eq!(
        output.stderr,
        "web/0: ready\nweb/1: ready\n2 workers still drain\n"
    );
    let (request, body) = canned.asked();
    assert_eq!(request, "POST /v1/reload HTTP/1.1");
    assert_eq!(body, json!({"dry_run": false}));
}

#[test]
fn programs_get_the_lines_as_they_are() {
    let said = [step(0, "ready"), committed()];
    let output = Canned::saying(&said, true).run(&["--output", "json", "reload"]);
    assert_eq!(output.code, 0, "{output:?}");
    let lines: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines, said);
    assert_eq!(output.stderr, "");
}

#[test]
fn an_invalid_configuration_is_78_with_the_whole_diagnosis() {
    let diagnosis = "prefork.toml:3:1: unknown key `wrokers`\n  |\n3 | wrokers = 2\n  | ^^^^^^^";
    let error = json!({"code": "config", "message": diagnosis});
    for args in [&["reload"][..], &["reload", "--no-wait"]] {
        let canned = Canned::answering("422 Unprocessable Entity", error.to_string(), true);
        let output = canned.run(args);
        assert_eq!(output.code, 78, "{output:?}");
        assert_eq!(output.stdout, "");
        assert_eq!(output.stderr, format!("prefork: {diagnosis}\n"));
    }
}

#[test]
fn a_reload_that_was_rolled_back_is_1_with_slot_reason_and_stderr() {
    let error = json!({"code": "failed", "message": "web/2: exit code 4", "stderr": "no luck\n"});
    let result = json!({"type": "result", "ok": false, "error": error});
    let output = Canned::saying(&[step(2, "starting"), result], true).run(&["reload"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert_eq!(output.stdout, "");
    let words = "prefork: web/2: exit code 4\nthe worker's last words on stderr:\nno luck\n";
    assert_eq!(output.stderr, format!("web/2: starting\n{words}"));
}

#[test]
fn a_dry_run_shows_the_changes_as_a_table() {
    let change = |what, message| json!({"type": "change", "what": what, "message": message});
    let said = [
        change("setting", "pool web: drain_timeout 30s → 10s"),
        change("listener", "0.0.0.0:8081 would be bound"),
        json!({"type": "result", "ok": true}),
    ];
    let canned = Canned::saying(&said, true);
    let output = canned.run(&["reload", "--dry-run"]);
    assert_eq!(output.code, 0, "{output:?}");
    let table = "\
WHAT      CHANGE
setting   pool web: drain_timeout 30s → 10s
listener  0.0.0.0:8081 would be bound
";
    assert_eq!(output.stdout, table);
    assert_eq!(canned.asked().1, json!({"dry_run": true}));

    let output = Canned::saying(&said[2..], true).run(&["reload", "--dry-run"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(output.stdout, "nothing would change\n");
}

#[test]
fn without_waiting_it_ends_when_the_reload_has_begun() {
    let canned = Canned::saying(&[step(0, "starting")], false);
    let output = canned.run(&["reload", "--no-wait"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("goes on"), "{output:?}");
    assert_eq!(output.stderr, "web/0: starting\n");
}

#[test]
fn a_supervisor_that_goes_away_meanwhile_is_1_and_one_that_is_slow_is_5() {
    let output = Canned::saying(&[step(0, "starting")], true).run(&["reload"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("went away"), "{output:?}");
    let slow = Canned::saying(&[step(0, "starting")], false);
    let output = slow.run(&["--timeout", "300ms", "reload"]);
    assert_eq!(output.code, 5, "{output:?}");
    assert!(output.stderr.contains("goes on"), "{output:?}");
}
