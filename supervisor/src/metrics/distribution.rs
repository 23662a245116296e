//! A histogram from counts per bucket.

use prometheus::proto;

/// How many observations fell into each bucket, and their sum.
#[derive(Debug, Clone)]
pub(super) struct Distribution {
    bounds: &'static [f64],
    /// Not cumulative: one for each bound, then one for what lies above.
    counts: Vec<u64>,
    sum: f64,
}

impl Distribution {
    /// With nothing observed; `bounds` grow.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self::of(bounds, &vec![0; bounds.len() + 1], 0.0)
    }

    /// From what has been counted elsewhere.
    pub(super) fn of(bounds: &'static [f64], counts: &[u64], sum: f64) -> Self {
        Self {
            bounds,
            counts: counts.to_vec(),
            sum,
        }
    }

    pub(super) fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// Both together; they have the same bounds.
    pub(super) fn and(mut self, other: &Self) -> Self {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours = ours.saturating_add(*theirs);
        }
        self.sum += other.sum;
        self
    }

    pub(super) fn to_proto(&self) -> proto::Histogram {
        let mut cumulative = 0_u64;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        let mut counts = self.counts.iter();
        for (bound, count) in self.bounds.iter().zip(counts.by_ref()) {
            cumulative = cumulative.saturating_add(*count);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram
            .set_sample_count(counts.fold(cumulative, |sum, count| sum.saturating_add(*count)));
        histogram.set_sample_sum(self.sum);
        histogram
    }
}
