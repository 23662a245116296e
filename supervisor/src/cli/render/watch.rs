//! `prefork status --watch`: what fits a screen of 80 columns, with rates.

use prefork_api::{Exit, PoolStatus, SlotState, Status, WorkerStatus};

use super::state_style;
use super::status::{head, note, pools};
use crate::cli::table::{Align, Cell, Style, Table};
use crate::cli::units::{bytes, rate, seconds};
use crate::sanitize::one_line;

/// The supervisor, its listeners, a row per slot with what it has served since the look
/// before this one, and under the table what there is to know of those that are not well.
pub(in crate::cli) fn watch(
    before: Option<&Status>,
    status: &Status,
    now: f64,
    color: bool,
) -> String {
    let mut out = head(status, now, color);
    out.push_str(&pools(&status.pools).render(color));
    out.push('\n');
    out.push_str(&workers(before, status).render(color));
    let mut notes = status.pools.iter().flat_map(notes).peekable();
    if notes.peek().is_some() {
        out.push('\n');
    }
    for line in notes {
        out.push_str(&Style::Busy.paint(&one_line(&line), color));
        out.push('\n');
    }
    out
}

fn workers(before: Option<&Status>, status: &Status) -> Table<9> {
    let mut table = Table::new([
        ("WORKER", Align::Left),
        ("STATE", Align::Left),
        ("PID", Align::Right),
        ("UPTIME", Align::Right),
        ("CRASHES", Align::Right),
        ("FLIGHT", Align::Right),
        ("CONNS", Align::Right),
        ("REQ/S", Align::Right),
        ("MEMORY", Align::Right),
    ]);
    for pool in &status.pools {
        for worker in &pool.workers {
            let served = before.and_then(|before| served(before, status, pool, worker));
            table.row([
                Cell::from(format!("{}/{}", pool.name, worker.slot)),
                Cell::styled(worker.state.as_str(), state_style(worker.state)),
                Cell::or_dash(worker.pid),
                Cell::or_dash(worker.uptime_seconds.map(seconds)),
                match worker.crashes {
                    0 => Cell::from(0_u64),
                    crashes => Cell::styled(crashes.to_string(), Style::Bad),
                },
                Cell::from(worker.in_flight),
                Cell::from(worker.connections),
                Cell::or_dash(served.map(rate)),
                Cell::or_dash(worker.resident_bytes.map(bytes)),
            ]);
        }
    }
    table
}

/// Requests per second that a slot has served between two looks; nothing where it was not
/// there at both, or another supervisor answers by now.
fn served(before: &Status, now: &Status, pool: &PoolStatus, worker: &WorkerStatus) -> Option<f64> {
    let interval = now.uptime_seconds - before.uptime_seconds;
    let mut pools = before.pools.iter();
    let earlier = pools.find(|it| it.name == pool.name)?;
    let earlier = earlier.workers.iter().find(|it| it.slot == worker.slot)?;
    let requests = worker.requests?.saturating_sub(earlier.requests?);
    (interval > 0.0).then(|| requests as f64 / interval)
}

/// A line for each worker that is not well, was not well before, or drains another.
fn notes(pool: &PoolStatus) -> impl Iterator<Item = String> {
    let failed = |exit: &Exit| exit.reason.is_failure();
    let is_worth_it = move |worker: &&WorkerStatus| {
        worker.state != SlotState::Ready
            || !worker.draining.is_empty()
            || worker.last_exit.as_ref().is_some_and(failed)
    };
    let line = |worker: &WorkerStatus| (worker.slot, note(worker));
    let lines = pool.workers.iter().filter(is_worth_it).map(line);
    let lines = lines.filter(|(_, note)| !note.is_empty());
    lines.map(|(slot, note)| format!("{}/{slot}: {note}", pool.name))
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::document;
    use super::*;

    #[test]
    fn the_table_fits_80_columns_and_has_rates() {
        let mut now = document();
        now.uptime_seconds += 2.0;
        let web = &mut now.pools[0].workers[0];
        web.requests = web.requests.map(|requests| requests + 24_690);
        web.pid = Some(4_194_303);
        web.slot = 1_999;
        let mut earlier = document();
        earlier.pools[0].workers[0].slot = 1_999;
        let shown = watch(Some(&earlier), &now, 1130.0, false);
        assert_eq!(
            shown.split_once("\n\n").expect("a head").1,
            "\
POOL  READY  LISTENER      MODE    BACKLOG
web     1/2  0.0.0.0:8080  shared   0/4096

WORKER    STATE        PID  UPTIME  CRASHES  FLIGHT  CONNS  REQ/S   MEMORY
web/1999  ready    4194303   3m12s        0       4     32  12345  4.1 MiB
web/1     backoff        -       -       12       0      0      0        -

web/1999: pid 4712 drains, 1 in flight
web/1: next start in 3.2s; last exit: crash, exit code 1 after 0.2s (cannot bind)
"
        );
        let table = shown.lines().take_while(|line| !line.contains(": pid"));
        assert!(table.map(|line| line.chars().count()).max() <= Some(80));
    }

    #[test]
    fn there_is_no_rate_of_what_was_looked_at_once() {
        let status = document();
        let row = |before| workers(before, &status).render(false);
        assert!(row(None).contains("32      -"), "{}", row(None));
        // Nor where another supervisor's uptime began anew.
        let mut older = document();
        older.uptime_seconds += 100.0;
        assert_eq!(row(Some(&older)), row(None));
    }
}
