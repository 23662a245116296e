//! What the worker counts, in relaxed atomics that the serving loop writes
//! and `health` reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prefork_proto::message::{DURATION_BOUNDS, HttpCounts};

/// [`DURATION_BOUNDS`] in microseconds, so that a request is sorted into its
/// bucket without floating point.
const BOUNDS_US: [u64; DURATION_BOUNDS.len()] = {
    let mut bounds = [0; DURATION_BOUNDS.len()];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = (DURATION_BOUNDS[index] * 1_000_000.0) as u64;
        index += 1;
    }
    bounds
};

/// The process's HTTP totals and gauges.
///
/// Everything but the byte counts is written by the one serving thread, and
/// an uncontended relaxed addition costs it next to nothing. Bytes may also
/// come from wherever the application took an upgraded connection.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: [AtomicU64; 5],
    accepted: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    duration_buckets: [AtomicU64; DURATION_BOUNDS.len() + 1],
    duration_sum_us: AtomicU64,
    in_flight: AtomicU64,
}

impl Counters {
    /// One response: its status and the time from request head to response head.
    pub(crate) fn answered(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.requests[class].fetch_add(1, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US
            .iter()
            .position(|bound| micros <= *bound)
            .unwrap_or(BOUNDS_US.len());
        self.duration_buckets[bucket].fetch_add(1, Relaxed);
        self.duration_sum_us.fetch_add(micros, Relaxed);
    }

    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn request_began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn request_ended(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Requests whose response body is not finished.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// The totals as the channel carries them.
    pub(crate) fn totals(&self) -> HttpCounts {
        HttpCounts {
            requests: self.requests.each_ref().map(|class| class.load(Relaxed)),
            accepted: self.accepted.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            duration_buckets: self
                .duration_buckets
                .each_ref()
                .map(|bucket| bucket.load(Relaxed)),
            duration_sum_us: self.duration_sum_us.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_lands_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let counters = Counters::default();
        counters.answered(200, Duration::from_micros(500));
        counters.answered(204, Duration::from_micros(501));
        counters.answered(503, Duration::from_secs(11));
        let totals = counters.totals();
        assert_eq!(totals.duration_buckets[0], 1);
        assert_eq!(totals.duration_buckets[1], 1);
        assert_eq!(totals.duration_buckets[DURATION_BOUNDS.len()], 1);
        assert_eq!(totals.duration_sum_us, 500 + 501 + 11_000_000);
        assert_eq!(totals.requests, [0, 2, 0, 0, 1]);
    }

    #[test]
    fn a_status_out_of_range_is_counted_with_its_nearest_class() {
        let counters = Counters::default();
        counters.answered(999, Duration::ZERO);
        assert_eq!(counters.totals().requests, [0, 0, 0, 0, 1]);
    }
}
