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

    /// Adds what another process has counted. Buckets of other bounds are of no
    /// use here: then only the sum of observations is kept, above every bound.
    pub(super) fn go_on_from(&mut self, counts: &[u64], sum: f64) {
        if counts.len() == self.counts.len() {
            for (ours, theirs) in self.counts.iter_mut().zip(counts) {
                *ours = ours.saturating_add(*theirs);
            }
        } else if let Some(above) = self.counts.last_mut() {
            *above = counts
                .iter()
                .fold(*above, |sum, count| sum.saturating_add(*count));
        }
        self.sum += sum;
    }

    /// Not cumulative: one for each bound, then one for what lies above.
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The sum of what was observed.
    pub(super) fn sum(&self) -> f64 {
        self.sum
    }

    /// Both together; they have the same bounds.
    pub(super) fn and(mut self, other: &Self) -> Self {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours = ours.saturating_add(*theirs);
        }
        self.sum += other.sum;
        self
    }

    /// How many observations each bound is not below; last those of any size.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (Option<f64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let sum = |sum: &mut u64, count: &u64| {
            *sum = sum.saturating_add(*count);
            Some(*sum)
        };
        bounds.zip(self.counts.iter().scan(0, sum))
    }

    pub(super) fn to_proto(&self) -> proto::Histogram {
        let mut histogram = proto::Histogram::default();
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (bound, count) in self.cumulative() {
            let Some(bound) = bound else {
                histogram.set_sample_count(count);
                break;
            };
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
        histogram.set_bucket(buckets);
        histogram.set_sample_sum(self.sum);
        histogram
    }
}
