//! Instructions of the two hottest paths, counted by callgrind: a request, and
//! a `health` report over the channel. Unlike times, they are the same in
//! every run, so that a regression shows on any machine.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::bench::Bench;
use crate::figures::Spread;
use crate::load::BODY;
use crate::process::Process;
use crate::report::{Bound, Cell, Report, Table, Target};
use crate::role::{Role, command};
use crate::scratch;

/// Everything is slower by two orders of magnitude under valgrind.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::default();
    if Command::new("valgrind").arg("--version").output().is_err() {
        report.note("valgrind: not installed");
        return Ok(report);
    }
    let (few, many) = bench.pick((1000, 11_000), (100, 600));
    let mut table = Table::new(
        format!("Instructions in user space, from {few} to {many} repetitions"),
        &["what", "instructions each", "ratio"],
    );
    let mut ratio = |name: &str, bare: Role, ours: Role| -> Result<Option<Spread>> {
        bench.doing(format!("callgrind: {name}"));
        let each = |role: Role| -> Result<f64> {
            let more = count(role, many)?.saturating_sub(count(role, few)?);
            Ok(more as f64 / (many - few) as f64)
        };
        let (bare_each, ours_each) = (each(bare)?, each(ours)?);
        for (role, each) in [(bare, bare_each), (ours, ours_each)] {
            let what = format!("{name}: {role:?}");
            let ratio = Cell::Number(each / bare_each, 3);
            table.row([what.into(), Cell::Number(each, 0), ratio]);
        }
        Ok(Spread::of([ours_each / bare_each]))
    };
    let request = ratio("request", Role::Bare, Role::Worker)?;
    let health = ratio("health", Role::CodecBare, Role::CodecChannel)?;
    report.tables.push(table);
    report.note("The kernel's part is not in it: the two sides make the same system calls.");
    report.targets = vec![
        Target {
            what: "user instructions per request against a bare hyper loop",
            bound: Bound::AtMost(1.15),
            measured: request,
        },
        Target {
            what: "user instructions per health report against serde alone",
            bound: Bound::AtMost(2.0),
            measured: health,
        },
    ];
    Ok(report)
}

/// Instructions of a whole run with so many repetitions.
fn count(role: Role, times: usize) -> Result<u64> {
    let dir = scratch::dir()?;
    match role {
        Role::Worker | Role::Bare => count_served(role, times, &dir),
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
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n")?;
        let mut answer = Vec::new();
        while !answer.ends_with(BODY.as_bytes()) {
            let mut buffer = [0; 1024];
            let length = stream.read(&mut buffer)?;
            ensure!(length > 0, "closed before the answer");
            answer.extend_from_slice(&buffer[..length]);
        }
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
