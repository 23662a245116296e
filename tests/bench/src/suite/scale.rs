//! The supervisor with many workers, and the fleet alone with very many.

mod fleet;

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::figures::Spread;
use crate::prefork::{self, PREFORK};
use crate::process::{self, Process};
use crate::report::{Bound, Cell, Report, Table, Target};
use crate::role::{self, Role};
use crate::server::Server;

/// A scrape may use what the one before it has looked up in /proc, for half a
/// second; Prometheus never comes so soon.
const BETWEEN_SCRAPES: Duration = Duration::from_millis(600);

/// How long as many reporters as workers may take to start.
const BOOT: Duration = Duration::from_secs(30);

/// What was measured of one supervisor.
struct Figures {
    workers: usize,
    boot_seconds: f64,
    resident_mib: f64,
    idle_percent: Spread,
    bare_idle_percent: Spread,
    control_ms: Spread,
    status_ms: Spread,
    tell_ms: Spread,
    by_pool: Scrape,
    by_slot: Scrape,
}

/// A scrape, by one of the two details.
struct Scrape {
    ms: Spread,
    kib: f64,
    /// Of the supervisor, afterwards.
    resident_mib: f64,
}

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::default();
    let sizes = bench.pick(&[2, 10, 64, 100, 1000][..], &[2, 10][..]);
    let mut all = Vec::new();
    for workers in sizes.iter().copied() {
        all.push(measure(bench, workers)?);
    }
    report.tables.push(supervisors(&all));
    report.tables.push(scrapes(&all));
    report.tables.push(growth(&all));
    report.targets = targets(all.iter().find(|figures| figures.workers == 1000));
    bench.doing("the fleet alone");
    report.tables.push(fleet::table(bench));
    report.note(
        "The workers do nothing but report once a second each. Times are those of the client, \
         which connects anew each time; `tell` is the command line's, its start included. The bare loop \
         reads the same messages from as many processes, asks as often, and keeps nothing of it.",
    );
    Ok(report)
}

fn start(bench: &Bench, workers: usize, detail: &str) -> Result<Server> {
    bench.doing(format!("{workers} workers, metrics by {detail}: boot"));
    let more = format!("boot_timeout = \"120s\"\n[metrics]\ndetail = \"{detail}\"");
    let server = Server::start(&PREFORK, &bench.prefork, workers, &more)?;
    prefork::all_ready(&server)?;
    Ok(server)
}

fn measure(bench: &Bench, workers: usize) -> Result<Figures> {
    let begun = Instant::now();
    let mut server = start(bench, workers, "pool")?;
    let boot_seconds = begun.elapsed().as_secs_f64();
    let master = server.master().pid();
    bench.doing(format!("{workers} workers: idle"));
    let idle_percent = idle(bench, master)?;
    bench.doing(format!("{workers} workers: questions"));
    let resident_mib = mib(process::resident(master));
    let times = bench.pick(10, 3);
    let control_ms = timed(times, || prefork::control(&server, "/v1/livez").map(drop))?;
    let status_ms = timed(times, || prefork::control(&server, "/v1/status").map(drop))?;
    let tell = || prefork::run(&server, &["tell", "web", "repeat", "1"]).map(drop);
    let tell_ms = timed(times, tell)?;
    let by_pool = scrape(bench, &mut server)?;
    drop(server);
    let bare_idle_percent = bare(bench, workers)?;
    let by_slot = scrape(bench, &mut start(bench, workers, "slot")?)?;
    Ok(Figures {
        workers,
        boot_seconds,
        resident_mib,
        idle_percent,
        bare_idle_percent,
        control_ms,
        status_ms,
        tell_ms,
        by_pool,
        by_slot,
    })
}

fn scrape(bench: &Bench, server: &mut Server) -> Result<Scrape> {
    bench.doing("scrapes");
    let mut took = vec![];
    let mut bytes = 0;
    for _ in 0..bench.pick(6, 2) {
        std::thread::sleep(BETWEEN_SCRAPES);
        let begun = Instant::now();
        bytes = prefork::admin(server, "/metrics")?.len();
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Scrape {
        ms: Spread::of(took).context("nothing was scraped")?,
        kib: bytes as f64 / 1024.0,
        resident_mib: mib(process::resident(server.master().pid())),
    })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Per cent of one processor that a process takes.
fn idle(bench: &Bench, pid: i32) -> Result<Spread> {
    // What the boot has left to do is no idle time.
    std::thread::sleep(bench.pick(Duration::from_secs(3), Duration::from_millis(300)));
    let during = bench.pick(Duration::from_secs(3), Duration::from_millis(500));
    let percent = (0..bench.pick(3, 2)).map(|_| {
        let before = process::cpu(pid);
        std::thread::sleep(during);
        let took = process::cpu(pid).saturating_sub(before);
        100.0 * took.as_secs_f64() / during.as_secs_f64()
    });
    Spread::of(percent).context("it was looked at")
}

/// The same of a loop that does nothing but read what as many processes say.
fn bare(bench: &Bench, reporters: usize) -> Result<Spread> {
    bench.doing(format!("{reporters} reporters to a bare loop: idle"));
    let mut command = role::command(Role::ReporterPool, Stdio::null())?;
    command.arg(reporters.to_string());
    let pool = Process::start(command)?;
    let begun = Instant::now();
    while process::children_of(pool.pid()).len() < reporters {
        ensure!(begun.elapsed() < BOOT, "the reporters do not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    idle(bench, pool.pid())
}

/// Milliseconds that each answer took.
fn timed(times: usize, ask: impl Fn() -> Result<()>) -> Result<Spread> {
    let mut took = vec![];
    for _ in 0..times {
        let begun = Instant::now();
        ask()?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Spread::of(took).context("nothing was asked")
}

fn supervisors(all: &[Figures]) -> Table {
    let mut table = Table::new(
        "The supervisor, by number of workers",
        &[
            "workers",
            "boot s",
            "resident MiB",
            "idle CPU %",
            "of a bare loop",
            "control round trip ms",
            "/v1/status ms",
            "tell to all ms",
        ],
    );
    for figures in all {
        let ms = |spread| Cell::Spread(Some(spread), 1);
        table.row([
            figures.workers.into(),
            Cell::Number(figures.boot_seconds, 2),
            Cell::Number(figures.resident_mib, 1),
            Cell::Spread(Some(figures.idle_percent), 2),
            Cell::Spread(Some(figures.bare_idle_percent), 2),
            ms(figures.control_ms),
            ms(figures.status_ms),
            ms(figures.tell_ms),
        ]);
    }
    table
}

fn scrapes(all: &[Figures]) -> Table {
    let mut table = Table::new(
        "A scrape of /metrics",
        &["workers", "by", "ms", "KiB", "resident MiB afterwards"],
    );
    for figures in all {
        for (detail, scrape) in [("slot", &figures.by_slot), ("pool", &figures.by_pool)] {
            table.row([
                figures.workers.into(),
                detail.into(),
                Cell::Spread(Some(scrape.ms), 1),
                Cell::Number(scrape.kib, 0),
                Cell::Number(scrape.resident_mib, 1),
            ]);
        }
    }
    table
}

/// What ten times as many workers cost.
fn growth(all: &[Figures]) -> Table {
    let mut table = Table::new(
        "How it grows: the figure of so many workers over that of a tenth",
        &[
            "workers",
            "resident",
            "idle CPU",
            "control round trip",
            "/v1/status",
            "tell to all",
            "/metrics by slot",
            "/metrics by pool",
        ],
    );
    for more in all {
        let tenth = all.iter().find(|few| few.workers * 10 == more.workers);
        let Some(tenth) = tenth else { continue };
        let ratio = |of: fn(&Figures) -> f64| Cell::Number(of(more) / of(tenth), 1);
        table.row([
            more.workers.into(),
            ratio(|it| it.resident_mib),
            ratio(|it| it.idle_percent.median),
            ratio(|it| it.control_ms.median),
            ratio(|it| it.status_ms.median),
            ratio(|it| it.tell_ms.median),
            ratio(|it| it.by_slot.ms.median),
            ratio(|it| it.by_pool.ms.median),
        ]);
    }
    table
}

/// Of a supervisor with a thousand workers, if there was one.
fn targets(thousand: Option<&Figures>) -> Vec<Target> {
    vec![
        Target {
            what: "resident memory of a supervisor with 1,000 workers, MiB",
            bound: Bound::AtMost(40.0),
            measured: thousand.and_then(|it| Spread::of([it.resident_mib])),
        },
        Target {
            what: "idle CPU of a supervisor with 1,000 workers, % of a core",
            bound: Bound::AtMost(2.0),
            measured: thousand.map(|it| it.idle_percent),
        },
        Target {
            what: "/metrics of 1,000 workers by pool, ms",
            bound: Bound::AtMost(50.0),
            measured: thousand.map(|it| it.by_pool.ms),
        },
    ]
}
