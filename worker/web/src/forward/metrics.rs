//! What is counted of requests that are forwarded, as the application's own metrics.

use std::rc::Rc;
use std::time::{Duration, Instant};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::failure::Failure;

/// Upper bounds of durations, in seconds.
const BOUNDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The families. A family of which nothing was counted is not exported.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    in_flight: IntGaugeVec,
    durations: HistogramVec,
    queued: HistogramVec,
    connects: IntCounterVec,
    retries: IntCounterVec,
    failures: IntCounterVec,
}

impl Metrics {
    /// Families that `registry` has from now on.
    pub(crate) fn new(registry: &Registry) -> Rc<Self> {
        const NAMED: &str = "the families have names and labels of their own";
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect(NAMED);
            registry.register(Box::new(counter.clone())).expect(NAMED);
            counter
        };
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(BOUNDS.to_vec());
            let histogram = HistogramVec::new(opts, &["upstream"]).expect(NAMED);
            registry.register(Box::new(histogram.clone())).expect(NAMED);
            histogram
        };
        let in_flight = Opts::new(
            "prefork_upstream_requests_in_flight",
            "Requests that a worker of the pool behind has at the moment.",
        );
        let in_flight = IntGaugeVec::new(in_flight, &["upstream"]).expect(NAMED);
        registry.register(Box::new(in_flight.clone())).expect(NAMED);
        Rc::new(Self {
            requests: counter(
                "prefork_upstream_requests_total",
                "Requests that were given to a worker of the pool behind, by its slot.",
                &["upstream", "upstream_slot"],
            ),
            in_flight,
            durations: histogram(
                "prefork_upstream_request_duration_seconds",
                "From the moment that a request has a worker behind to the end of its response.",
            ),
            queued: histogram(
                "prefork_upstream_queue_duration_seconds",
                "How long requests waited in the front for a worker behind.",
            ),
            connects: counter(
                "prefork_upstream_connects_total",
                "Connections that were begun to workers of the pool behind.",
                &["upstream"],
            ),
            retries: counter(
                "prefork_upstream_retries_total",
                "Requests that were given to another worker of the pool behind after the first.",
                &["upstream"],
            ),
            failures: counter(
                "prefork_upstream_failures_total",
                "Requests without a whole response of the pool behind, by reason.",
                &["upstream", "reason"],
            ),
        })
    }

    /// A request is to go to a pool.
    pub(super) fn of(self: &Rc<Self>, pool: &str) -> Series {
        Series {
            metrics: Rc::clone(self),
            pool: pool.into(),
        }
    }
}

/// What is counted of one pool.
#[derive(Debug, Clone)]
pub(super) struct Series {
    metrics: Rc<Metrics>,
    pool: Rc<str>,
}

impl Series {
    /// A request waited for a place from `since` on, and has one.
    pub(super) fn begins(&self, slot: u32, since: Instant) -> Measured {
        let metrics = &self.metrics;
        let pool = [&*self.pool];
        let waited = since.elapsed().as_secs_f64();
        metrics.queued.with_label_values(&pool).observe(waited);
        let slot = slot.to_string();
        let labels = [&*self.pool, slot.as_str()];
        metrics.requests.with_label_values(&labels).inc();
        metrics.in_flight.with_label_values(&pool).inc();
        Measured {
            series: self.clone(),
            began: Instant::now(),
        }
    }

    /// A request goes to another worker.
    pub(super) fn retries(&self) {
        let pool = [&*self.pool];
        self.metrics.retries.with_label_values(&pool).inc();
    }

    /// A request has no whole answer.
    pub(super) fn fails(&self, why: Failure) {
        let labels = [&*self.pool, why.reason()];
        self.metrics.failures.with_label_values(&labels).inc();
    }
}

/// A request at a worker, for as long as it is there.
#[derive(Debug)]
pub(super) struct Measured {
    series: Series,
    began: Instant,
}

impl Measured {
    pub(super) fn connects(&self) {
        let pool = [&*self.series.pool];
        self.series.metrics.connects.with_label_values(&pool).inc();
    }

    /// Since it began.
    pub(super) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Its response is there as a whole.
    pub(super) fn ends(&self) {
        let pool = [&*self.series.pool];
        let took = self.took().as_secs_f64();
        let durations = self.series.metrics.durations.with_label_values(&pool);
        durations.observe(took);
    }

    /// Its response broke off.
    pub(super) fn fails(&self, why: Failure) {
        self.series.fails(why);
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let pool = [&*self.series.pool];
        self.series.metrics.in_flight.with_label_values(&pool).dec();
    }
}
