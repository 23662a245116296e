//! Files, small and large, by prefork's own web server and by nginx.

use anyhow::Result;

use super::{Setting, table};
use crate::bench::Bench;
use crate::figures::Spread;
use crate::files;
use crate::load::Page;
use crate::peer::nginx;
use crate::prefork::FILES;
use crate::report::{Bound, Report, Target};
use crate::server::Server;

/// What is downloaded, what that is as a target, and over how many connections.
fn downloads() -> [(&'static str, &'static str, Page, usize); 2] {
    [
        (
            "a file of 1 KiB",
            "CPU for a file of 1 KiB against nginx",
            files::SMALL,
            32,
        ),
        (
            "a file of 10 MiB",
            "CPU for a file of 10 MiB against nginx",
            files::large(),
            4,
        ),
    ]
}

/// Adds a table for each size.
pub(super) fn measure(bench: &Bench, workers: usize, report: &mut Report) -> Result<()> {
    let mut servers = Vec::new();
    // It comes first, so that the ratios are against it.
    if nginx::PEER.installed().is_some() {
        servers.push(Server::start(&nginx::FILES, &bench.prefork, workers, "")?);
    }
    servers.push(Server::start(&FILES, &bench.prefork, workers, "")?);
    let is_compared = servers.len() > 1;
    for (what, target, page, connections) in downloads() {
        let setting = Setting {
            connections,
            keep_alive: true,
            page,
        };
        let series = super::measure(bench, &servers, setting)?;
        report.targets.push(Target {
            what: target,
            bound: Bound::AtMost(1.0),
            measured: is_compared
                .then(|| Spread::of_ratios(&series[1].cpu_us, &series[0].cpu_us))
                .flatten(),
        });
        let title = format!("{what}, {setting}");
        report.tables.push(table(&servers, &series, title));
    }
    Ok(())
}
