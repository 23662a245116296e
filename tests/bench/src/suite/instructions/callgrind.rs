//! One role under callgrind.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::load::ask_once;
use crate::process::Process;
use crate::role::{Role, command};
use crate::scratch;

/// Everything is slower by two orders of magnitude under valgrind.
const PATIENCE: Duration = Duration::from_secs(60);

/// Instructions of a whole run with so many repetitions.
pub(super) fn count(role: Role, times: usize) -> Result<u64> {
    let dir = scratch::dir()?;
    match role {
        Role::Worker | Role::Peerless | Role::Bare => count_served(role, times, &dir),
        _ => {
            let mut run = under_callgrind(role, Stdio::null(), &dir)?;
            run.arg(times.to_string());
            let mut process = Process::start(run)?;
            ended(&mut process)?;
            total(&dir)
        }
    }
}

fn count_served(role: Role, times: usize, dir: &TempDir) -> Result<u64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let stdin = if role == Role::Bare {
        Stdio::from(OwnedFd::from(listener))
    } else {
        drop(listener);
        Stdio::null()
    };
    let mut run = under_callgrind(role, stdin, dir)?;
    // A worker alone, without a supervisor, binds its own.
    run.env("PREFORK_LISTEN", address.to_string());
    let mut process = Process::start(run)?;
    ask(address, times)?;
    process.signal(Signal::SIGTERM)?;
    ended(&mut process)?;
    total(dir)
}

fn under_callgrind(role: Role, stdin: Stdio, dir: &TempDir) -> Result<Command> {
    let bare = command(role, Stdio::null())?;
    let mut run = Command::new("valgrind");
    let out = dir.path().join("out");
    run.arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(bare.get_program())
        .args(bare.get_args())
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.path().join("log"))?);
    Ok(run)
}

/// Asks so many times on one connection, as soon as there is a server.
fn ask(address: std::net::SocketAddr, times: usize) -> Result<()> {
    let begun = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => ensure!(begun.elapsed() < PATIENCE, "no server: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    for _ in 0..times {
        ask_once(&mut stream)?;
    }
    Ok(())
}

fn ended(process: &mut Process) -> Result<()> {
    let begun = Instant::now();
    while process.is_alive() {
        ensure!(begun.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What callgrind says it has counted.
fn total(dir: &TempDir) -> Result<u64> {
    let log = fs::read_to_string(dir.path().join("log"))?;
    let line = log.lines().find_map(|line| line.split_once("Collected :"));
    let (_, number) = line.with_context(|| format!("callgrind counted nothing: {log}"))?;
    Ok(number.trim().parse()?)
}
