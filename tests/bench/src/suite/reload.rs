//! A rolling reload under load, by pool size and surge.

use std::time::Duration;

use anyhow::Result;

use crate::bench::Bench;
use crate::figures::Spread;
use crate::load::Clients;
use crate::prefork::{self, PREFORK};
use crate::report::{Bound, Cell, Report, Table, Target};
use crate::server::Server;

/// Workers, and how many of them are replaced at a time. A thousand one by one
/// would take longer than all the rest.
const REAL: [(usize, usize); 8] = [
    (1, 1),
    (10, 1),
    (10, 10),
    (100, 1),
    (100, 10),
    (100, 100),
    (1000, 10),
    (1000, 100),
];

const SMOKE: [(usize, usize); 2] = [(1, 1), (4, 2)];

const CONNECTIONS: usize = 32;

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::default();
    if !bench.has_command("reload")? {
        report.note("prefork reload: not available in this version");
        return Ok(report);
    }
    let mut table = Table::new(
        format!("`prefork reload` under {CONNECTIONS} clients that never retry"),
        &[
            "workers",
            "max_surge",
            "seconds",
            "seconds per worker",
            "answered",
            "broken",
            "how",
        ],
    );
    let mut broken_of_a_hundred = Vec::new();
    for (workers, surge) in bench.pick(&REAL[..], &SMOKE[..]).iter().copied() {
        bench.doing(format!("{workers} workers, {surge} at a time"));
        let pool = format!("max_surge = {surge}\nidle_grace = \"100ms\"");
        let server = Server::start(&PREFORK, &bench.prefork, workers, &pool)?;
        prefork::all_ready(&server)?;
        let clients = Clients::calm(server.site().address, CONNECTIONS).start();
        std::thread::sleep(Duration::from_millis(200));
        let seconds = prefork::run(&server, &["reload", "--force"])?.as_secs_f64();
        std::thread::sleep(Duration::from_millis(200));
        let outcome = clients.stop()?;
        if workers == 100 {
            broken_of_a_hundred.push(outcome.broken_count() as f64);
        }
        table.row([
            workers.into(),
            surge.into(),
            Cell::Number(seconds, 2),
            Cell::Number(seconds / workers as f64, 4),
            outcome.served.into(),
            outcome.broken_count().into(),
            outcome.broken_list().into(),
        ]);
    }
    report.tables.push(table);
    report.note("`idle_grace` is 100 ms here; a reload waits at least that long for each drain.");
    report.targets.push(Target {
        what: "requests broken by a rolling reload of 100 workers",
        bound: Bound::AtMost(0.0),
        measured: Spread::of(broken_of_a_hundred),
    });
    Ok(report)
}
