//! `prefork top` on a real terminal, which is what it was afterwards.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use nix::pty::ptsname_r;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::terminals::terminal;
use crate::harness::deadline::{PATIENCE, eventually, eventually_some};
use crate::harness::http::Connection;
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, processes};

/// Runs it and leaves behind how the terminal was before and after, its process id and its
/// exit code.
const SCRIPT: &str = "stty rows 24 cols 80; stty -g > before
    sh -c 'echo $$ > pid.new; mv pid.new pid; exec \"$@\"' sh \"$@\"; code=$?
    stty -g > after; echo $code > code.new; mv code.new code";

/// What gives the terminal its own screen back (xterm's private mode 1049).
const LEFT: &str = "\x1b[?1049l";

/// Somebody who looks at it and has a keyboard.
struct Operator<'a> {
    prefork: &'a Prefork,
    keyboard: File,
    seen: Arc<Mutex<Vec<u8>>>,
    device: String,
    _terminal: OwnedFd,
    child: Child,
}

impl<'a> Operator<'a> {
    fn look(prefork: &'a Prefork) -> Self {
        let (ours, terminal) = terminal();
        let device = ptsname_r(&ours).expect("it has a name");
        let clone = || ours.as_fd().try_clone_to_owned().expect("there is room");
        let (keyboard, mut screen) = (File::from(clone()), File::from(clone()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        // It ends with the terminal (EIO).
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut bytes) {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend_from_slice(&bytes[..read]);
            }
        });
        let child = prefork.cli_in_terminal(&terminal, SCRIPT, &["top", "--interval", "100ms"]);
        Self {
            prefork,
            keyboard,
            seen,
            device,
            _terminal: terminal,
            child,
        }
    }

    fn text(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&seen).into_owned()
    }

    #[track_caller]
    fn sees(&self, words: &str) {
        let sees = || Some(()).filter(|()| self.text().contains(words));
        eventually_some(&format!("{words} is seen"), PATIENCE, sees);
    }

    /// Forgets what was seen, so that what is seen next is new.
    fn presses(&mut self, keys: &str) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("it is there");
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.prefork.dir().join(name)).ok()
    }

    /// Returns when it has ended with this code, and the terminal is what it was.
    #[track_caller]
    fn leaves(&mut self, code: &str) {
        let ended = || self.file("code");
        let ended = eventually_some("it ends", PATIENCE, ended);
        assert_eq!(ended.trim(), code, "{}", self.text());
        self.sees(LEFT);
        assert_eq!(self.file("before"), self.file("after"));
        self.child.wait().expect("it is our child");
    }
}

#[test]
fn workers_are_seen_at_work_until_q_and_beyond_the_supervisors_death() {
    let mut prefork = Prefork::start(&[Pool::service("web", 1)]);
    let mut client = Connection::open(prefork.address("web")).expect("it listens");
    client.send("GET", "/slow/600001", "").expect("it is taken");
    {
        let mut operator = Operator::look(&prefork);
        operator.sees("web/0");
        operator.sees("/slow/600001");
        operator.presses("\r");
        operator.sees("Esc back");
        // There is room for notes on a larger screen.
        operator.presses("\x1b");
        operator.sees("q quit");
        let resized = Command::new("stty")
            .args(["-F", &operator.device, "rows", "60", "cols", "200"])
            .status();
        assert!(resized.expect("stty(1) is there").success());
        operator.sees("NOTE");
        operator.presses("q");
        operator.leaves("0");
    }
    fs::remove_file(prefork.dir().join("code")).expect("it is there");
    // Whoever looks when the supervisor dies is told, and can leave.
    let pid = prefork.pid();
    {
        let mut operator = Operator::look(&prefork);
        operator.sees("web/0");
        processes::send(pid, Signal::SIGKILL);
        operator.sees("what is shown is old");
        operator.presses("q");
        operator.leaves("0");
    }
    prefork.killed();
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    let mut operator = Operator::look(&prefork);
    operator.sees("web/0");
    let pid = operator.file("pid").expect("it runs");
    processes::send(pid.trim().parse().expect("a number"), Signal::SIGTERM);
    operator.leaves("143");
}

#[test]
fn scripts_have_a_picture_or_figures() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    let none = prefork.cli(&["top"]);
    assert_eq!(none.code, 2, "{none:?}");
    assert!(none.stderr.contains("`prefork top --once`"), "{none:?}");
    let picture = prefork.done(&["top", "--once", "--interval", "100ms"]);
    assert!(picture.contains("web/0"), "{picture}");
    assert!(!picture.contains('\x1b'), "{picture}");
    let load = Load::start(prefork.address("web"), 2);
    let once = ["top", "--once", "--interval", "100ms", "--output", "json"];
    eventually("the load is seen", PATIENCE, || {
        let figures: Value = serde_json::from_str(&prefork.done(&once)).expect("it is JSON");
        let [worker] = &figures["workers"].as_array().expect("there are workers")[..] else {
            panic!("{figures}");
        };
        let number = |key: &str| worker[key].as_f64().unwrap_or(0.0);
        number("requests_per_second") > 0.0 && number("p99_seconds") > 0.0
    });
    load.stop_flawless();
}
