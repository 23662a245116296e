//! What clients notice of the things that are done to a server.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::bench::Bench;
use crate::load::{Clients, Outcome};
use crate::peer;
use crate::prefork::PREFORK;
use crate::process;
use crate::report::{Cell, Report, Table};
use crate::server::{Blueprint, Order, Orders, Server};

const CONNECTIONS: usize = 32;
const WORKERS: usize = 2;

/// How long to wait until a signal has done what it is for.
const PATIENCE: Duration = Duration::from_secs(10);

/// After this long nothing is done once more: what takes a server ten seconds
/// is seen from once or twice as well.
const BUDGET: Duration = Duration::from_secs(10);

/// Requests before the first and after the last deed.
const MARGIN: Duration = Duration::from_millis(300);

/// What is done to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Reload,
    KillWorker,
    KillMaster,
    Upgrade,
    Scale,
}

const DEEDS: [Deed; 5] = [
    Deed::Reload,
    Deed::KillWorker,
    Deed::KillMaster,
    Deed::Upgrade,
    Deed::Scale,
];

/// What came of it.
struct Suffered {
    times: usize,
    outcome: Outcome,
    afterwards: String,
}

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::default();
    let mut table = Table::new(
        format!(
            "{CONNECTIONS} clients that keep their connections, never retry and ask every 2 ms"
        ),
        &[
            "server",
            "deed",
            "times",
            "answered",
            "broken",
            "how",
            "longest time without an answer, ms",
            "afterwards",
        ],
    );
    let (servers, missing) = peer::beside(&PREFORK);
    for blueprint in servers {
        for deed in DEEDS {
            bench.doing(format!("{}: {deed:?}", blueprint.name));
            table.row(row(bench, blueprint, deed));
        }
    }
    report.tables.push(table);
    missing.into_iter().for_each(|it| report.note(it));
    report.note(
        "What a killed worker had already accepted is lost with it in every server; the rest is not.",
    );
    report.note("After the master was killed, the same command was started again a second later.");
    Ok(report)
}

fn row(bench: &Bench, blueprint: &'static Blueprint, deed: Deed) -> Vec<Cell> {
    let times = match deed {
        Deed::KillMaster => 1,
        Deed::Upgrade => bench.pick(5, 1),
        _ => bench.pick(5, 2),
    };
    let mut cells: Vec<Cell> = vec![blueprint.name.into(), format!("{deed:?}").into()];
    match suffer(bench, blueprint, deed, times) {
        Ok(Some(Suffered {
            times,
            outcome,
            afterwards,
        })) => cells.extend([
            Cell::from(times),
            outcome.served.into(),
            outcome.broken_count().into(),
            outcome.broken_list().into(),
            Cell::Number(outcome.longest_gap.as_secs_f64() * 1e3, 1),
            afterwards.into(),
        ]),
        Ok(None) if blueprint.name == PREFORK.name => {
            cells.push("not available in this version".into());
        }
        Ok(None) => cells.push("not offered".into()),
        Err(error) => cells.extend([times.into(), "failed".into(), format!("{error:#}").into()]),
    }
    cells.resize(8, "".into());
    cells
}

/// Does it to a fresh server under load; `None` if that server can't do it.
fn suffer(
    bench: &Bench,
    blueprint: &'static Blueprint,
    deed: Deed,
    times: usize,
) -> Result<Option<Suffered>> {
    let mut server = Server::start(blueprint, &bench.prefork, WORKERS, "")?;
    if !is_available(bench, &server, deed)? {
        return Ok(None);
    }
    let clients = Clients::calm(server.site().address, CONNECTIONS).start();
    std::thread::sleep(MARGIN);
    let mut afterwards = String::new();
    let begun = Instant::now();
    let mut done = 0;
    while done < times && begun.elapsed() < BUDGET {
        afterwards = commit(&mut server, deed)?;
        done += 1;
        if !server.master().is_alive() {
            break;
        }
    }
    std::thread::sleep(MARGIN);
    let outcome = clients.stop()?;
    Ok(Some(Suffered {
        times: done,
        outcome,
        afterwards,
    }))
}

/// Whether this server can do it.
pub(super) fn is_available(bench: &Bench, server: &Server, deed: Deed) -> Result<bool> {
    let orders = server.orders();
    let order = match deed {
        Deed::Reload => orders.reload,
        Deed::Upgrade => orders.upgrade,
        Deed::Scale => orders.grow,
        Deed::KillWorker | Deed::KillMaster => return Ok(true),
    };
    match (order, deed) {
        (Some(Order::Command(_)), Deed::Reload) => bench.has_command("reload"),
        (Some(Order::Command(_)), Deed::Upgrade) => bench.has_command("upgrade"),
        (order, _) => Ok(order.is_some()),
    }
}

/// Does it once, and says what there is to say of the server then.
pub(super) fn commit(server: &mut Server, deed: Deed) -> Result<String> {
    let orders: Orders = server.orders();
    let before = server.workers();
    match deed {
        Deed::Reload => give(server, orders.reload)?,
        Deed::Upgrade => give(server, orders.upgrade)?,
        Deed::Scale => {
            give(server, orders.grow)?;
            let grown = settled(|| server.workers().len() > before.len());
            give(server, orders.shrink)?;
            let shrunk = settled(|| server.workers().len() <= before.len());
            return Ok(said(grown && shrunk, "scaled", "not scaled"));
        }
        Deed::KillWorker => return kill_worker(server, &before),
        Deed::KillMaster => return kill_master(server),
    }
    let replaced = settled(|| {
        let now = server.workers();
        now.len() >= before.len() && !before.iter().any(|pid| now.contains(pid))
    });
    // An upgrade keeps the workers.
    let done = replaced || deed == Deed::Upgrade;
    Ok(said(done, "done", "the old workers are still there"))
}

fn kill_worker(server: &mut Server, before: &[i32]) -> Result<String> {
    let Some(victim) = before.first() else {
        return Ok("no worker".to_owned());
    };
    process::send(*victim, Signal::SIGKILL)?;
    let mut replaced = false;
    settled(|| {
        let now = server.workers();
        replaced = !now.contains(victim) && now.len() >= before.len();
        replaced || !server.master().is_alive()
    });
    if !server.master().is_alive() {
        return Ok("the whole server has ended".to_owned());
    }
    Ok(said(replaced, "replaced", "not replaced"))
}

fn kill_master(server: &mut Server) -> Result<String> {
    server.master().kill_alone()?;
    std::thread::sleep(Duration::from_secs(1));
    let came_up = server.start_again()?;
    Ok(said(
        came_up,
        "the new master serves",
        "the new master does not come up",
    ))
}

fn give(server: &mut Server, order: Option<Order>) -> Result<()> {
    order.map_or(Ok(()), |order| server.obey(order))
}

fn said(yes: bool, this: &str, that: &str) -> String {
    if yes { this } else { that }.to_owned()
}

/// Whether it came to be in time.
fn settled(mut state: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if state() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
