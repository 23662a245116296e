//! What is counted of a pool's canary and of its old generation, and what that comes to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use prefork_api::quantile;

use crate::interface::Worker;
use crate::state::canary::Canary;
use crate::state::comparison::{Comparison, Count};

/// How likely a canary that is as good as the old generation is undone at most.
const ERROR: f64 = 0.01;

/// Each of the three things that are compared takes a third of that.
const ERROR_OF_EACH: f64 = ERROR / 3.0;

/// Between two looks at what was counted.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// So many requests of the old generation have to be known before it is said what is
/// slow for it.
const FEWEST_TIMED: u64 = 100;

/// No process counts more of anything between two looks. One that says so is not
/// believed: its counts are in memory that it can write to.
const MOST_COUNTED: u64 = 1 << 24;

/// The share of requests that may take longer than the 99th percentile.
const SLOWEST: f64 = 0.01;

/// What a process has served since it began, as far as it is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Responses of all kinds.
    pub requests: u64,
    /// Those of them that are 5xx.
    pub failed: u64,
    /// Requests whose handler panicked.
    pub panics: u64,
    /// Requests by how long they took, each bucket for itself; a last one for what took
    /// longer than the last bound.
    pub durations: Vec<u64>,
}

/// What has been counted since a canary began to be judged.
#[derive(Debug)]
pub(crate) struct Trial {
    terms: Canary,
    /// The upper bounds of the duration buckets, in seconds.
    bounds: &'static [f64],
    /// What each process had counted at the last look.
    seen: BTreeMap<Worker, Traffic>,
    /// Whether there has been a first look, from which on is counted.
    begun: bool,
    old: Traffic,
    new: Traffic,
    failures: Comparison,
    slowness: Comparison,
    panics: Comparison,
}

/// What a look at a canary comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It is worse than the old generation.
    Worse(Fault),
    /// Nothing speaks against it, and enough was counted.
    Sound,
    /// Not enough was counted yet.
    TooFew,
}

/// In what a canary is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Failures,
    Panics,
    Slowness,
}

impl Trial {
    pub(crate) fn new(terms: Canary) -> Self {
        Self {
            terms,
            bounds: &[],
            seen: BTreeMap::new(),
            begun: false,
            old: Traffic::default(),
            new: Traffic::default(),
            failures: Comparison::default(),
            slowness: Comparison::default(),
            panics: Comparison::default(),
        }
    }

    /// Whether there has been a first look.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes what the pool's processes have counted by now: of each whether it is of the
    /// new generation. The first look is where the count begins.
    pub(crate) fn count(
        &mut self,
        bounds: &'static [f64],
        tallies: impl IntoIterator<Item = (Worker, bool, Traffic)>,
    ) {
        self.bounds = bounds;
        let slow_from = self.slow_from();
        let [mut old, mut new] = [Traffic::default(), Traffic::default()];
        for (worker, is_new, tally) in tallies {
            let before = self.seen.insert(worker, tally.clone());
            // One that was not there at the first look has counted nothing before it.
            let since = match (before, self.begun) {
                (Some(before), true) => tally.since(&before),
                (None, true) => tally.since(&Traffic::default()),
                (_, false) => continue,
            };
            if is_new { &mut new } else { &mut old }.add(&since);
        }
        self.begun = true;
        let count = |tally: &Traffic, wrong: u64| Count {
            requests: tally.requests,
            wrong: wrong.min(tally.requests),
        };
        let failed = |it: &Traffic| count(it, it.failed);
        let panicked = |it: &Traffic| count(it, it.panics);
        self.failures.observe(failed(&old), failed(&new));
        self.panics.observe(panicked(&old), panicked(&new));
        if let Some(from) = slow_from {
            let slow = |it: &Traffic| count(it, it.durations.iter().skip(from).sum());
            self.slowness.observe(slow(&old), slow(&new));
        }
        self.old.add(&old);
        self.new.add(&new);
    }

    /// The first duration bucket that is slow, by what the old generation has taken so
    /// far: all of it is beyond its 99th percentile times what is allowed.
    fn slow_from(&self) -> Option<usize> {
        if self.terms.max_p99_ratio == 0.0 || self.old.requests < FEWEST_TIMED {
            return None;
        }
        let limit = self.old.p99(self.bounds)? * self.terms.max_p99_ratio;
        let before = self.bounds.iter().position(|bound| *bound >= limit)?;
        Some(before + 1)
    }

    /// What was counted comes to this by now.
    pub(crate) fn finding(&self) -> Finding {
        // What is slow was chosen before it was counted, so that this is a fair lot, too.
        let is_slower = self.slowness.new.rate() > SLOWEST;
        if self.failures.is_worse(ERROR_OF_EACH) {
            Finding::Worse(Fault::Failures)
        } else if self.panics.is_worse(ERROR_OF_EACH) {
            Finding::Worse(Fault::Panics)
        } else if is_slower && self.slowness.is_worse(ERROR_OF_EACH) {
            Finding::Worse(Fault::Slowness)
        } else if self.old.requests.min(self.new.requests) < self.terms.min_requests {
            Finding::TooFew
        } else {
            Finding::Sound
        }
    }

    /// What has been counted of the old generation and of the new one.
    pub(crate) fn traffic(&self) -> [&Traffic; 2] {
        [&self.old, &self.new]
    }

    /// The 99th percentiles of the durations, of the old generation and the new one.
    pub(crate) fn p99(&self) -> [Option<Duration>; 2] {
        self.traffic().map(|tally| {
            let seconds = tally.p99(self.bounds)?;
            Duration::try_from_secs_f64(seconds).ok()
        })
    }

    /// Both rates in the terms of a fault.
    pub(crate) fn compared(&self, fault: Fault) -> String {
        let [old, new] = self.traffic();
        let what = match fault {
            Fault::Failures => return self.to_string(),
            Fault::Panics => format!("{} panics against {}", new.panics, old.panics),
            Fault::Slowness => format!(
                "{} slow ones against {}",
                Percent(self.slowness.new.rate()),
                Percent(self.slowness.old.rate())
            ),
        };
        format!("{what}; {self}")
    }
}

/// Both rates: `4.1 % 5xx against 0.2 %, 1210 requests against 9812, p99 31 ms against 12 ms`.
impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [old, new] = self.traffic();
        let rate = |tally: &Traffic| Percent(tally.failure_rate());
        write!(
            f,
            "{} 5xx against {}, {} requests against {}",
            rate(new),
            rate(old),
            new.requests,
            old.requests
        )?;
        match self.p99() {
            [Some(old), Some(new)] => {
                let ms = |it: Duration| it.as_secs_f64() * 1000.0;
                write!(f, ", p99 {:.1} ms against {:.1} ms", ms(new), ms(old))
            }
            _ => Ok(()),
        }
    }
}

/// A share, as people read it.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", self.0 * 100.0)
    }
}

impl Traffic {
    /// What was counted between an earlier look and this one. A process that counts
    /// backwards, or more than can be, has counted nothing.
    fn since(&self, before: &Self) -> Self {
        let durations = self.durations.iter().enumerate().map(|(index, count)| {
            let before = before.durations.get(index).copied().unwrap_or(0);
            count.saturating_sub(before)
        });
        let since = Self {
            requests: self.requests.saturating_sub(before.requests),
            failed: self.failed.saturating_sub(before.failed),
            panics: self.panics.saturating_sub(before.panics),
            durations: durations.collect(),
        };
        let counts = [since.requests, since.failed, since.panics];
        let mut counts = counts.iter().chain(&since.durations);
        match counts.all(|count| *count <= MOST_COUNTED) {
            true => since,
            false => Self::default(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failed = self.failed.saturating_add(other.failed);
        self.panics = self.panics.saturating_add(other.panics);
        let buckets = self.durations.len().max(other.durations.len());
        self.durations.resize(buckets, 0);
        for (sum, count) in self.durations.iter_mut().zip(&other.durations) {
            *sum = sum.saturating_add(*count);
        }
    }

    fn failure_rate(&self) -> f64 {
        let count = Count {
            requests: self.requests,
            wrong: self.failed,
        };
        count.rate()
    }

    /// The 99th percentile in seconds, as if durations were spread evenly over their
    /// bucket; none where nothing was counted, or it lies beyond the last bound.
    fn p99(&self, bounds: &[f64]) -> Option<f64> {
        quantile(bounds, &self.durations, 1.0 - SLOWEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::PoolId;

    #[test]
    fn a_process_that_lies_in_its_counts_has_counted_nothing() {
        let worker = |slot| Worker {
            pool: PoolId(0),
            slot,
            incarnation: 1,
        };
        let terms = Canary::default();
        let mut trial = Trial::new(terms);
        let bounds = &[0.01, 0.1];
        let tally = |count| Traffic {
            requests: count,
            failed: count,
            panics: count,
            durations: vec![count; 3],
        };
        let honest = |requests| Traffic {
            requests,
            durations: vec![requests, 0, 0],
            ..Traffic::default()
        };
        trial.count(
            bounds,
            [(worker(0), false, honest(0)), (worker(1), true, tally(0))],
        );
        for round in 1..=100 {
            // It bounces, so that each look might add all that there is.
            let lie = if round % 2 == 0 { 0 } else { u64::MAX };
            let looks = [
                (worker(0), false, honest(round * 10)),
                (worker(1), true, tally(lie)),
            ];
            trial.count(bounds, looks);
            trial.p99();
            assert_eq!(trial.finding(), Finding::TooFew);
        }
        let [old, new] = trial.traffic();
        assert_eq!((old.requests, new), (1000, &tally(0)));
    }
}
