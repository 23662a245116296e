//! What came of the clients' requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Answers are counted by such pieces of time.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// What came of the clients' requests.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Requests answered with the right bytes.
    pub(crate) served: u64,
    /// How often each thing went wrong.
    pub(crate) broken: BTreeMap<&'static str, u64>,
    /// From request (from `connect` on a new connection) to answer, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// The longest time in which nobody was answered.
    pub(crate) longest_gap: Duration,
    /// Answers in each [`SLICE`] of the time, the last of them not to its end.
    pub(crate) slices: Vec<u64>,
    /// How long the clients asked.
    pub(crate) elapsed: Duration,
    /// Processor time that the clients took.
    pub(crate) client_cpu: Duration,
    begun: Instant,
    last_answer: Instant,
}

impl Outcome {
    /// Begins now; `cpu` is what the thread has taken so far.
    pub(super) fn new(cpu: Duration) -> Self {
        let now = Instant::now();
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3);
        Self {
            served: 0,
            broken: BTreeMap::new(),
            latency: latency.expect("the bounds are in order"),
            longest_gap: Duration::ZERO,
            slices: Vec::new(),
            elapsed: Duration::ZERO,
            client_cpu: cpu,
            begun: now,
            last_answer: now,
        }
    }

    /// A request that was sent at `asked` has its answer.
    pub(super) fn answered(&mut self, asked: Instant) {
        let now = Instant::now();
        self.served += 1;
        let took = now.duration_since(asked).as_nanos();
        self.latency
            .saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
        self.longest_gap = self.longest_gap.max(now.duration_since(self.last_answer));
        self.last_answer = now;
        let slice = self.slice(now);
        if self.slices.len() <= slice {
            self.slices.resize(slice + 1, 0);
        }
        self.slices[slice] += 1;
    }

    fn slice(&self, at: Instant) -> usize {
        let since = at.duration_since(self.begun).as_nanos() / SLICE.as_nanos();
        usize::try_from(since).unwrap_or(usize::MAX - 1)
    }

    /// A request came to nothing.
    pub(super) fn broke(&mut self, why: &'static str) {
        *self.broken.entry(why).or_default() += 1;
    }

    pub(super) fn end(&mut self, cpu: Duration) {
        let last = self.slice(Instant::now());
        // Those without an answer are slices, too.
        self.slices.resize(last + 1, 0);
        self.elapsed = self.begun.elapsed();
        self.longest_gap = self.longest_gap.max(self.last_answer.elapsed());
        self.client_cpu = cpu.saturating_sub(self.client_cpu);
    }

    /// Requests that came to nothing.
    pub(crate) fn broken_count(&self) -> u64 {
        self.broken.values().sum()
    }

    /// What went wrong how often, for people.
    pub(crate) fn broken_list(&self) -> String {
        let list: Vec<String> = self
            .broken
            .iter()
            .map(|(why, count)| format!("{count} × {why}"))
            .collect();
        list.join(", ")
    }

    /// Requests answered per second.
    pub(crate) fn rate(&self) -> f64 {
        self.served as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency in microseconds that this part of the requests did not exceed.
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}
