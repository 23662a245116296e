//! `prefork status`.

use prefork_api::{
    CanaryStatus, Exit, ListenerStatus, PoolStatus, Readiness, Status, WorkerStatus,
};

use super::{ago, exit_words, state_style};
use crate::cli::table::{Align, Cell, Style, Table};
use crate::cli::units::{bytes, seconds};
use crate::readiness;
use crate::sanitize::{one_line, without_colours};

/// How much a table has of what a worker wrote, in characters.
const MOST_WORDS: usize = 80;

/// The supervisor, its listeners, a row per slot.
pub(in crate::cli) fn status(status: &Status, now: f64, color: bool) -> String {
    let mut out = head(status, now, color);
    out.push_str(&pools(&status.pools).render(color));
    out.push('\n');
    out.push_str(&workers(&status.pools).render(color));
    out
}

/// How it is as a whole, and what is to be said of its pools.
pub(super) fn head(status: &Status, now: f64, color: bool) -> String {
    let mut out = headline(status, color);
    if let Some(reload) = &status.last_reload {
        let outcome = match &reload.error {
            Some(error) => Style::Bad.paint(&format!("failed: {}", one_line(error)), color),
            None => Style::Good.paint("ok", color),
        };
        out.push_str(&format!("last reload {}: {outcome}\n", ago(now, reload.at)));
    }
    for pool in &status.pools {
        if let Some(difference) = &pool.on_disk {
            let note = format!("{}: {difference}", pool.name);
            out.push_str(&Style::Busy.paint(&one_line(&note), color));
            out.push('\n');
        }
        if let Some(canary) = &pool.canary {
            let note = format!("{}: {}", pool.name, canary_words(canary));
            out.push_str(&Style::Busy.paint(&one_line(&note), color));
            out.push('\n');
        }
        for listener in &pool.listeners {
            if let Some(problem) = &listener.problem {
                let note = format!("{}: {problem}", pool.name);
                out.push_str(&Style::Bad.paint(&one_line(&note), color));
                out.push('\n');
            }
        }
    }
    out.push('\n');
    out
}

/// How a canary stands, on one line.
pub(crate) fn canary_words(canary: &CanaryStatus) -> String {
    let CanaryStatus { new, old, .. } = canary;
    format!(
        "canary of generation {}: {:.1} % 5xx against {:.1} %, {} requests against {}; \
         {} left (`prefork promote`, `prefork abort`)",
        canary.generation,
        new.failed_percent(),
        old.failed_percent(),
        new.requests,
        old.requests,
        seconds(canary.seconds_left.ceil()),
    )
}

fn headline(status: &Status, color: bool) -> String {
    let style = match status.stopping {
        true => Style::Busy,
        false => readiness_style(status.readiness()),
    };
    format!(
        "prefork {}, pid {}, up {}, generation {}: {}\n",
        one_line(&status.version),
        status.pid,
        seconds(status.uptime_seconds),
        status.generation,
        style.paint(&state_words(status), color),
    )
}

/// How the service is, and how long it is served before it drains.
fn state_words(status: &Status) -> String {
    let word = readiness::word(status);
    match status.drains_in_seconds {
        Some(left) => format!("{word}, drains in {}", seconds(left)),
        None => word.to_owned(),
    }
}

pub(super) fn readiness_style(readiness: Readiness) -> Style {
    match readiness {
        Readiness::Ready => Style::Good,
        Readiness::Degraded => Style::Busy,
        Readiness::NotReady => Style::Bad,
    }
}

/// How connections come to a listener, and who may connect to a unix socket.
fn mode(listener: &ListenerStatus) -> Cell {
    let mut words = vec![listener.mode.clone()];
    words.extend(listener.tls.as_ref().map(|_| "tls".to_owned()));
    words.extend(listener.permissions.clone());
    words.extend(
        listener
            .group
            .as_ref()
            .map(|group| format!("group {group}")),
    );
    Cell::from(words.join(" "))
}

/// How many workers are ready of how many, and what else there is to know of that:
/// how many it would be by the file, how many are paused, how many it takes.
pub(super) fn strength(pool: &PoolStatus) -> String {
    let ready = format!("{}/{}", pool.ready, pool.desired);
    let by_file = pool.configured.filter(|it| *it != pool.desired);
    let needed = pool.needed.filter(|it| *it > 1 && pool.ready < *it);
    let notes = [
        by_file.map(|it| format!("file: {it}")),
        (pool.paused > 0).then(|| format!("paused: {}", pool.paused)),
        needed.map(|it| format!("needed: {it}")),
    ];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    match notes.is_empty() {
        true => ready,
        false => format!("{ready} ({})", notes.join(", ")),
    }
}

/// A row per listener; a pool without any has one row.
pub(super) fn pools(pools: &[PoolStatus]) -> Table<5> {
    let mut table = Table::new([
        ("POOL", Align::Left),
        ("READY", Align::Right),
        ("LISTENER", Align::Left),
        ("MODE", Align::Left),
        ("BACKLOG", Align::Right),
    ]);
    for pool in pools {
        let style = readiness_style(readiness::readiness_of(pool));
        let mut name = Cell::from(&pool.name);
        let mut ready = Cell::styled(strength(pool), style);
        if pool.listeners.is_empty() {
            table.row([name, ready, "-".into(), "".into(), "".into()]);
            continue;
        }
        for listener in &pool.listeners {
            let backlog = listener
                .backlog
                .map(|waiting| match listener.backlog_limit {
                    Some(limit) => format!("{waiting}/{limit}"),
                    None => waiting.to_string(),
                });
            table.row([
                std::mem::replace(&mut name, "".into()),
                std::mem::replace(&mut ready, "".into()),
                Cell::from(&listener.address),
                mode(listener),
                Cell::or_dash(backlog),
            ]);
        }
    }
    table
}

fn workers(pools: &[PoolStatus]) -> Table<12> {
    let mut table = Table::new([
        ("WORKER", Align::Left),
        ("STATE", Align::Left),
        ("PID", Align::Right),
        ("GEN", Align::Right),
        ("UPTIME", Align::Right),
        ("RESTARTS", Align::Right),
        ("CRASHES", Align::Right),
        ("IN-FLIGHT", Align::Right),
        ("CONNS", Align::Right),
        ("REQUESTS", Align::Right),
        ("MEMORY", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for pool in pools {
        for worker in &pool.workers {
            table.row([
                Cell::from(format!("{}/{}", pool.name, worker.slot)),
                Cell::styled(worker.state.as_str(), state_style(worker.state)),
                Cell::or_dash(worker.pid),
                Cell::or_dash(worker.generation),
                Cell::or_dash(worker.uptime_seconds.map(seconds)),
                Cell::from(worker.restarts),
                match worker.crashes {
                    0 => Cell::from(0_u64),
                    crashes => Cell::styled(crashes.to_string(), Style::Bad),
                },
                Cell::from(worker.in_flight),
                Cell::from(worker.connections),
                Cell::or_dash(worker.requests),
                Cell::or_dash(worker.resident_bytes.map(bytes)),
                Cell::from(note(worker)),
            ]);
        }
    }
    table
}

/// What else there is to know of a worker, on one line.
pub(super) fn note(worker: &WorkerStatus) -> String {
    let mut notes = Vec::new();
    if let Some(wait) = worker.backoff_seconds {
        notes.push(format!("next start in {}", seconds(wait)));
    }
    for old in &worker.draining {
        notes.push(format!(
            "pid {} drains, {} in flight",
            old.pid, old.in_flight
        ));
    }
    if let Some(exit) = &worker.last_exit {
        let mut words = format!(
            "last exit: {} after {}",
            exit_words(exit),
            seconds(exit.uptime_seconds)
        );
        if let Some(own) = own_words(exit) {
            words.push_str(&format!(" ({own})"));
        }
        notes.push(words);
    }
    if !worker.status.is_empty() {
        notes.push(worker.status.clone());
    }
    notes.join("; ")
}

/// What the process said of its end: why it left, or the last that it wrote.
pub(crate) fn own_words(exit: &Exit) -> Option<String> {
    let last_line = || {
        exit.stderr
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
    };
    let detail = Some(exit.detail.as_str()).filter(|detail| !detail.is_empty());
    let said = without_colours(detail.or_else(last_line)?.trim()).into_owned();
    if said.chars().count() <= MOST_WORDS {
        return Some(said);
    }
    Some(said.chars().take(MOST_WORDS - 1).chain(['…']).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use prefork_api::{DrainingStatus, ExitReason, LastReload, ListenerStatus, SCHEMA, SlotState};

    use super::*;

    fn worker(slot: u32) -> WorkerStatus {
        WorkerStatus {
            slot,
            state: SlotState::Ready,
            pid: Some(4713),
            generation: Some(3),
            incarnation: 5,
            uptime_seconds: Some(192.4),
            restarts: 1,
            crashes: 0,
            in_flight: 4,
            connections: 32,
            requests: Some(8812),
            resident_bytes: Some(4_300_000),
            status: String::new(),
            upstream: None,
            backoff_seconds: None,
            draining: vec![DrainingStatus {
                pid: 4712,
                generation: 2,
                in_flight: 1,
            }],
            last_exit: None,
        }
    }

    fn crashed() -> WorkerStatus {
        WorkerStatus {
            state: SlotState::Backoff,
            pid: None,
            generation: None,
            uptime_seconds: None,
            restarts: 12,
            crashes: 12,
            in_flight: 0,
            connections: 0,
            requests: Some(0),
            resident_bytes: None,
            backoff_seconds: Some(3.25),
            draining: vec![],
            last_exit: Some(Exit {
                reason: ExitReason::Crash,
                code: Some(1),
                signal: None,
                pid: 4714,
                generation: 3,
                incarnation: 13,
                at: 1000.0,
                uptime_seconds: 0.25,
                requests: 0,
                uncounted: false,
                peak_memory_bytes: 0,
                in_flight: vec![],
                in_flight_unlisted: 0,
                thread_dump: None,
                detail: "cannot bind".to_owned(),
                stderr: String::new(),
            }),
            ..worker(1)
        }
    }

    pub(in super::super) fn document() -> Status {
        Status {
            schema: SCHEMA,
            version: "0.1.0".to_owned(),
            pid: 4711,
            uptime_seconds: 86.2,
            generation: 3,
            ready: false,
            readiness: Some(Readiness::Degraded),
            stopping: false,
            drains_in_seconds: None,
            upgrades: 0,
            last_reload: Some(LastReload {
                ok: true,
                at: 1000.0,
                generation: 3,
                error: None,
            }),
            pools: vec![PoolStatus {
                name: "web".to_owned(),
                desired: 2,
                configured: Some(2),
                ready: 1,
                paused: 0,
                needed: Some(1),
                readiness: Some(Readiness::Degraded),
                listeners: vec![ListenerStatus {
                    name: "0.0.0.0:8080".to_owned(),
                    address: "0.0.0.0:8080".to_owned(),
                    mode: "shared".to_owned(),
                    backlog: Some(0),
                    backlog_limit: Some(4096),
                    proxy_protocol: false,
                    tls: None,
                    permissions: None,
                    group: None,
                    problem: None,
                }],
                program_on_disk: None,
                on_disk: None,
                canary: None,
                workers: vec![worker(0), crashed()],
            }],
        }
    }

    #[test]
    fn a_fleet_in_trouble_reads_well() {
        assert_eq!(
            status(&document(), 1130.0, false),
            "\
prefork 0.1.0, pid 4711, up 1m26s, generation 3: degraded
last reload 2m10s ago: ok

POOL  READY  LISTENER      MODE    BACKLOG
web     1/2  0.0.0.0:8080  shared   0/4096

WORKER  STATE     PID  GEN  UPTIME  RESTARTS  CRASHES  IN-FLIGHT  CONNS  REQUESTS   MEMORY  NOTE
web/0   ready    4713    3   3m12s         1        0          4     32      8812  4.1 MiB  pid 4712 drains, 1 in flight
web/1   backoff     -    -       -        12       12          0      0         0        -  next start in 3.2s; last exit: crash, exit code 1 after 0.2s (cannot bind)
"
        );
    }

    #[test]
    fn a_pool_says_what_its_numbers_do_not() {
        let mut pool = document().pools.remove(0);
        assert_eq!(strength(&pool), "1/2");
        pool.configured = Some(4);
        pool.paused = 1;
        pool.needed = Some(2);
        assert_eq!(strength(&pool), "1/2 (file: 4, paused: 1, needed: 2)");
    }

    #[test]
    fn what_a_worker_says_stays_on_its_line() {
        let mut document = document();
        document.pools[0].workers[0].status = "warm\n\x1b[31mROOT".to_owned();
        let shown = status(&document, 1130.0, false);
        assert!(!shown.contains('\x1b'));
        assert_eq!(shown.lines().count(), 9);
    }
}
