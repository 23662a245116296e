//! Who says that it is a worker that comes back, and is not, is refused and counted.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, cli};

/// What tells [`somebody_else_knocks`] where, and what to say.
const DOOR: &str = "KNOCK_AT";
const WORDS: &str = "KNOCK_WORDS";

fn door(prefork: &Prefork) -> PathBuf {
    prefork.runtime_dir().join("rejoin.sock")
}

/// The secret that the workers know.
fn secret(prefork: &Prefork) -> String {
    let state = fs::read(prefork.runtime_dir().join("state.json"));
    let state = state.expect("the state is there");
    let state: Value = serde_json::from_slice(&state).expect("it is JSON");
    state["secret"].as_str().expect("it has one").to_owned()
}

/// What the process `pid` would say to come back to `web/0`.
fn rejoin(secret: &str, pid: i32) -> String {
    let rejoin = json!({
        "type": "rejoin", "protocol": 1, "secret": secret, "pid": pid, "pool": "web", "slot": 0,
        "generation": 1, "incarnation": 1, "program": "p", "version": "1", "listeners": 0,
        "state": "ready",
    });
    format!("{rejoin}\n")
}

fn knock(door: &Path, words: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(door)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(words.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[track_caller]
fn refused_for(prefork: &Prefork, reason: &str) {
    eventually("it is counted", PATIENCE, || {
        let metric = "prefork_rejoins_refused_total";
        prefork.metric(metric, &[("reason", reason)]) == 1.0 && prefork.metric(metric, &[]) == 1.0
    });
}

#[test]
fn a_wrong_secret_is_refused() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let mut wrong = secret(&prefork);
    wrong.pop();
    let us = std::process::id().try_into().unwrap();
    let answer = knock(&door(&prefork), &rejoin(&wrong, us)).unwrap();
    assert!(answer.contains("secret is wrong"), "{answer}");
    refused_for(&prefork, "secret");
}

#[test]
fn a_slot_that_is_taken_is_not_given_to_another() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let worker = prefork.ready_pid("web", 0);
    let us = std::process::id().try_into().unwrap();
    let answer = knock(&door(&prefork), &rejoin(&secret(&prefork), us)).unwrap();
    assert!(answer.contains("web/0 is taken"), "{answer}");
    refused_for(&prefork, "taken");
    assert_eq!(prefork.ready_pid("web", 0), worker);
}

#[test]
#[ignore = "is what another process does for the test below"]
fn somebody_else_knocks() {
    let (Ok(door), Ok(words)) = (std::env::var(DOOR), std::env::var(WORDS)) else {
        return;
    };
    println!("{:?}", knock(Path::new(&door), &words));
}

/// What a process of another user hears that says this.
fn as_nobody(prefork: &Prefork, words: &str) -> String {
    // This very program, where that user can run it.
    let program = prefork.dir().join("stranger");
    if !program.exists() {
        let this = std::env::current_exe().expect("it has a file");
        cli::install(&this, &program);
    }
    let mut command = Command::new(program);
    command
        .args(["--exact", "recovery::rejoin_socket::somebody_else_knocks"])
        .args(["--ignored", "--nocapture"])
        .env(DOOR, door(prefork))
        .env(WORDS, words)
        .current_dir("/")
        .uid(65534)
        .gid(65534);
    let output = cli::finish(&mut command, Duration::from_secs(30));
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout
}

#[test]
fn another_user_does_not_reach_the_door_and_is_refused_where_it_does() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can come as another user");
        return;
    }
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let worker = prefork.ready_pid("web", 0);
    let words = rejoin(&secret(&prefork), worker);
    let heard = as_nobody(&prefork, &words);
    assert!(heard.contains("PermissionDenied"), "{heard}");

    for (path, mode) in [(prefork.runtime_dir(), 0o755), (door(&prefork), 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let heard = as_nobody(&prefork, &words);
    assert!(heard.contains("refused"), "{heard}");
    refused_for(&prefork, "peer");
    prefork.logged(&["65534", "is refused"]);
    assert_eq!(prefork.ready_pid("web", 0), worker);
}

/// Connects as nobody as often as it can, and keeps what it gets.
fn crowd(door: &Path, most: usize) -> Vec<UnixStream> {
    (0..most)
        .map_while(|_| UnixStream::connect(door).ok())
        .collect()
}

#[test]
fn idle_strangers_at_the_door_keep_no_worker_from_coming_back() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let workers = prefork.ready_pids("web");
    prefork.scrape();
    prefork.killed();
    // There before it listens again, and as soon as it does.
    let path = door(&prefork);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut crowds = Vec::new();
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                crowds.push(crowd(&path, 100));
                crowds.truncate(8);
                std::thread::yield_now();
            }
        });
        prefork.start_again();
        prefork.wait_until_ready();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(prefork.ready_pids("web"), workers);
}

#[test]
fn who_is_not_awaited_is_sent_away_and_floods_no_log() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let before = prefork.log().lines().count();
    let began = std::time::Instant::now();
    let idle = crowd(&door(&prefork), 2_000);
    for mut stream in idle {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("it is not zero");
        let mut heard = Vec::new();
        // Closed with or without a word.
        let _ = stream.read_to_end(&mut heard);
    }
    let seconds = began.elapsed().as_secs() as usize + 2;
    let log = prefork.log();
    let said = log.lines().skip(before);
    let said = said.filter(|line| line.contains("came to rejoin")).count();
    assert!((1..=seconds).contains(&said), "{said} lines in {seconds} s");
    eventually("all are counted", PATIENCE, || {
        prefork.metric("prefork_rejoins_refused_total", &[]) >= 2_000.0
    });
}
