//! A pool on the page: its numbers of now and of ten minutes, its listeners, its workers.

use std::fmt::Write;

use prefork_api::{
    CanaryStatus, ListenerStatus, PoolStatus, PoolTraffic, SlotState, TrafficPoint, WorkerStatus,
};

use super::attention::reason;
use super::html::{escape, words};
use super::sparkline::sparkline;
use super::{SENTENCE, ago};
use crate::cli::canary_words;
use crate::cli::units::{bytes, quantile, rate, seconds};
use crate::readiness;

/// How many workers of a pool have a row.
const MOST_WORKERS: usize = 100;

/// Everything about a pool.
pub(super) fn section(pool: &PoolStatus, traffic: Option<&PoolTraffic>, now: f64) -> String {
    let mut section = format!(
        "<h2>{}</h2>\n<p>{} of {} workers ready</p>\n",
        escape(&pool.name),
        pool.ready,
        pool.desired
    );
    if let Some(canary) = &pool.canary {
        section.push_str(&canary_line(canary));
    }
    section.push_str(&tiles(pool, traffic.map_or(&[], |it| &it.history)));
    for listener in &pool.listeners {
        section.push_str(&listener_line(listener, now));
    }
    section.push_str(&workers(pool, now));
    section
}

fn canary_line(canary: &CanaryStatus) -> String {
    let line = words(&canary_words(canary), 2 * SENTENCE);
    format!("<p class=\"busy\">{line}</p>\n")
}

/// The pool's numbers, each with its last ten minutes where they are known.
fn tiles(pool: &PoolStatus, history: &[TrafficPoint]) -> String {
    let of = |value: fn(&TrafficPoint) -> Option<f64>| -> Vec<Option<f64>> {
        history.iter().map(value).collect()
    };
    let last = history.last();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    let mut tiles = String::from("<dl class=\"tiles\">\n");
    let mut tile = |class: &str, name: &str, value: String, line: String| {
        let _ = writeln!(
            tiles,
            "<div class=\"{class}\"><dt>{name}<dd>{value}{line}</div>"
        );
    };
    let failing = last.is_some_and(|point| point.failed > 0);
    tile(
        "",
        "requests/s",
        or_dash(last.map(|point| rate(point.rate()))),
        line("requests per second", &of(|point| Some(point.rate()))),
    );
    tile(
        if failing { "bad" } else { "" },
        "5xx/s",
        or_dash(last.map(|point| rate(point.failure_rate()))),
        line("5xx per second", &of(|point| Some(point.failure_rate()))),
    );
    tile(
        "",
        "p99",
        or_dash(last.and_then(p99).map(|it| escape(&it))),
        line("p99", &of(|point| point.p99_seconds)),
    );
    tile(
        "",
        "in flight",
        pool.in_flight().to_string(),
        line("in flight", &of(|point| Some(point.in_flight as f64))),
    );
    tile(
        "",
        "in the queue",
        or_dash(pool.queue().map(|it| it.to_string())),
        String::new(),
    );
    tiles.push_str("</dl>\n");
    tiles
}

fn p99(point: &TrafficPoint) -> Option<String> {
    quantile(point.p99_seconds, point.requests > 0)
}

/// The picture of a number's last ten minutes; nothing before there are two points.
fn line(name: &str, values: &[Option<f64>]) -> String {
    match values.len() {
        0 | 1 => String::new(),
        _ => sparkline(&format!("{name}, the last ten minutes"), values),
    }
}

fn listener_line(listener: &ListenerStatus, now: f64) -> String {
    let mut line = format!(
        "<p class=\"faint\">listens on {}",
        escape(&listener.address)
    );
    if let (Some(waiting), Some(limit)) = (listener.backlog, listener.backlog_limit) {
        let _ = write!(line, ", {waiting} of {limit} connections waiting");
    }
    for certificate in listener.tls.iter().flat_map(|tls| &tls.certificates) {
        let _ = write!(
            line,
            "; certificate of {}, {} left",
            words(&certificate.names.join(", "), SENTENCE),
            seconds((certificate.not_after as f64 - now).max(0.0)),
        );
    }
    line.push_str("</p>\n");
    line
}

/// A row for each worker, those that are not well first.
fn workers(pool: &PoolStatus, now: f64) -> String {
    let mut workers: Vec<&WorkerStatus> = pool.workers.iter().collect();
    workers.sort_by_key(|worker| readiness::rank(worker.state));
    let mut table = String::from(
        "<div class=\"table\"><table>\n<tr><th>slot<th>state<th>pid<th class=\"wide\">generation\
         <th>uptime<th class=\"wide\">restarts<th>crashes<th>in flight\
         <th class=\"wide\">connections<th class=\"wide\">requests<th>memory<th>says</tr>\n",
    );
    for worker in workers.iter().take(MOST_WORKERS) {
        table.push_str(&row(worker, now));
    }
    table.push_str("</table></div>\n");
    let more = workers.len().saturating_sub(MOST_WORKERS);
    if more > 0 {
        let _ = writeln!(
            table,
            "<p class=\"faint\">{more} more: see <code>prefork status {}</code></p>",
            escape(&pool.name)
        );
    }
    table
}

fn row(worker: &WorkerStatus, now: f64) -> String {
    let state = worker.state.as_str();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    format!(
        "<tr><td>{}<td class=\"{state}\">{state}<td>{}<td class=\"wide\">{}<td>{}\
         <td class=\"wide\">{}<td>{}<td>{}<td class=\"wide\">{}<td class=\"wide\">{}<td>{}\
         <td class=\"says\">{}</tr>\n",
        worker.slot,
        or_dash(worker.pid.map(|pid| pid.to_string())),
        or_dash(worker.generation.map(|generation| generation.to_string())),
        or_dash(worker.uptime_seconds.map(seconds)),
        worker.restarts,
        worker.crashes,
        worker.in_flight,
        worker.connections,
        or_dash(worker.requests.map(|requests| requests.to_string())),
        or_dash(worker.resident_bytes.map(bytes)),
        says(worker, now),
    )
}

/// What the worker says of itself; of one that does not say it, how its predecessor ended.
fn says(worker: &WorkerStatus, now: f64) -> String {
    if !worker.status.is_empty() {
        return words(&worker.status, SENTENCE);
    }
    let fails = |reason: &prefork_api::ExitReason| reason.is_failure();
    match worker.last_exit.as_ref().filter(|exit| fails(&exit.reason)) {
        Some(exit) if worker.state == SlotState::Ready => {
            format!("{} {}", exit.reason.as_str(), ago(now, exit.at))
        }
        _ if worker.state == SlotState::Ready => String::new(),
        _ => reason(worker, now),
    }
}
