//! What was served, in numbers that rates and percentiles are made of: `GET /v1/traffic`.

use serde::{Deserialize, Serialize};

/// What every pool and worker has served: `GET /v1/traffic`.
///
/// Two readings make rates: what a total has grown by, divided by the growth of
/// [`Self::uptime_seconds`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// [`SCHEMA`](crate::SCHEMA).
    pub schema: u32,
    /// When this was read: seconds since the supervisor started, as in the status document.
    pub uptime_seconds: f64,
    /// Upper bounds of the buckets of durations, in seconds. A last bucket without a bound
    /// follows them.
    pub bounds: Vec<f64>,
    /// The pools, in the order of the configuration.
    pub pools: Vec<PoolTraffic>,
}

/// What a pool serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolTraffic {
    /// The pool's name.
    pub name: String,
    /// The last ten minutes, the oldest first; empty where its workers count nothing. An
    /// upgrade or a restart of the supervisor begins anew.
    pub history: Vec<TrafficPoint>,
    /// Its slots, by index.
    pub workers: Vec<WorkerTraffic>,
}

/// What a pool has served in a few seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrafficPoint {
    /// When they ended, in seconds since the Unix epoch.
    pub at: f64,
    /// How many seconds they were.
    pub seconds: f64,
    /// Responses.
    pub requests: u64,
    /// Those of them that are 5xx.
    pub failed: u64,
    /// The 99th percentile of how long they took; absent where nothing was served, or it
    /// lies beyond the last bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_seconds: Option<f64>,
    /// Requests in flight at the end.
    pub in_flight: u64,
}

impl TrafficPoint {
    /// Responses per second.
    pub fn rate(&self) -> f64 {
        per_second(self.requests, self.seconds)
    }

    /// Responses per second that are 5xx.
    pub fn failure_rate(&self) -> f64 {
        per_second(self.failed, self.seconds)
    }
}

/// What all the processes of a slot have served. Every number only grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerTraffic {
    /// The slot's index.
    pub slot: u32,
    /// Responses by status class, 1xx to 5xx; absent where its worker counts none.
    pub requests: Option<[u64; 5]>,
    /// Requests by how long they took: one number for each bucket; empty where its worker
    /// counts none.
    pub durations: Vec<u64>,
    /// Processor time, in seconds.
    pub cpu_seconds: f64,
}

/// A count as a rate; 0 in no time.
fn per_second(count: u64, seconds: f64) -> f64 {
    match seconds > 0.0 {
        true => count as f64 / seconds,
        false => 0.0,
    }
}

/// A quantile of a histogram, as if values were spread evenly over their bucket: `share`
/// of them are not above it. `counts` has one number for each of the `bounds`, then one
/// for what lies above. None where nothing was counted, or the quantile lies above.
pub fn quantile(bounds: &[f64], counts: &[u64], share: f64) -> Option<f64> {
    let total = counts
        .iter()
        .fold(0_u64, |sum, count| sum.saturating_add(*count));
    let rank = total as f64 * share;
    let mut below = 0_u64;
    for (index, count) in counts.iter().enumerate() {
        let upper = *bounds.get(index)?;
        let reached = below.saturating_add(*count);
        if *count > 0 && reached as f64 >= rank {
            let lower = index.checked_sub(1).map_or(0.0, |before| bounds[before]);
            let share = (rank - below as f64) / *count as f64;
            return Some(lower + (upper - lower) * share);
        }
        below = reached;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [f64; 3] = [0.1, 1.0, 10.0];

    #[test]
    fn a_quantile_lies_in_the_bucket_that_has_its_rank() {
        assert_eq!(quantile(&BOUNDS, &[100, 0, 0, 0], 0.5), Some(0.05));
        assert_eq!(quantile(&BOUNDS, &[50, 50, 0, 0], 0.5), Some(0.1));
        assert_eq!(quantile(&BOUNDS, &[0, 10, 0, 0], 1.0), Some(1.0));
    }

    #[test]
    fn what_cannot_be_said_is_not_guessed() {
        assert_eq!(quantile(&BOUNDS, &[0, 0, 0, 0], 0.99), None);
        assert_eq!(quantile(&BOUNDS, &[0, 0, 0, 7], 0.99), None);
        assert_eq!(quantile(&BOUNDS, &[], 0.99), None);
    }

    #[test]
    fn a_point_of_no_time_has_no_rate() {
        let point = |seconds| TrafficPoint {
            at: 0.0,
            seconds,
            requests: 10,
            failed: 5,
            p99_seconds: None,
            in_flight: 0,
        };
        assert_eq!((point(5.0).rate(), point(5.0).failure_rate()), (2.0, 1.0));
        assert_eq!(point(0.0).rate(), 0.0);
    }
}
