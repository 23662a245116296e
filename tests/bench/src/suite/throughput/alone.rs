//! One worker and its clients on one processor. They take turns there, so that
//! every round does the same: on processors of their own, how many requests a
//! server finds at a time depends on who is a little faster at the moment.

use anyhow::Result;

use super::{Setting, processor_time, table};
use crate::bench::Bench;
use crate::load::HELLO;
use crate::prefork::{BARE, EPOLL, LOGGING, PREFORK};
use crate::process::OneProcessor;
use crate::report::Report;
use crate::server::Server;

/// Adds the tables, and the target that is about one worker.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let _one = OneProcessor::take()?;
    let servers = [&BARE, &PREFORK, &LOGGING, &EPOLL]
        .into_iter()
        .map(|blueprint| Server::start(blueprint, &bench.prefork, 1, ""))
        .collect::<Result<Vec<_>>>()?;
    for keep_alive in [true, false] {
        let setting = Setting {
            connections: 32,
            keep_alive,
            page: HELLO,
        };
        let series = super::measure(bench, &servers, setting)?;
        if keep_alive {
            report.targets.push(processor_time(&series));
        }
        let title = format!("one worker, on one processor with its clients: {setting}");
        report.tables.push(table(&servers, &series, title));
    }
    Ok(())
}
