//! The requests that workers are serving, or were when they died, as their request tables
//! have them. What stands there is the workers' and their clients', and is made harmless
//! before anybody sees it.

use std::time::Duration;

use prefork_api::{ApiError, Requests, RunningRequest, SCHEMA, WorkerRequest};
use prefork_proto::request_table::{Entry, Table};
use tracing::warn;

use crate::handle::Wanted;
use crate::reactor::worker_process::handle::SlotName;
use crate::reactor::{Reactor, since_boot};
use crate::sanitize::one_line;

/// How many requests a death certificate names.
const MOST_CERTIFIED: usize = 16;

/// How many requests an answer has.
const MOST_LISTED: usize = 1000;

/// What one worker is serving.
#[derive(Debug, Default)]
pub(in crate::reactor) struct Running {
    /// The oldest first.
    pub(in crate::reactor) requests: Vec<RunningRequest>,
    /// Further requests, of which nothing is said.
    pub(in crate::reactor) unlisted: u64,
}

/// What the owner of a table is serving.
fn running(slot: &SlotName, table: &Table) -> Running {
    let seen = table.read().unwrap_or_else(|error| {
        warn!(%slot, "its requests are not shown: {error}");
        Default::default()
    });
    let now = u64::try_from(since_boot().0.as_nanos()).unwrap_or(u64::MAX);
    let requests = seen.entries.into_iter().map(|entry| shown(entry, now));
    let mut requests: Vec<_> = requests.collect();
    requests.sort_by_key(|request| std::cmp::Reverse(request.age_ms));
    Running {
        requests,
        unlisted: seen.unlisted,
    }
}

/// What the owner of a table was serving when it died, as a certificate has it.
pub(in crate::reactor) fn at_death(slot: &SlotName, table: &Table) -> Running {
    let mut running = running(slot, table);
    let unnamed = running.requests.len().saturating_sub(MOST_CERTIFIED);
    running.requests.truncate(MOST_CERTIFIED);
    running.unlisted = running.unlisted.saturating_add(unnamed as u64);
    running
}

fn shown(entry: Entry, now_nanos: u64) -> RunningRequest {
    let mut target = one_line(&entry.target).into_owned();
    if entry.is_cut {
        target.push('…');
    }
    let age = Duration::from_nanos(now_nanos.saturating_sub(entry.began_nanos));
    RunningRequest {
        method: one_line(&entry.method).into_owned(),
        target,
        client: entry.client.map(|client| client.to_string()),
        id: entry.id.map(|id| one_line(&id).into_owned()),
        stage: entry.stage,
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        sent_bytes: entry.sent_bytes,
    }
}

impl Reactor {
    /// The requests that are being served, the oldest first.
    pub(in crate::reactor) fn running_requests(
        &self,
        wanted: &Wanted,
    ) -> Result<Requests, ApiError> {
        if let Some(pool) = &wanted.pool {
            self.slots_named(pool, wanted.slot)?;
        }
        let mut answer = Requests {
            schema: SCHEMA,
            requests: Vec::new(),
            more: 0,
            unlisted: 0,
            silent_workers: 0,
        };
        let oldest_first = |request: &WorkerRequest| std::cmp::Reverse(request.request.age_ms);
        for (worker, grip) in &self.processes {
            let slot = self.slot_name(*worker);
            if !wanted.concerns(&slot.pool, slot.slot) {
                continue;
            }
            let vitals = grip.vitals.borrow();
            let Some(table) = &vitals.requests else {
                // One that has not said what it is has no requests.
                answer.silent_workers += u64::from(vitals.hello.is_some());
                continue;
            };
            let Running { requests, unlisted } = running(&slot, table);
            answer.unlisted = answer.unlisted.saturating_add(unlisted);
            let old = requests
                .into_iter()
                .filter(|request| request.age_ms >= wanted.older_than_ms);
            answer.requests.extend(old.map(|request| WorkerRequest {
                pool: slot.pool.to_string(),
                slot: slot.slot,
                pid: grip.pid,
                request,
            }));
        }
        answer.requests.sort_by_key(oldest_first);
        answer.more = answer.requests.len().saturating_sub(MOST_LISTED) as u64;
        answer.requests.truncate(MOST_LISTED);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use prefork_api::RequestStage;

    use super::*;

    fn entry(target: &str, began_nanos: u64) -> Entry {
        Entry {
            began_nanos,
            stage: RequestStage::Working,
            method: "GE\x1bT".to_owned(),
            target: target.to_owned(),
            is_cut: true,
            client: None,
            id: Some("a\u{202e}b".to_owned()),
            sent_bytes: u64::MAX,
        }
    }

    #[test]
    fn what_a_worker_wrote_is_shown_and_does_nothing() {
        let request = shown(entry("/\x1b[2J\n<script>", 1_000_000), 5_000_000);
        assert_eq!(request.method, "GE\\u{1b}T");
        assert_eq!(request.target, "/\\u{1b}[2J\\n<script>…");
        assert_eq!(request.id.as_deref(), Some("a\\u{202e}b"));
        assert_eq!(request.age_ms, 4);
    }

    #[test]
    fn a_request_of_the_future_has_just_come() {
        assert_eq!(shown(entry("/", u64::MAX), 5).age_ms, 0);
    }
}
