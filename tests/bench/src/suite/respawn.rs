//! From SIGKILL of a worker to its successor.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use prefork_api::Event;

use crate::bench::Bench;
use crate::figures::{Spread, quantile};
use crate::load::BODY;
use crate::prefork::{self, PREFORK};
use crate::process::{self, Process};
use crate::report::{Bound, Cell, Report, Table, Target};
use crate::role::{Role, command};
use crate::server::Server;

/// A worker that was ready this long is no crash loop, so that the next kill
/// is answered at once, as the first of a healthy worker is.
const POOL: &str = "backoff_reset = \"1ms\"\nbackoff_initial = \"10ms\"";

/// How long a successor may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let server = Server::start(&PREFORK, &bench.prefork, 1, POOL)?;
    let (rounds, times) = (bench.pick(10, 2), bench.pick(20, 3));
    let (mut bare, mut ready, mut answer) = (Vec::new(), Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    for round in 0..rounds {
        bench.doing(format!("round {round}"));
        let bare_now = bare_respawns(times)?;
        let mut ready_now = Vec::new();
        for _ in 0..times {
            let (until_ready, until_answer) = respawn(&server)?;
            ready_now.push(until_ready);
            answer.push(until_answer);
        }
        let medians = quantile(&ready_now, 0.5).zip(quantile(&bare_now, 0.5));
        ratios.extend(medians.map(|(ready, bare)| ready / bare));
        bare.extend(bare_now);
        ready.extend(ready_now);
    }
    let mut report = Report::default();
    let mut table = Table::new(
        format!("{} kills each", bare.len()),
        &["what", "p50 ms", "p99 ms"],
    );
    for (what, values) in [
        ("bare: kill, reap, socketpair, fork, exec, hello", &bare),
        ("prefork: kill to ready", &ready),
        ("prefork: kill to the first answer", &answer),
    ] {
        let at = |part| Cell::Number(quantile(values, part).unwrap_or(f64::NAN), 2);
        table.row([what.into(), at(0.5), at(0.99)]);
    }
    report.tables.push(table);
    report.targets.push(Target {
        what: "SIGKILL to the successor's ready against bare fork, exec and hello",
        bound: Bound::AtMost(3.0),
        measured: Spread::of(ratios),
    });
    Ok(report)
}

/// Milliseconds each time.
fn bare_respawns(times: usize) -> Result<Vec<f64>> {
    let mut command = command(Role::Nursery, Stdio::null())?;
    command.arg(times.to_string()).stdout(Stdio::piped());
    let mut nursery = Process::start(command)?;
    let stdout = nursery.child().stdout.take().context("it was piped")?;
    let lines = BufReader::new(stdout).lines();
    let values: Result<Vec<f64>> = lines.map(|line| Ok(line?.parse::<f64>()? / 1e6)).collect();
    let values = values?;
    ensure!(values.len() == times, "the bare children failed");
    Ok(values)
}

/// Milliseconds from the kill to `ready` and to the first answer.
fn respawn(server: &Server) -> Result<(f64, f64)> {
    let old = the_ready_one(server, None)?;
    let last = events(server)?.last().map_or(0, |event| event.seq);
    let killed_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let killed = Instant::now();
    process::send(old, Signal::SIGKILL)?;
    // It waits in the listener's queue until the successor accepts.
    ask(server.site().address)?;
    let until_answer = killed.elapsed().as_secs_f64() * 1e3;
    let new = the_ready_one(server, Some(old))?;
    let events = events(server)?.into_iter();
    let ready = events
        .filter(|event| event.seq > last && event.kind == "ready")
        .find(|event| event.pid == Some(new));
    let ready = ready.context("no event says that the successor is ready")?;
    Ok(((ready.at - killed_at) * 1e3, until_answer))
}

fn the_ready_one(server: &Server, other_than: Option<i32>) -> Result<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match prefork::ready(server)?.first() {
            Some(pid) if Some(*pid) != other_than => return Ok(*pid),
            _ => ensure!(Instant::now() < deadline, "no successor becomes ready"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn events(server: &Server) -> Result<Vec<Event>> {
    let text = prefork::control(server, "/v1/events")?;
    let lines = text.lines().filter(|line| line.starts_with('{'));
    Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn ask(address: SocketAddr) -> Result<()> {
    // A connection that the killed worker had already accepted is reset.
    loop {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        if stream.read_to_string(&mut answer).is_ok() && answer.ends_with(BODY) {
            return Ok(());
        }
    }
}
