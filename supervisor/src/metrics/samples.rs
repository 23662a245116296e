//! From numbers to samples: of one slot, or of the slots of a pool together.

use prefork_proto::control::SlotState;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

use super::families::{FAMILIES, Family, Together, Value};
use super::slot::{Numbers, SlotMetrics};
use Value::{Gauge, Histogram, Seconds, State, Total, Totals};

/// Slots that share one series of each family: one slot, or all of a pool.
pub(super) struct Group<'a> {
    pool: &'a str,
    slot: Option<u32>,
    /// Never empty.
    slots: Vec<&'a SlotMetrics>,
}

impl<'a> Group<'a> {
    /// A slot by itself.
    pub(super) fn slot(slot: &'a SlotMetrics) -> Self {
        Self {
            pool: &slot.pool,
            slot: Some(slot.slot),
            slots: vec![slot],
        }
    }

    /// A pool's slots together; none without slots.
    pub(super) fn pool(slots: Vec<&'a SlotMetrics>) -> Option<Self> {
        let first = slots.first()?;
        Some(Self {
            pool: &first.pool,
            slot: None,
            slots,
        })
    }

    /// What each slot's numbers come to.
    fn read<T>(&self, read: impl Fn(&Numbers) -> T) -> impl Iterator<Item = T> {
        self.slots.iter().map(move |slot| read(&slot.numbers()))
    }

    fn labels(&self, more: Option<(&str, &str)>) -> Vec<LabelPair> {
        let pair = |name: &str, value: String| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value);
            pair
        };
        let mut pairs = vec![pair("pool", self.pool.to_owned())];
        pairs.extend(self.slot.map(|slot| pair("slot", slot.to_string())));
        pairs.extend(more.map(|(name, value)| pair(name, value.to_owned())));
        pairs
    }
}

/// Every family with the samples of each group, made one after the other as
/// they are asked for. The groups are all of the same kind; without groups
/// there are no families.
pub(super) fn collect(groups: &[Group<'_>]) -> impl Iterator<Item = MetricFamily> {
    let together = groups.iter().any(|group| group.slot.is_none());
    let exported =
        move |family: &&Family| !(together && matches!(family.value, Gauge(_, Together::LeftOut)));
    let families = if groups.is_empty() { &[] } else { FAMILIES };
    families.iter().filter(exported).map(|family| {
        let mut exported = MetricFamily::default();
        exported.set_name(family.name.to_owned());
        exported.set_help(family.help.to_owned());
        exported.set_field_type(family.value.metric_type());
        let samples = groups.iter().flat_map(|group| family.value.samples(group));
        exported.set_metric(samples.collect());
        exported
    })
}

impl Value {
    fn metric_type(&self) -> MetricType {
        match self {
            Total(_) | Seconds(_) | Totals { .. } => MetricType::COUNTER,
            Gauge(..) | State => MetricType::GAUGE,
            Histogram(_) => MetricType::HISTOGRAM,
        }
    }

    fn samples(&self, group: &Group<'_>) -> Vec<Metric> {
        let plain = || Metric::from_label(group.labels(None));
        let labelled =
            |label: &str, value: &str| Metric::from_label(group.labels(Some((label, value))));
        match self {
            Total(read) => {
                let total = group.read(read).fold(0, u64::saturating_add);
                vec![counter(plain(), total as f64)]
            }
            Seconds(read) => vec![counter(plain(), group.read(read).sum())],
            Gauge(read, together) => vec![gauge(plain(), together.of(group.read(read)))],
            Totals {
                label,
                values,
                numbers,
            } => {
                let values = values(&group.slots[0].labels);
                let totals = values.into_iter().zip(sums(group.read(numbers)));
                let sample = |(value, total)| counter(labelled(label, value), total as f64);
                totals.map(sample).collect()
            }
            State => {
                let sample = |state: SlotState| {
                    let states = group.read(|numbers| numbers.state);
                    let slots = states.filter(|theirs| *theirs == state).count();
                    gauge(labelled("state", state.as_str()), slots as f64)
                };
                SlotState::ALL.into_iter().map(sample).collect()
            }
            Histogram(read) => {
                let mut metric = plain();
                let distributions = group.read(read);
                let whole = distributions.reduce(|whole, slot| whole.and(&slot));
                metric.set_histogram(whole.expect("a group has a slot").to_proto());
                vec![metric]
            }
        }
    }
}

impl Together {
    fn of(self, values: impl Iterator<Item = f64>) -> f64 {
        match self {
            Self::Sum => values.sum(),
            Self::Largest => values.fold(0.0, f64::max),
            Self::Oldest => {
                let known = values.filter(|value| *value > 0.0);
                known.reduce(f64::min).unwrap_or(0.0)
            }
            // Exported only for a slot by itself.
            Self::LeftOut => values.last().unwrap_or(0.0),
        }
    }
}

/// Adds lists of the same length, place by place.
fn sums(lists: impl Iterator<Item = Vec<u64>>) -> Vec<u64> {
    let add = |mut sums: Vec<u64>, list: Vec<u64>| {
        for (sum, number) in sums.iter_mut().zip(list) {
            *sum = sum.saturating_add(number);
        }
        sums
    };
    lists.reduce(add).unwrap_or_default()
}

fn counter(mut metric: Metric, value: f64) -> Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

fn gauge(mut metric: Metric, value: f64) -> Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}
