//! Capacity that is kept: answers in the worst tenth of a second of what is done to a
//! server, against those in a tenth of a second before.

use anyhow::{Context, Result};

use super::disruption::{Deed, commit, is_available};
use crate::bench::Bench;
use crate::figures::{Spread, quantile};
use crate::load::{Clients, SLICE};
use crate::peer;
use crate::prefork::PREFORK;
use crate::report::{Bound, Cell, Report, Table, Target};
use crate::server::{Blueprint, Server};

const CONNECTIONS: usize = 32;
const WORKERS: usize = 2;

const DEEDS: [Deed; 3] = [Deed::Reload, Deed::Upgrade, Deed::KillWorker];

/// Slices before the deed, the first of which connections are opened in, and after it.
const BEFORE: u32 = 12;
const OPENING: usize = 2;
const AFTER: u32 = 4;

/// What a server did in one round, in answers for each slice.
#[derive(Debug, Clone, Copy)]
struct Kept {
    before: f64,
    worst: f64,
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
            "answers in 100 ms before",
            "in the worst 100 ms",
            "kept",
        ],
    );
    let (servers, missing) = peer::beside(&PREFORK);
    missing.into_iter().for_each(|it| report.note(it));
    for blueprint in servers {
        for deed in DEEDS {
            let name = format!("{}: {deed:?}", blueprint.name);
            bench.doing(name.clone());
            match rounds(bench, blueprint, deed) {
                Ok(None) => report.note(format!("{name}: not offered")),
                Ok(Some(rounds)) => {
                    let kept = Spread::of(rounds.iter().map(|it| it.worst / it.before));
                    if blueprint.name == PREFORK.name && deed == Deed::Reload {
                        report.targets.push(target(kept));
                    }
                    table.row(row(blueprint.name, deed, &rounds, kept));
                }
                Err(error) if blueprint.name == PREFORK.name => return Err(error.context(name)),
                Err(error) => report.note(format!("{name}: {error:#}")),
            }
        }
    }
    report.tables.push(table);
    report.note(
        "The clients leave the processors room: what shows is who is not answered, and not what \
         starting a process takes.",
    );
    Ok(report)
}

fn target(measured: Option<Spread>) -> Target {
    Target {
        what: "answers in the worst 100 ms of a reload against before",
        bound: Bound::AtLeast(0.9),
        measured,
    }
}

fn row(server: &str, deed: Deed, rounds: &[Kept], kept: Option<Spread>) -> Vec<Cell> {
    let of = |value: fn(&Kept) -> f64| Cell::Spread(Spread::of(rounds.iter().map(value)), 0);
    vec![
        server.into(),
        format!("{deed:?}").into(),
        rounds.len().into(),
        of(|it| it.before),
        of(|it| it.worst),
        Cell::Spread(kept, 2),
    ]
}

/// `None` if that server can't do it.
fn rounds(bench: &Bench, blueprint: &'static Blueprint, deed: Deed) -> Result<Option<Vec<Kept>>> {
    let mut server = Server::start(blueprint, &bench.prefork, WORKERS, "")?;
    if !is_available(bench, &server, deed)? {
        return Ok(None);
    }
    let rounds = (0..bench.pick(5, 1)).map(|_| round(&mut server, deed));
    rounds.collect::<Result<_>>().map(Some)
}

fn round(server: &mut Server, deed: Deed) -> Result<Kept> {
    let clients = Clients::calm(server.site().address, CONNECTIONS).start();
    std::thread::sleep(SLICE * BEFORE);
    commit(server, deed)?;
    std::thread::sleep(SLICE * AFTER);
    let slices = clients.stop()?.slices;
    let of = |slices: &[u64]| slices.iter().map(|it| *it as f64).collect::<Vec<_>>();
    // The clients have begun a moment later than was waited for, so the last slice before
    // the deed may hold its beginning; and the last of all is not whole.
    let begun = BEFORE as usize - 1;
    let before = slices
        .get(OPENING..begun)
        .context("the clients ended early")?;
    let during = slices
        .get(begun..slices.len().saturating_sub(1))
        .context("the clients ended early")?;
    let before = quantile(&of(before), 0.5).filter(|median| *median > 0.0);
    Ok(Kept {
        before: before.context("nothing was answered before")?,
        worst: of(during).into_iter().fold(f64::INFINITY, f64::min),
    })
}
