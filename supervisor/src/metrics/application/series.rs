//! One series of the application's, over all workers of a pool.

use std::collections::BTreeMap;

use prefork_proto::metrics::{self, FamilyType, Rule};
use prometheus::proto::{self, LabelPair, Metric};
use serde::{Deserialize, Serialize};

use super::Who;
use super::form::Form;

/// A series: what it comes to, and what each live worker has said of it.
#[derive(Debug)]
pub(super) struct Series {
    /// Of counters and histograms: all that workers have ever added.
    pub(super) total: Value,
    pub(super) live: BTreeMap<Who, Reported>,
}

/// A worker's last word on a series.
#[derive(Debug)]
pub(super) struct Reported {
    /// The report's number.
    pub(super) seq: u64,
    pub(super) value: Value,
    /// It says less than it did; `value` is what it said before.
    pub(super) held: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Number(f64),
    Histogram {
        buckets: Box<[u64]>,
        sum: f64,
        count: u64,
    },
}

impl Series {
    pub(super) fn new(form: &Form) -> Self {
        Self {
            total: Value::zero(form),
            live: BTreeMap::new(),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        !self.live.is_empty()
    }

    /// Takes what a worker says, which fits the form. `true` where it has begun
    /// to run backwards.
    pub(super) fn report(
        &mut self,
        form: &Form,
        who: Who,
        seq: u64,
        series: &metrics::Series,
    ) -> bool {
        let reported = self.live.entry(who).or_insert_with(|| Reported {
            seq,
            value: Value::zero(form),
            held: false,
        });
        reported.seq = seq;
        let new = Value::of(series);
        if form.kind == FamilyType::Gauge {
            reported.value = new;
            return false;
        }
        let backwards = !self.total.grow(&mut reported.value, &new);
        backwards && !std::mem::replace(&mut reported.held, backwards)
    }

    /// Forgets a worker. What it has added stays.
    pub(super) fn forget(&mut self, who: Who) {
        self.live.remove(&who);
    }

    /// Forgets a worker whose report of this number does not have the series.
    pub(super) fn forget_unless(&mut self, who: Who, seq: u64) {
        if self.live.get(&who).is_some_and(|last| last.seq != seq) {
            self.live.remove(&who);
        }
    }

    /// Its sample.
    pub(super) fn sample(&self, form: &Form, labels: Vec<LabelPair>) -> Metric {
        let mut metric = Metric::from_label(labels);
        match (&self.total, form.kind) {
            (_, FamilyType::Gauge) => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(self.together(form.rule));
                metric.set_gauge(gauge);
            }
            (Value::Number(total), _) => {
                let mut counter = proto::Counter::default();
                counter.set_value(*total);
                metric.set_counter(counter);
            }
            (
                Value::Histogram {
                    buckets,
                    sum,
                    count,
                },
                _,
            ) => {
                let buckets = form.bounds.iter().zip(buckets).map(|(bound, count)| {
                    let mut bucket = proto::Bucket::default();
                    bucket.set_upper_bound(*bound);
                    bucket.set_cumulative_count(*count);
                    bucket
                });
                let mut histogram = proto::Histogram::default();
                histogram.set_bucket(buckets.collect());
                histogram.set_sample_sum(*sum);
                histogram.set_sample_count(*count);
                metric.set_histogram(histogram);
            }
        }
        metric
    }

    /// What the live workers' values of a gauge come to.
    fn together(&self, rule: Rule) -> f64 {
        let mut values = self.live.values().filter_map(|last| match last.value {
            Value::Number(value) => Some(value),
            Value::Histogram { .. } => None,
        });
        let value = match rule {
            Rule::Max => values.reduce(f64::max),
            Rule::Min => values.reduce(f64::min),
            // A successor beside the predecessor that drains: the newer one.
            Rule::Slot => values.next_back(),
            Rule::Sum | Rule::Other => values.reduce(|sum, value| bounded(sum + value)),
        };
        value.unwrap_or(0.0)
    }
}

impl Value {
    fn zero(form: &Form) -> Self {
        match form.kind {
            FamilyType::Histogram => Self::Histogram {
                buckets: vec![0; form.bounds.len()].into(),
                sum: 0.0,
                count: 0,
            },
            _ => Self::Number(0.0),
        }
    }

    fn of(series: &metrics::Series) -> Self {
        match (series.value, series.sum, series.count) {
            (_, Some(sum), Some(count)) => Self::Histogram {
                buckets: series.buckets.iter().map(|(_, count)| *count).collect(),
                sum,
                count,
            },
            (value, ..) => Self::Number(value.unwrap_or(0.0)),
        }
    }

    /// Adds to this total what `new` has grown over `last`, and makes it the
    /// last. What is lower than before keeps its highest value: then `false`.
    fn grow(&mut self, last: &mut Self, new: &Self) -> bool {
        match (self, last, new) {
            (Self::Number(total), Self::Number(last), Self::Number(new)) => {
                if new < last {
                    return false;
                }
                *total = bounded(*total + (new - *last));
                *last = *new;
                true
            }
            (
                Self::Histogram {
                    buckets: totals,
                    sum: total_sum,
                    count: total_count,
                },
                Self::Histogram {
                    buckets: lasts,
                    sum: last_sum,
                    count: last_count,
                },
                Self::Histogram {
                    buckets,
                    sum,
                    count,
                },
            ) => {
                let cells = buckets.iter().chain([count]);
                if cells
                    .zip(lasts.iter().chain([&*last_count]))
                    .any(|(new, last)| new < last)
                {
                    return false;
                }
                let totals = totals.iter_mut().chain([total_count]);
                let lasts = lasts.iter_mut().chain([last_count]);
                let news = buckets.iter().chain([count]);
                for ((total, last), new) in totals.zip(lasts).zip(news) {
                    *total = total.saturating_add(new - *last);
                    *last = *new;
                }
                *total_sum = bounded(*total_sum + bounded(sum - *last_sum));
                *last_sum = *sum;
                true
            }
            // Both were made for one form.
            _ => false,
        }
    }
}

/// Never infinite.
fn bounded(value: f64) -> f64 {
    value.clamp(f64::MIN, f64::MAX)
}
