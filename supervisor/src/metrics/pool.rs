//! What is counted for a pool as a whole.

use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::histograms::Histograms;
use super::saved::SavedPool;
use super::supervisor::registered;
use prefork_fleet::Verdict;

/// From a quick native program to the longest deadlines, in seconds.
const BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// The families by `pool`.
#[derive(Debug)]
pub(super) struct PoolFamilies {
    desired: IntGaugeVec,
    needed: IntGaugeVec,
    boot: Histograms,
    drain: Histograms,
    judged: IntGaugeVec,
    verdicts: IntCounterVec,
}

/// One pool's metrics.
#[derive(Debug)]
pub struct PoolMetrics {
    name: String,
    desired: IntGauge,
    needed: IntGauge,
    boot: Histograms,
    drain: Histograms,
    judged: IntGauge,
    verdicts: IntCounterVec,
}

impl PoolFamilies {
    pub(super) fn new(registry: &Registry) -> Self {
        let histogram = |name: &str, help: &str| {
            registered(registry, Histograms::new(name, help, Some("pool"), &BOUNDS))
        };
        let desired = Opts::new(
            "prefork_workers_desired",
            "How many workers the pool should have.",
        );
        let needed = Opts::new(
            "prefork_workers_needed",
            "How many workers must be ready for the pool not to count as not ready.",
        );
        let judged = Opts::new(
            "prefork_canary_workers",
            "How many workers of a new generation are being judged as the pool's canary.",
        );
        let verdicts = Opts::new(
            "prefork_canaries_total",
            "Canaries by what came of them: passed, failed, no_verdict, promoted, aborted.",
        );
        Self {
            judged: registered(registry, IntGaugeVec::new(judged, &["pool"])),
            verdicts: registered(registry, IntCounterVec::new(verdicts, &["pool", "verdict"])),
            desired: registered(registry, IntGaugeVec::new(desired, &["pool"])),
            needed: registered(registry, IntGaugeVec::new(needed, &["pool"])),
            boot: histogram(
                "prefork_worker_boot_duration_seconds",
                "Time from a worker's start until it was ready.",
            ),
            drain: histogram(
                "prefork_worker_drain_duration_seconds",
                "Time from the order to drain until the worker had gone.",
            ),
        }
    }

    pub(super) fn pool(&self, name: &str) -> PoolMetrics {
        self.boot.add(name);
        self.drain.add(name);
        for verdict in Verdict::ALL {
            self.verdicts.with_label_values(&[name, verdict.as_str()]);
        }
        PoolMetrics {
            name: name.to_owned(),
            desired: self.desired.with_label_values(&[name]),
            needed: self.needed.with_label_values(&[name]),
            boot: self.boot.clone(),
            drain: self.drain.clone(),
            judged: self.judged.with_label_values(&[name]),
            verdicts: self.verdicts.clone(),
        }
    }

    pub(super) fn remove(&self, name: &str) {
        let known = "a pool's series are there until they are removed";
        self.desired.remove_label_values(&[name]).expect(known);
        self.needed.remove_label_values(&[name]).expect(known);
        self.judged.remove_label_values(&[name]).expect(known);
        for verdict in Verdict::ALL {
            let labels = [name, verdict.as_str()];
            self.verdicts.remove_label_values(&labels).expect(known);
        }
        self.boot.remove(name);
        self.drain.remove(name);
    }
}

impl PoolMetrics {
    /// How many workers it should have from now on.
    pub fn desired(&self, workers: u32) {
        self.desired.set(workers.into());
    }

    /// How many of them it takes for it to serve.
    pub fn needed(&self, workers: u32) {
        self.needed.set(workers.into());
    }

    /// How many workers of a new generation are being judged.
    pub fn canary(&self, workers: u32) {
        self.judged.set(workers.into());
    }

    /// There is a verdict on a canary.
    pub fn judged(&self, verdict: Verdict) {
        self.verdict(verdict).inc();
    }

    fn verdict(&self, verdict: Verdict) -> IntCounter {
        let labels = [&*self.name, verdict.as_str()];
        self.verdicts.with_label_values(&labels)
    }

    /// A worker has become ready, this long after its start.
    pub fn booted(&self, took: Duration) {
        self.boot.observe(&self.name, took.as_secs_f64());
    }

    /// A worker has gone, this long after it was told to drain.
    pub fn drained(&self, took: Duration) {
        self.drain.observe(&self.name, took.as_secs_f64());
    }

    pub(super) fn save(&self) -> SavedPool {
        let saved = |histograms: &Histograms| {
            let distribution = histograms.of(&self.name);
            distribution.as_ref().map(Into::into).unwrap_or_default()
        };
        let canaries = Verdict::ALL.into_iter().filter_map(|verdict| {
            let count = self.verdict(verdict).get();
            (count > 0).then(|| (verdict.as_str().to_owned(), count))
        });
        SavedPool {
            canaries: canaries.collect(),
            boot: saved(&self.boot),
            drain: saved(&self.drain),
        }
    }

    pub(super) fn restore(&self, saved: &SavedPool) {
        for (histograms, saved) in [(&self.boot, &saved.boot), (&self.drain, &saved.drain)] {
            histograms.go_on_from(&self.name, &saved.counts, saved.sum);
        }
        for verdict in Verdict::ALL {
            let count = saved.canaries.get(verdict.as_str()).copied();
            self.verdict(verdict).inc_by(count.unwrap_or(0));
        }
    }
}
