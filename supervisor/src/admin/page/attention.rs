//! What somebody has to look at, before all else: what it is, why, and what comes next.

use prefork_api::{CertificateStatus, PoolStatus, SlotState, Status, WorkerStatus};

use super::html::{escape, words};
use super::{SENTENCE, ago};
use crate::cli::units::seconds;
use crate::cli::{exit_words, own_words};

/// How many are shown.
const MOST: usize = 50;

/// From so long before its end on, a certificate is shown here.
const SOON: f64 = 14.0 * 86_400.0;

/// A thing to look at; the worst come first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Matter {
    severity: Severity,
    /// What it is about, and what it is; HTML.
    title: String,
    /// Why it is so, and what comes next; HTML.
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Bad,
    Busy,
}

impl Severity {
    fn class(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Busy => "busy",
        }
    }
}

/// Everything that is not as it should be; nothing where all is well.
pub(super) fn list(status: &Status, now: f64) -> String {
    let pools = status.pools.iter();
    let mut matters: Vec<Matter> = pools.flat_map(|pool| of_pool(pool, now)).collect();
    if let Some(error) = status.last_reload.as_ref().and_then(|it| it.error.as_ref()) {
        matters.push(Matter {
            severity: Severity::Bad,
            title: "the last reload failed".to_owned(),
            why: words(error, SENTENCE),
        });
    }
    // Stable: what is equally bad stays in the configuration's order.
    matters.sort_by_key(|matter| matter.severity);
    let more = matters.len().saturating_sub(MOST);
    let mut items: Vec<String> = matters.iter().take(MOST).map(item).collect();
    if more > 0 {
        items.push(format!(
            "<li class=\"busy\">{more} more: see <code>prefork status</code></li>"
        ));
    }
    match items.is_empty() {
        true => String::new(),
        false => format!("<ul class=\"attention\">\n{}\n</ul>\n", items.join("\n")),
    }
}

fn item(matter: &Matter) -> String {
    let class = matter.severity.class();
    let Matter { title, why, .. } = matter;
    format!("<li class=\"{class}\">{title} <span>{why}</span></li>")
}

fn of_pool(pool: &PoolStatus, now: f64) -> Vec<Matter> {
    let name = escape(&pool.name);
    let workers = pool.workers.iter();
    let mut matters: Vec<Matter> = workers
        .filter_map(|worker| of_worker(&name, worker, now))
        .collect();
    for listener in &pool.listeners {
        let address = escape(&listener.address);
        matters.extend(listener.problem.as_ref().map(|problem| Matter {
            severity: Severity::Bad,
            title: format!("{name}: no client can come to {address}"),
            why: words(problem, SENTENCE),
        }));
        let certificates = listener.tls.iter().flat_map(|tls| &tls.certificates);
        matters.extend(certificates.filter_map(|it| of_certificate(&name, it, now)));
    }
    matters.extend(pool.on_disk.as_ref().map(|difference| Matter {
        severity: Severity::Busy,
        title: name.clone(),
        why: words(difference, SENTENCE),
    }));
    matters
}

fn of_certificate(pool: &str, certificate: &CertificateStatus, now: f64) -> Option<Matter> {
    let left = certificate.not_after as f64 - now;
    let names = words(&certificate.names.join(", "), SENTENCE);
    (left < SOON).then(|| Matter {
        severity: Severity::Bad,
        title: match left > 0.0 {
            true => format!("{pool}: a certificate ends in {}", seconds(left)),
            false => format!("{pool}: a certificate has ended"),
        },
        why: names,
    })
}

/// A worker that is not ready: why, and the next try.
fn of_worker(pool: &str, worker: &WorkerStatus, now: f64) -> Option<Matter> {
    let severity = match worker.state {
        SlotState::Ready | SlotState::Empty => return None,
        SlotState::Backoff => Severity::Bad,
        _ => Severity::Busy,
    };
    Some(Matter {
        severity,
        title: format!("{pool}/{} {}", worker.slot, worker.state.as_str()),
        why: reason(worker, now),
    })
}

/// Why a worker is as it is, and what comes next; HTML.
pub(super) fn reason(worker: &WorkerStatus, now: f64) -> String {
    let next = worker.backoff_seconds.map(|wait| {
        // What has passed is about to happen.
        format!("next start in {}", seconds(wait.max(0.0)))
    });
    let exit = worker.last_exit.as_ref().map(|exit| {
        let own = own_words(exit).map(|own| format!(" ({})", words(&own, SENTENCE)));
        format!(
            "last exit {}: {} after {}{}",
            ago(now, exit.at),
            escape(&exit_words(exit)),
            seconds(exit.uptime_seconds),
            own.unwrap_or_default()
        )
    });
    let draining = worker
        .draining
        .iter()
        .map(|old| format!("pid {} drains, {} in flight", old.pid, old.in_flight));
    let all: Vec<String> = next.into_iter().chain(draining).chain(exit).collect();
    all.join("; ")
}
