//! Requests per second, latency and processor time per request.

mod alone;
mod downloads;

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::figures::Spread;
use crate::load::{Clients, HELLO, Page};
use crate::peer;
use crate::prefork::{BARE, PREFORK};
use crate::report::{Bound, Cell, Report, Table, Target};
use crate::server::Server;

/// The setting that the targets are about.
const TARGET: Setting = Setting {
    connections: 32,
    keep_alive: true,
    page: HELLO,
};

/// One way to ask.
#[derive(Debug, Clone, Copy)]
struct Setting {
    connections: usize,
    keep_alive: bool,
    page: Page,
}

impl Setting {
    fn is_the_targets(self) -> bool {
        let Self {
            connections,
            keep_alive,
            page,
        } = TARGET;
        (self.connections, self.keep_alive, self.page.path) == (connections, keep_alive, page.path)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = if self.keep_alive {
            "kept alive"
        } else {
            "one request each"
        };
        write!(f, "{} connections, {kept}", self.connections)
    }
}

/// What one server did in one setting, a value per round.
#[derive(Debug, Default)]
struct Series {
    rate: Vec<f64>,
    cpu_us: Vec<f64>,
    client_us: Vec<f64>,
    latency_us: [Vec<f64>; 3],
    broken: u64,
    /// In one of the rounds it answered nothing: there is nothing to compare.
    silent: bool,
}

/// An answer of this many bytes takes long enough to want longer rounds.
const LARGE: usize = 1 << 20;

const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let workers = std::thread::available_parallelism()?.get();
    let mut servers = vec![
        Server::start(&BARE, &bench.prefork, workers, "")?,
        Server::start(&PREFORK, &bench.prefork, workers, "")?,
    ];
    let (peers, missing) = peer::start_all(&bench.prefork, workers);
    servers.extend(peers);

    let mut report = Report::default();
    let settings = bench.pick(&[1, 32, 256][..], &[32][..]).iter();
    for connections in settings.copied() {
        for keep_alive in [true, false] {
            let setting = Setting {
                connections,
                keep_alive,
                page: HELLO,
            };
            let series = measure(bench, &servers, setting)?;
            if setting.is_the_targets() {
                report.targets.push(against_nginx(&servers, &series));
            }
            if setting.connections == TARGET.connections && !keep_alive {
                report.targets.push(one_request_each(&servers, &series));
            }
            let title = setting.to_string();
            report.tables.push(table(&servers, &series, title));
        }
    }
    drop(servers);
    alone::measure(bench, &mut report)?;
    downloads::measure(bench, workers, &mut report)?;
    report.note(format!(
        "{workers} workers each, where it does not say one; the clients share the processors with \
         the servers, \"client CPU\" is what they took of them. The bare epoll loop answers without \
         reading what it is asked: what it takes is the kernel's share."
    ));
    for why in missing {
        report.note(why);
    }
    Ok(report)
}

fn measure(bench: &Bench, servers: &[Server], setting: Setting) -> Result<Vec<Series>> {
    let mut all: Vec<Series> = servers.iter().map(|_| Series::default()).collect();
    // Many short rounds: what else the machine does then falls on a few of
    // them, or on both sides of the ratio.
    let duration = Duration::from_millis(bench.pick(200, 100));
    let duration = if setting.page.body.len() < LARGE {
        duration
    } else {
        4 * duration
    };
    let rounds = if setting.is_the_targets() { 21 } else { 9 };
    for round in 0..bench.pick(rounds, 3) {
        for (server, series) in servers.iter().zip(&mut all) {
            bench.doing(format!("{}, {setting}, round {round}", server.name()));
            if !series.silent {
                ask(server, setting, duration, series)?;
            }
            let is_ours = [BARE.name, PREFORK.name].contains(&server.name());
            ensure!(
                !(is_ours && series.silent),
                "{} served nothing",
                server.name()
            );
        }
    }
    Ok(all)
}

fn ask(server: &Server, setting: Setting, duration: Duration, series: &mut Series) -> Result<()> {
    let clients = Clients {
        keep_alive: setting.keep_alive,
        page: setting.page,
        ..Clients::eager(server.site().address, setting.connections)
    };
    clients.ask_for(duration / 5)?;
    let before = server.cpu();
    let outcome = clients.ask_for(duration)?;
    let cpu = server.cpu().saturating_sub(before);
    if outcome.served == 0 {
        series.silent = true;
        return Ok(());
    }
    let per_request = |time: Duration| time.as_secs_f64() * 1e6 / outcome.served as f64;
    series.rate.push(outcome.rate());
    series.cpu_us.push(per_request(cpu));
    series.client_us.push(per_request(outcome.client_cpu));
    series.broken += outcome.broken_count();
    for (values, quantile) in series.latency_us.iter_mut().zip(QUANTILES) {
        values.push(outcome.latency_us(quantile));
    }
    Ok(())
}

/// What each server did, against the first of them.
fn table(servers: &[Server], all: &[Series], title: String) -> Table {
    let first = servers.first().map_or("", Server::name);
    let mut table = Table::new(
        title,
        &[
            "server",
            "requests/s",
            "CPU µs/request",
            &format!("CPU against {first}"),
            &format!("requests/s against {first}"),
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "client CPU µs/request",
            "broken",
        ],
    );
    for (server, series) in servers.iter().zip(all) {
        if series.silent {
            let mut row = vec![server.name().into(), "served nothing".into()];
            row.resize_with(10, || "".into());
            table.row(row);
            continue;
        }
        let latency =
            |index: usize| Cell::Spread(Spread::of(series.latency_us[index].iter().copied()), 0);
        let spread =
            |values: &[f64], digits| Cell::Spread(Spread::of(values.iter().copied()), digits);
        let ratio = |over: &[f64], under: &[f64]| Cell::Spread(Spread::of_ratios(over, under), 2);
        table.row([
            server.name().into(),
            spread(&series.rate, 0),
            spread(&series.cpu_us, 1),
            ratio(&series.cpu_us, &all[0].cpu_us),
            ratio(&series.rate, &all[0].rate),
            latency(0),
            latency(1),
            latency(2),
            spread(&series.client_us, 1),
            series.broken.into(),
        ]);
    }
    table
}

/// Of the servers of one worker: the bare loop, and prefork.
fn processor_time(all: &[Series]) -> Target {
    Target {
        what: "CPU per request of a worker against a bare hyper loop",
        bound: Bound::AtMost(1.05),
        measured: Spread::of_ratios(&all[1].cpu_us, &all[0].cpu_us),
    }
}

fn one_request_each(servers: &[Server], all: &[Series]) -> Target {
    let index = servers.iter().position(|server| server.name() == "nginx");
    Target {
        what: "CPU of a connection with one request against nginx",
        bound: Bound::AtMost(1.1),
        measured: index.and_then(|nginx| Spread::of_ratios(&all[1].cpu_us, &all[nginx].cpu_us)),
    }
}

fn against_nginx(servers: &[Server], all: &[Series]) -> Target {
    let index = servers.iter().position(|server| server.name() == "nginx");
    Target {
        what: "requests per second against nginx",
        bound: Bound::AtLeast(1.0),
        measured: index.and_then(|nginx| Spread::of_ratios(&all[1].rate, &all[nginx].rate)),
    }
}
