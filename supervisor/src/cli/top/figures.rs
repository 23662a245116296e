//! Two readings as rates, latencies and shares: what happened between them.

use std::collections::BTreeMap;

use prefork_api::{
    Event, LastReload, PoolStatus, Traffic, WorkerRequest, WorkerStatus, WorkerTraffic, quantile,
};
use serde::Serialize;

use super::reading::Reading;
use crate::readiness;

/// Everything that `top` shows; its JSON only ever grows, as the API's does.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    pub(super) schema: u32,
    pub(super) version: String,
    pub(super) pid: i32,
    pub(super) uptime_seconds: f64,
    pub(super) generation: u64,
    /// As every probe says it: `degraded: pool web: 1 of 2 workers ready`.
    pub(super) readiness: String,
    pub(super) last_reload: Option<LastReload>,
    /// The time between the readings, which rates and latencies are of.
    pub(super) interval_seconds: f64,
    pub(super) pools: Vec<PoolFigures>,
    pub(super) workers: Vec<WorkerFigures>,
    /// The oldest first.
    pub(super) requests: Vec<WorkerRequest>,
    /// The newest first.
    pub(super) events: Vec<Event>,
}

/// What was served in the interval, and what it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Absent where nothing is counted.
    pub(super) requests_per_second: Option<f64>,
    pub(super) failed_per_second: Option<f64>,
    /// Absent where nothing was served, or it lies beyond the last bucket.
    pub(super) p50_seconds: Option<f64>,
    pub(super) p99_seconds: Option<f64>,
    /// 100 is a whole processor.
    pub(super) cpu_percent: f64,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct PoolFigures {
    pub(super) name: String,
    pub(super) ready: u32,
    pub(super) desired: u32,
    #[serde(flatten)]
    pub(super) rates: Rates,
    pub(super) in_flight: u64,
    /// Connections that wait to be accepted; absent where the kernel does not say.
    pub(super) queue: Option<u64>,
    pub(super) resident_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct WorkerFigures {
    pub(super) pool: String,
    #[serde(flatten)]
    pub(super) status: WorkerStatus,
    #[serde(flatten)]
    pub(super) rates: Rates,
}

impl WorkerFigures {
    /// `web/0`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.pool, self.status.slot)
    }

    /// The worst first.
    pub(super) fn rank(&self) -> u8 {
        readiness::rank(self.status.state)
    }
}

/// What a slot or a pool has counted between two readings.
#[derive(Debug, Clone, Default)]
struct Growth {
    /// By class; none where nothing is counted.
    requests: Option<[u64; 5]>,
    durations: Vec<u64>,
    cpu_seconds: f64,
}

impl Figures {
    /// What happened between two readings.
    pub(super) fn of(before: &Reading, now: &Reading) -> Self {
        let status = &now.status;
        let interval = now.traffic.uptime_seconds - before.traffic.uptime_seconds;
        let growths = growths(&before.traffic, &now.traffic);
        let rates = |growth: &Growth| growth.rates(&now.traffic.bounds, interval);
        let mut pools = Vec::new();
        let mut workers = Vec::new();
        for pool in &status.pools {
            let of_slot = |slot| growths.get(&(pool.name.as_str(), slot));
            let all = pool.workers.iter().filter_map(|it| of_slot(it.slot));
            let sum = all.fold(Growth::default(), |sum, it| sum.and(it));
            pools.push(pool_figures(pool, rates(&sum)));
            workers.extend(pool.workers.iter().map(|worker| WorkerFigures {
                pool: pool.name.clone(),
                status: worker.clone(),
                rates: of_slot(worker.slot).map_or_else(Rates::default, rates),
            }));
        }
        Self {
            schema: status.schema,
            version: status.version.clone(),
            pid: status.pid,
            uptime_seconds: status.uptime_seconds,
            generation: status.generation,
            readiness: readiness::sentence(status),
            last_reload: status.last_reload.clone(),
            interval_seconds: interval.max(0.0),
            pools,
            workers,
            requests: now.requests.requests.clone(),
            events: now.events.iter().cloned().collect(),
        }
    }
}

fn pool_figures(pool: &PoolStatus, rates: Rates) -> PoolFigures {
    let resident = pool.workers.iter().filter_map(|it| it.resident_bytes);
    PoolFigures {
        name: pool.name.clone(),
        ready: pool.ready,
        desired: pool.desired,
        rates,
        in_flight: pool.in_flight(),
        queue: pool.queue(),
        resident_bytes: resident.fold(0, u64::saturating_add),
    }
}

/// What each slot that is in both readings has counted between them.
fn growths<'a>(before: &Traffic, now: &'a Traffic) -> BTreeMap<(&'a str, u32), Growth> {
    let earlier: BTreeMap<(&str, u32), &WorkerTraffic> = before
        .pools
        .iter()
        .flat_map(|pool| {
            pool.workers
                .iter()
                .map(|it| ((pool.name.as_str(), it.slot), it))
        })
        .collect();
    let slots = now.pools.iter().flat_map(|pool| {
        let name = pool.name.as_str();
        pool.workers.iter().map(move |it| ((name, it.slot), it))
    });
    slots
        .filter_map(|(slot, it)| Some((slot, Growth::between(earlier.get(&slot)?, it))))
        .collect()
}

impl Growth {
    fn between(before: &WorkerTraffic, now: &WorkerTraffic) -> Self {
        let requests = now.requests.map(|now| {
            let before = before.requests.unwrap_or_default();
            std::array::from_fn(|class| now[class].saturating_sub(before[class]))
        });
        let durations = now.durations.iter().enumerate().map(|(bucket, count)| {
            count.saturating_sub(before.durations.get(bucket).copied().unwrap_or(0))
        });
        Self {
            requests,
            durations: durations.collect(),
            cpu_seconds: (now.cpu_seconds - before.cpu_seconds).max(0.0),
        }
    }

    fn and(mut self, other: &Self) -> Self {
        if let Some(counts) = other.requests {
            let sum = self.requests.unwrap_or_default();
            self.requests = Some(std::array::from_fn(|class| {
                sum[class].saturating_add(counts[class])
            }));
        }
        let buckets = self.durations.len().max(other.durations.len());
        self.durations.resize(buckets, 0);
        for (sum, count) in self.durations.iter_mut().zip(&other.durations) {
            *sum = sum.saturating_add(*count);
        }
        self.cpu_seconds += other.cpu_seconds;
        self
    }

    fn rates(&self, bounds: &[f64], interval: f64) -> Rates {
        // Another supervisor's uptime began anew: nothing can be said.
        if interval <= 0.0 {
            return Rates::default();
        }
        let per_second = |count: u64| count as f64 / interval;
        Rates {
            requests_per_second: self
                .requests
                .map(|it| per_second(it.iter().fold(0, |sum, class| sum.saturating_add(*class)))),
            failed_per_second: self.requests.map(|[.., failed]| per_second(failed)),
            p50_seconds: quantile(bounds, &self.durations, 0.5),
            p99_seconds: quantile(bounds, &self.durations, 0.99),
            cpu_percent: self.cpu_seconds / interval * 100.0,
        }
    }
}
