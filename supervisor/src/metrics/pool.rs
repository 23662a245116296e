//! What is counted for a pool as a whole.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::supervisor::registered;

/// From a quick native program to the longest deadlines, in seconds.
const BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// The families by `pool`.
#[derive(Debug)]
pub(super) struct PoolFamilies {
    desired: IntGaugeVec,
    boot: HistogramVec,
    drain: HistogramVec,
}

/// One pool's metrics.
#[derive(Debug)]
pub struct PoolMetrics {
    desired: IntGauge,
    boot: Histogram,
    drain: Histogram,
}

impl PoolFamilies {
    pub(super) fn new(registry: &Registry) -> Self {
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(BOUNDS.to_vec());
            registered(registry, HistogramVec::new(opts, &["pool"]))
        };
        let desired = Opts::new(
            "prefork_workers_desired",
            "How many workers the pool should have.",
        );
        Self {
            desired: registered(registry, IntGaugeVec::new(desired, &["pool"])),
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
        PoolMetrics {
            desired: self.desired.with_label_values(&[name]),
            boot: self.boot.with_label_values(&[name]),
            drain: self.drain.with_label_values(&[name]),
        }
    }

    pub(super) fn remove(&self, name: &str) {
        let known = "a pool's series are there until they are removed";
        self.desired.remove_label_values(&[name]).expect(known);
        self.boot.remove_label_values(&[name]).expect(known);
        self.drain.remove_label_values(&[name]).expect(known);
    }
}

impl PoolMetrics {
    /// How many workers it should have from now on.
    pub fn desired(&self, workers: u32) {
        self.desired.set(workers.into());
    }

    /// A worker has become ready, this long after its start.
    pub fn booted(&self, took: Duration) {
        self.boot.observe(took.as_secs_f64());
    }

    /// A worker has gone, this long after it was told to drain.
    pub fn drained(&self, took: Duration) {
        self.drain.observe(took.as_secs_f64());
    }
}
