//! What an operator is told: who asked, what failed, what was meant, what happened when.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_api::Event;

use crate::control::terminals::terminal;
use crate::harness::cli::{binary, example, finish, run_alone};
use crate::harness::deadline::{PATIENCE, eventually_some};
use crate::harness::{Pool, Prefork, directory, processes};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn nobody_is_said_to_have_asked_for_what_a_signal_did() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    prefork.done(&["restart", "web"]);
    // Both of the line that it drains and of its death.
    prefork.logged(&["exited with code 0", "an operator asked for it"]);
    let before = prefork.log().matches("an operator asked").count();
    prefork.signal(Signal::SIGTERM);
    assert_eq!(prefork.exit_code(), 0);
    let log = prefork.log();
    assert_eq!(log.matches("an operator asked").count(), before, "{log}");
    assert!(
        log.contains("draining: the supervisor is stopping"),
        "{log}"
    );
}

#[test]
fn crashes_are_counted_apart_from_restarts() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    prefork.done(&["restart", "web/0"]);
    prefork.done(&["reload", "--force"]);
    let worker = prefork.worker("web", 0);
    assert_eq!((worker.restarts, worker.crashes), (2, 0));
    let old = prefork.ready_pid("web", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("web", 0, old);
    let worker = prefork.worker("web", 0);
    assert_eq!((worker.restarts, worker.crashes), (3, 1));
    assert!(prefork.done(&["status"]).contains("RESTARTS  CRASHES"));
}

#[test]
fn the_last_exit_comes_with_the_workers_own_words() {
    let worker = example("test_worker");
    let script = "echo 'using the old database' >&2; exec \"$0\"";
    let program = ["/bin/sh", "-c", script, worker.to_str().expect("text")];
    let prefork = Prefork::start(&[Pool::command("app", &program, 1)]);
    prefork.done(&["reload", "--force"]);
    let said = eventually_some("it has left", PATIENCE, || {
        Some(prefork.done(&["status"])).filter(|said| said.contains("last exit: reload"))
    });
    assert!(said.contains("(using the old database)"), "{said}");
}

#[test]
fn who_waits_where_no_supervisor_is_hears_that_none_is() {
    let dir = directory();
    let runtime_dir = dir.path().join("run");
    let runtime_dir = runtime_dir.to_str().unwrap();
    for timeout in ["300ms", "3s"] {
        let wait = [
            "--runtime-dir",
            runtime_dir,
            "--timeout",
            timeout,
            "wait",
            "--for",
            "ready",
        ];
        let waited = run_alone(dir.path(), &wait);
        assert_eq!(waited.code, 3, "{waited:?}");
        let said = format!("waiting for up to 3.0s for a supervisor that answers at {runtime_dir}");
        assert_eq!(waited.stderr.contains(&said), timeout == "3s", "{waited:?}");
        assert!(
            waited.stderr.contains("no supervisor is running"),
            "{waited:?}"
        );
    }
}

#[test]
fn who_waits_for_a_supervisor_that_comes_late_waits_for_it() {
    let install = |dir: &Path| {
        let config = "[supervisor]\nadmin = \"127.0.0.1:0\"\n";
        fs::write(dir.join("prefork.toml"), config).expect("the directory is ours");
    };
    let start = "sleep 6; exec \"$0\" --runtime-dir \"$1\" run --listen unix:web.sock";
    let prefork = Prefork::launch_by_shell(install, start);
    let waited = prefork.cli(&["wait", "--for", "ready"]);
    assert_eq!(waited.code, 0, "{waited:?}: {}", prefork.log());
}

#[test]
fn a_runtime_directory_that_a_reload_cannot_take_is_said_each_time() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let file = prefork.dir().join("prefork.toml");
    let other = prefork.dir().join("other");
    let text = fs::read_to_string(&file).unwrap();
    let old = format!("{:?}", prefork.runtime_dir());
    fs::write(&file, text.replace(&old, &format!("{other:?}"))).unwrap();
    for _ in 0..2 {
        let reload = prefork.cli(&["reload"]);
        assert_eq!(reload.code, 0, "{reload:?}");
        let said = "a reload cannot take this, restart prefork for it";
        assert!(reload.stderr.contains("runtime_dir"), "{reload:?}");
        assert!(reload.stderr.contains(said), "{reload:?}");
    }
    // Nor does the program that comes next look for its state there.
    prefork.done(&["upgrade"]);
    prefork.done(&["status"]);
    assert!(!other.exists());
}

#[test]
fn an_order_for_one_worker_can_be_for_the_whole_pool_if_that_is_meant() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2), Pool::bundled("api", 1)]);
    let others = prefork.ready_pids("api");
    let old = prefork.ready_pids("web");
    let kill = prefork.cli(&["kill", "web"]);
    assert_eq!(kill.code, 2, "{kill:?}");
    assert!(
        kill.stderr.contains("`web/0`") && kill.stderr.contains("`kill --all web`"),
        "{kill:?}"
    );
    assert_eq!(prefork.ready_pids("web"), old);
    prefork.done(&["kill", "--all", "web"]);
    for (slot, pid) in (0..).zip(old) {
        prefork.replaced("web", slot, pid);
    }
    prefork.done(&["drain", "web", "--all"]);
    prefork.done(&["pause", "--all", "web"]);
    assert_eq!(
        prefork.cli(&["health"]).code,
        1,
        "a paused pool is not ready"
    );
    prefork.done(&["resume", "--all", "web"]);
    assert_eq!(prefork.ready_pids("api"), others);
    assert_eq!(prefork.cli(&["kill", "--all", "shop"]).code, 4);
    assert_eq!(prefork.cli(&["kill", "--all", "web/0"]).code, 2);
}

#[test]
fn the_status_of_one_pool_is_that_of_no_other() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1), Pool::bundled("api", 1)]);
    let table = prefork.done(&["status", "web"]);
    assert!(
        table.contains("web/0") && !table.contains("api/0"),
        "{table}"
    );
    let json = prefork.done(&["status", "web", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let pools = json["pools"].as_array().expect("pools are an array");
    assert_eq!(pools.len(), 1, "{json}");
    assert_eq!(pools[0]["name"], "web");
    let unknown = prefork.cli(&["status", "shop"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(unknown.stderr.contains("web, api"), "{unknown:?}");
}

#[test]
fn health_alone_asks_whether_it_is_ready() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    assert_eq!(
        prefork.done(&["health"]),
        prefork.done(&["health", "--ready"])
    );
}

#[test]
fn events_can_be_read_and_chosen() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1), Pool::bundled("api", 1)]);
    prefork.done(&["restart", "web"]);
    let lines = |args: &[&str]| -> Vec<String> {
        let said = prefork.done(&[&["--output", "table", "events"], args].concat());
        said.lines().map(str::to_owned).collect()
    };
    let all = lines(&[]);
    for line in &all {
        let (at, rest) = line.split_at(24);
        let is_time = at.ends_with('Z') && at.as_bytes()[10] == b'T' && rest.starts_with("  ");
        assert!(is_time && !line.contains('{'), "{line}");
    }
    let of_web = lines(&["--pool", "web"]);
    assert!(!of_web.is_empty() && of_web.len() < all.len());
    assert!(
        of_web.iter().all(|line| line.contains("web/0")),
        "{of_web:?}"
    );
    let ready = lines(&["--pool", "api", "--kind", "ready"]);
    assert_eq!(ready.len(), 1, "{ready:?}");
    assert_eq!(lines(&["--since", "1h"]), all);
    assert_eq!(lines(&["--since", "3"]), all[2..]);
    // A program need not ask for what a program reads.
    let json = prefork.done(&["events", "--kind", "ready"]);
    assert_eq!(json.lines().count(), 3, "{json}");
    for line in json.lines() {
        let event: Event = serde_json::from_str(line).unwrap();
        assert_eq!(event.kind, "ready");
    }
    let asked = prefork.done(&["--output", "json", "events", "--kind", "ready"]);
    assert_eq!(json, asked);
}

#[test]
fn events_on_a_terminal_are_for_people() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let (ours, theirs) = terminal();
    let mut command = Command::new(binary());
    command
        .args(["events", "--kind", "ready"])
        .env("PREFORK_RUNTIME_DIR", prefork.runtime_dir())
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(theirs);
    let mut child = command.spawn().expect("it starts");
    // The terminal's other end is closed with it.
    drop(command);
    assert!(child.wait().expect("it is ours").success());
    let mut shown = Vec::new();
    // EIO is a terminal's way to say that nobody has it open.
    let _ = File::from(OwnedFd::from(ours)).read_to_end(&mut shown);
    let shown = String::from_utf8_lossy(&shown);
    let line = shown.lines().next().expect("a line");
    assert!(line.contains("web/0") && !line.contains('{'), "{line}");
}

#[test]
fn who_names_a_pool_on_a_terminal_is_asked_whether_all_of_it_is_meant() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let old = prefork.ready_pids("web");
    // The answer waits in the terminal until somebody reads it.
    let kill_web = |answer: &str, stderr: &str| {
        let (ours, theirs) = terminal();
        let mut keyboard = File::from(OwnedFd::from(ours));
        keyboard.write_all(answer.as_bytes()).expect("it is there");
        let script = format!("\"$@\" {stderr}; echo $? > code");
        let mut child = prefork.cli_in_terminal(&theirs, &script, &["kill", "web"]);
        child.wait().expect("it is our child");
        drop(theirs);
        let mut shown = Vec::new();
        // EIO is a terminal's way to say that nobody has it open.
        let _ = keyboard.read_to_end(&mut shown);
        let code = fs::read_to_string(prefork.dir().join("code")).expect("it has ended");
        (
            code.trim().to_owned(),
            String::from_utf8_lossy(&shown).into_owned(),
        )
    };
    let (code, shown) = kill_web("n\n", "");
    assert_eq!(code, "1", "{shown}");
    assert!(
        shown.contains("kill all 2 workers of web? [y/N] "),
        "{shown}"
    );
    assert!(shown.contains("nothing was done"), "{shown}");
    // Nobody sees a question that goes to a file.
    assert_eq!(kill_web("y\n", "2> said").0, "2");
    assert_eq!(prefork.ready_pids("web"), old);
    let (code, shown) = kill_web("y\n", "");
    assert_eq!(code, "0", "{shown}");
    for (slot, pid) in (0..).zip(old) {
        prefork.replaced("web", slot, pid);
    }
}

/// What a shell's function offers after these words, as it prints it.
fn offered(shell: &str, script: &str, prefork: &Prefork) -> Option<Vec<String>> {
    let exists = Command::new(shell).arg("-c").arg("exit 0").status();
    if exists.is_err() {
        eprintln!("SKIPPED: {shell} is not installed");
        return None;
    }
    let mut command = Command::new(shell);
    let path = std::env::var("PATH").unwrap_or_default();
    let ours = binary();
    let directory = ours.parent().expect("it lies in one");
    command
        .args(["-c", script])
        .env("PATH", format!("{}:{path}", directory.display()))
        .env("HOME", prefork.dir())
        .env("PREFORK_RUNTIME_DIR", prefork.runtime_dir());
    let said = finish(&mut command, SOON);
    assert_eq!(said.code, 0, "{said:?}");
    Some(said.stdout.lines().map(str::to_owned).collect())
}

/// Has it know a command; the bundled web server has none, and refuses it.
fn tell_flush(prefork: &Prefork) {
    assert_eq!(prefork.cli(&["tell", "web", "flush"]).code, 1);
}

/// Whether its runtime directory is one of these.
fn is_among(directories: &str, prefork: &Prefork) -> bool {
    let own = prefork.runtime_dir();
    directories.split(' ').any(|it| Path::new(it) == own)
}

#[test]
fn zsh_completes_the_same() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2), Pool::bundled("api", 1)]);
    // Names come by compadd, and everything else from clap's function.
    let script = r#"
        compdef() { :; }
        eval "$(prefork completions zsh)"
        compadd() { print -r -- "${(P)2}"; }
        _prefork_words() { print "clap"; }
        after() { words=("$@"); CURRENT=$#; _prefork; }
        after prefork kill ""
        after prefork --timeout 1s restart ""
        after prefork kill --all ""
        after prefork scale ""
        after prefork events --pool ""
        after prefork tell web ""
        after prefork --runtime-dir ""
        after prefork kill --
        after prefork sta
    "#;
    tell_flush(&prefork);
    let Some(mut lines) = offered("zsh", script, &prefork) else {
        return;
    };
    let expected = [
        "web/0 web/1 api/0",
        "web web/0 web/1 api api/0",
        "web api",
        "web api",
        "web api",
        "flush",
        "clap",
        "clap",
        "clap",
    ];
    // Those of other tests run, too.
    let directories = lines.remove(6);
    assert!(is_among(&directories, &prefork), "{directories}");
    assert_eq!(lines, expected);
}

#[test]
fn fish_completes_the_same() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2), Pool::bundled("api", 1)]);
    let script = r#"
        prefork completions fish | source
        for line in "kill " "restart w" "kill --all " "scale a" "events --pool " "tell web " "--runtime-dir "
            string join " " -- (complete -C "prefork $line" | string split -f1 \t)
        end
    "#;
    tell_flush(&prefork);
    let Some(mut lines) = offered("fish", script, &prefork) else {
        return;
    };
    let directories = lines.pop().expect("a line");
    assert!(is_among(&directories, &prefork), "{directories}");
    let expected = [
        "api/0 web/0 web/1",
        "web web/0 web/1",
        "api web",
        "api",
        "api web",
        "flush",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_shell_completes_the_pools_and_workers_that_there_are() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2), Pool::bundled("api", 1)]);
    let script = r#"
        eval "$("$0" completions bash)"
        prefork() { "$BINARY" "$@"; }
        complete_words() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _prefork_with_names prefork "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[*]}"
        }
        complete_words prefork kill ""
        complete_words prefork restart w
        complete_words prefork kill --all ""
        complete_words prefork scale a
        complete_words prefork events --pool ""
        complete_words prefork tell web ""
        complete_words prefork kill --
        complete_words prefork sta
        complete_words prefork --runtime-dir ""
        complete_words prefork run --config pref
    "#;
    tell_flush(&prefork);
    std::fs::write(prefork.dir().join("prefix.toml"), "").expect("it is ours");
    let mut bash = Command::new("bash");
    bash.args(["-c", script])
        .arg(binary())
        .env("BINARY", binary())
        .current_dir(prefork.dir())
        .env("PREFORK_RUNTIME_DIR", prefork.runtime_dir());
    let said = finish(&mut bash, SOON);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines.len(), 10, "{said:?}");
    assert_eq!(
        &lines[..6],
        [
            "web/0 web/1 api/0",
            "web web/0 web/1",
            "web api",
            "api",
            "web api",
            "flush"
        ],
        "{said:?}"
    );
    assert!(lines[6].contains("--all"), "{said:?}");
    assert_eq!(lines[7], "status");
    assert!(is_among(lines[8], &prefork), "{said:?}");
    assert!(lines[9].contains("prefix.toml"), "{said:?}");
}
