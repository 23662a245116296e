//! The supervisor with many workers, and the fleet alone with very many.

mod fleet;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench::Bench;
use crate::figures::Spread;
use crate::prefork::{self, PREFORK};
use crate::process;
use crate::report::{Bound, Cell, Report, Table, Target};
use crate::server::Server;

/// What was measured of one supervisor.
struct Figures {
    boot_seconds: f64,
    resident_mib: f64,
    idle_percent: f64,
    metrics_ms: Spread,
    metrics_kib: f64,
    status_ms: Spread,
    live_ms: Spread,
    tell_ms: Spread,
}

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::default();
    let mut table = Table::new(
        "The supervisor, by number of workers",
        &[
            "workers",
            "metrics by",
            "boot s",
            "resident MiB",
            "idle CPU %",
            "/metrics ms",
            "KiB",
            "/v1/status ms",
            "/livez ms",
            "tell to all ms",
        ],
    );
    let sizes = bench.pick(&[10, 100, 1000][..], &[10][..]).iter();
    for workers in sizes.copied() {
        for detail in ["slot", "pool"] {
            let figures = measure(bench, workers, detail)?;
            table.row(row(workers, detail, &figures));
            if workers == 1000 && detail == "pool" {
                report.targets = targets(&figures);
            }
        }
    }
    report.tables.push(table);
    bench.doing("the fleet alone");
    report.tables.push(fleet::table(bench));
    Ok(report)
}

fn measure(bench: &Bench, workers: usize, detail: &str) -> Result<Figures> {
    bench.doing(format!("{workers} workers: boot"));
    let more = format!("boot_timeout = \"120s\"\n[metrics]\ndetail = \"{detail}\"");
    let begun = Instant::now();
    let mut server = Server::start(&PREFORK, &bench.prefork, workers, &more)?;
    prefork::all_ready(&server)?;
    let boot_seconds = begun.elapsed().as_secs_f64();
    bench.doing(format!("{workers} workers: idle"));
    let master = server.master().pid();
    // What the boot has left to do is no idle time.
    std::thread::sleep(bench.pick(Duration::from_secs(3), Duration::from_millis(300)));
    let idle_percent = idle(
        master,
        bench.pick(Duration::from_secs(10), Duration::from_secs(1)),
    );
    bench.doing(format!("{workers} workers: questions"));
    let times = bench.pick(10, 3);
    let (metrics_ms, metrics_bytes) = timed(times, || prefork::admin(&server, "/metrics"))?;
    let (status_ms, _) = timed(times, || prefork::control(&server, "/v1/status"))?;
    let (live_ms, _) = timed(times, || prefork::admin(&server, "/livez"))?;
    let tell = || prefork::run(&server, &["tell", "web", "repeat", "1"]).map(|_| String::new());
    let (tell_ms, _) = timed(times, tell)?;
    Ok(Figures {
        boot_seconds,
        resident_mib: process::resident(master) as f64 / f64::from(1 << 20),
        idle_percent,
        metrics_ms,
        metrics_kib: metrics_bytes / 1024.0,
        status_ms,
        live_ms,
        tell_ms,
    })
}

/// Per cent of one processor that a process takes.
fn idle(pid: i32, during: Duration) -> f64 {
    let before = process::cpu(pid);
    std::thread::sleep(during);
    let took = process::cpu(pid).saturating_sub(before);
    100.0 * took.as_secs_f64() / during.as_secs_f64()
}

/// Milliseconds each answer took, and the last one's length.
fn timed(times: usize, ask: impl Fn() -> Result<String>) -> Result<(Spread, f64)> {
    let mut took = vec![];
    let mut length = 0.0;
    for _ in 0..times {
        let begun = Instant::now();
        length = ask()?.len() as f64;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let spread = Spread::of(took).ok_or_else(|| anyhow::anyhow!("nothing was asked"))?;
    Ok((spread, length))
}

fn row(workers: usize, detail: &str, figures: &Figures) -> Vec<Cell> {
    let ms = |spread: Spread| Cell::Spread(Some(spread), 1);
    vec![
        workers.into(),
        detail.into(),
        Cell::Number(figures.boot_seconds, 2),
        Cell::Number(figures.resident_mib, 1),
        Cell::Number(figures.idle_percent, 2),
        ms(figures.metrics_ms),
        Cell::Number(figures.metrics_kib, 0),
        ms(figures.status_ms),
        ms(figures.live_ms),
        ms(figures.tell_ms),
    ]
}

fn targets(figures: &Figures) -> Vec<Target> {
    vec![
        Target {
            what: "resident memory of a supervisor with 1,000 workers, MiB",
            bound: Bound::AtMost(40.0),
            measured: Spread::of([figures.resident_mib]),
        },
        Target {
            what: "idle CPU of a supervisor with 1,000 workers, % of a core",
            bound: Bound::AtMost(2.0),
            measured: Spread::of([figures.idle_percent]),
        },
        Target {
            what: "/metrics of 1,000 workers by pool, ms",
            bound: Bound::AtMost(50.0),
            measured: Some(figures.metrics_ms),
        },
    ]
}
