//! From numbers to text: of one slot, or of the slots of a pool together.
//!
//! A thousand slots have more than a hundred thousand samples. They are written
//! straight into the exposition, since objects for each of them and their labels
//! would cost many times as much.

use std::fmt::{Display, Write as _};

use prefork_api::SlotState;

use super::families::{FAMILIES, Family, Together, Value};
use super::slot::{Numbers, SlotMetrics};
use Value::{Gauge, Histogram, Seconds, State, Total, Totals};

/// Slots that share one series of each family: one slot, or all of a pool.
pub(super) struct Group<'a> {
    /// `pool="web",slot="0"`
    labels: String,
    /// Whether they are all of a pool.
    together: bool,
    /// Never empty.
    slots: Vec<&'a SlotMetrics>,
}

impl<'a> Group<'a> {
    /// A slot by itself.
    pub(super) fn slot(slot: &'a SlotMetrics) -> Self {
        let (pool, number) = (escaped(&slot.pool), slot.slot);
        Self {
            labels: format!("pool=\"{pool}\",slot=\"{number}\""),
            together: false,
            slots: vec![slot],
        }
    }

    /// A pool's slots together; none without slots.
    pub(super) fn pool(slots: Vec<&'a SlotMetrics>) -> Option<Self> {
        let pool = escaped(&slots.first()?.pool);
        Some(Self {
            labels: format!("pool=\"{pool}\""),
            together: true,
            slots,
        })
    }

    /// Whether any of its slots has workers that count HTTP.
    fn counts(&self) -> bool {
        self.slots.iter().any(|slot| !slot.numbers().uncounted)
    }

    /// What each slot's numbers come to.
    fn read<T>(&self, read: impl Fn(&Numbers) -> T) -> impl Iterator<Item = T> {
        self.slots.iter().map(move |slot| read(&slot.numbers()))
    }
}

/// A label's value as the text format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace('\n', r"\n")
        .replace('"', "\\\"")
}

/// Writes every family with the samples of each group, or of each pool. The groups are
/// all of the same kind; without groups there are no families.
pub(super) fn write(groups: &[Group<'_>], pools: &[Group<'_>], text: &mut String) {
    let together = groups.iter().any(|group| group.together);
    let exported =
        |family: &&Family| !(together && matches!(family.value, Gauge(_, Together::LeftOut)));
    let families = if groups.is_empty() { &[] } else { FAMILIES };
    for family in families.iter().filter(exported) {
        let Family {
            name,
            help,
            value,
            counted,
            by_pool,
        } = family;
        let groups = if *by_pool { pools } else { groups };
        let kind = value.kind();
        line(
            text,
            format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
        );
        for group in groups.iter().filter(|group| !counted || group.counts()) {
            let mut samples = Samples {
                text: &mut *text,
                name,
                labels: &group.labels,
            };
            value.write(group, &mut samples);
        }
    }
}

fn line(text: &mut String, written: std::fmt::Arguments<'_>) {
    // A String takes all.
    let _ = text.write_fmt(written);
}

/// The samples of one family and one group.
struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
    labels: &'a str,
}

impl Samples<'_> {
    fn plain(&mut self, value: impl Display) {
        self.suffixed("", value);
    }

    fn suffixed(&mut self, suffix: &str, value: impl Display) {
        let Self { text, name, labels } = self;
        line(text, format_args!("{name}{suffix}{{{labels}}} {value}\n"));
    }

    /// With one more label, whose value needs no escapes.
    fn labelled(&mut self, suffix: &str, label: &str, of: impl Display, value: impl Display) {
        let Self { text, name, labels } = self;
        line(
            text,
            format_args!("{name}{suffix}{{{labels},{label}=\"{of}\"}} {value}\n"),
        );
    }
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Total(_) | Seconds(_) | Totals { .. } => "counter",
            Gauge(..) | State => "gauge",
            Histogram(_) => "histogram",
        }
    }

    fn write(&self, group: &Group<'_>, samples: &mut Samples<'_>) {
        match self {
            Total(read) => samples.plain(group.read(read).fold(0, u64::saturating_add)),
            Seconds(read) => samples.plain(group.read(read).sum::<f64>()),
            Gauge(read, together) => samples.plain(together.of(group.read(read))),
            Totals {
                label,
                values,
                numbers,
            } => {
                let values = values(&group.slots[0].labels);
                for (value, total) in values.into_iter().zip(sums(group.read(numbers))) {
                    samples.labelled("", label, value, total);
                }
            }
            State => {
                for state in SlotState::ALL {
                    let states = group.read(|numbers| numbers.state);
                    let slots = states.filter(|theirs| *theirs == state).count();
                    samples.labelled("", "state", state.as_str(), slots);
                }
            }
            Histogram(read) => {
                let distributions = group.read(read);
                let whole = distributions.reduce(|whole, slot| whole.and(&slot));
                let whole = whole.expect("a group has a slot");
                let mut all = 0;
                for (bound, count) in whole.cumulative() {
                    all = count;
                    match bound {
                        Some(bound) => samples.labelled("_bucket", "le", bound, count),
                        None => samples.labelled("_bucket", "le", "+Inf", count),
                    }
                }
                samples.suffixed("_sum", whole.sum());
                samples.suffixed("_count", all);
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
