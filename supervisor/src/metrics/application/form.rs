//! What a family of the application's looks like, and whether it can be
//! exported at all. Nothing that a worker writes is taken on trust.

use prefork_proto::metrics::{self, FamilyType, Rule};
use serde::{Deserialize, Serialize};

/// The longest name, help and labels of a series together, in bytes.
const LONGEST: usize = 2048;

/// Why a family is refused: the values of the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    InvalidName,
    ReservedName,
    InvalidLabel,
    InvalidValue,
    UnsupportedType,
    Clash,
    TooLong,
    TooManySeries,
}

impl Refusal {
    pub(super) const ALL: [Self; 8] = [
        Self::InvalidName,
        Self::ReservedName,
        Self::InvalidLabel,
        Self::InvalidValue,
        Self::UnsupportedType,
        Self::Clash,
        Self::TooLong,
        Self::TooManySeries,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::InvalidName => "invalid_name",
            Self::ReservedName => "reserved_name",
            Self::InvalidLabel => "invalid_label",
            Self::InvalidValue => "invalid_value",
            Self::UnsupportedType => "unsupported_type",
            Self::Clash => "clash",
            Self::TooLong => "too_long",
            Self::TooManySeries => "too_many_series",
        }
    }

    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::InvalidName => "Prometheus does not allow its name",
            Self::ReservedName => "names that begin with prefork_ or process_ are the supervisor's",
            Self::InvalidLabel => {
                "a label's name is not allowed, or not all of its series have the same labels"
            }
            Self::InvalidValue => {
                "its values are none of its type: counters are not negative, and a histogram's \
                 bounds and buckets ascend and are the same in all of its series"
            }
            Self::UnsupportedType => {
                "only counters, gauges (by sum, max, min or slot) and histograms can be put \
                 together from several workers"
            }
            Self::Clash => {
                "another worker of the pool reports the name, or one of its samples' names, with \
                 another type, rule, labels or bounds"
            }
            Self::TooLong => {
                "its name, help and the labels of a series are longer than 2,048 bytes"
            }
            Self::TooManySeries => "the pool has [metrics] max_series samples already",
        }
    }
}

/// What all workers have to agree on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Form {
    pub(super) kind: FamilyType,
    pub(super) rule: Rule,
    /// Names of labels as the worker has them, in their order.
    labels: Vec<String>,
    /// Of histograms.
    pub(super) bounds: Vec<f64>,
}

impl Form {
    /// The form of a reported family, all of whose values fit it. None without series.
    pub(super) fn of(family: &metrics::Family) -> Result<Option<Self>, Refusal> {
        check_name(&family.name)?;
        let Some(first) = family.series.first() else {
            return Ok(None);
        };
        let is_gauge = family.kind == FamilyType::Gauge;
        if family.kind == FamilyType::Other || (is_gauge && family.rule == Rule::Other) {
            return Err(Refusal::UnsupportedType);
        }
        let form = Self {
            kind: family.kind,
            rule: if is_gauge { family.rule } else { Rule::Sum },
            labels: first.labels.keys().cloned().collect(),
            bounds: first.buckets.iter().map(|(bound, _)| *bound).collect(),
        };
        form.check_labels()?;
        let fixed = family.name.len() + family.help.len();
        for series in &family.series {
            if !series.labels.keys().eq(&form.labels) {
                return Err(Refusal::InvalidLabel);
            }
            let labels = series.labels.iter();
            let length: usize = labels.map(|(name, value)| name.len() + value.len()).sum();
            if fixed + length > LONGEST {
                return Err(Refusal::TooLong);
            }
            if !form.fits(series) {
                return Err(Refusal::InvalidValue);
            }
        }
        Ok(Some(form))
    }

    /// Names of labels as they are exported: the application's own that the
    /// supervisor adds one of is renamed, as Prometheus does it.
    pub(super) fn exported_labels(&self) -> impl Iterator<Item = String> {
        self.labels.iter().map(|label| match label.as_str() {
            "pool" => "exported_pool".to_owned(),
            "slot" if self.rule == Rule::Slot => "exported_slot".to_owned(),
            _ => label.clone(),
        })
    }

    /// How many samples a series has in the exposition.
    pub(super) fn samples(&self) -> usize {
        match self.kind {
            // The infinite bucket, the sum and the count.
            FamilyType::Histogram => self.bounds.len() + 3,
            _ => 1,
        }
    }

    fn check_labels(&self) -> Result<(), Refusal> {
        let allowed = |label: &String| {
            let is_bound = self.kind == FamilyType::Histogram && label == "le";
            is_name(label, "_") && !label.starts_with("__") && !is_bound
        };
        let mut exported: Vec<String> = self.exported_labels().collect();
        exported.sort_unstable();
        exported.dedup();
        if self.labels.iter().all(allowed) && exported.len() == self.labels.len() {
            Ok(())
        } else {
            Err(Refusal::InvalidLabel)
        }
    }

    fn fits(&self, series: &metrics::Series) -> bool {
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        match self.kind {
            FamilyType::Counter => finite(series.value).is_some_and(|value| value >= 0.0),
            FamilyType::Gauge => finite(series.value).is_some(),
            FamilyType::Histogram => {
                let (bounds, counts): (Vec<f64>, Vec<u64>) = series.buckets.iter().copied().unzip();
                bounds == self.bounds
                    && bounds.iter().all(|bound| bound.is_finite())
                    && bounds.is_sorted_by(|less, more| less < more)
                    && counts.is_sorted()
                    && finite(series.sum).is_some()
                    && series
                        .count
                        .is_some_and(|count| counts.last() <= Some(&count))
            }
            FamilyType::Other => false,
        }
    }
}

/// The names of the samples that a family takes in the exposition.
pub(super) fn sample_names(name: &str, kind: FamilyType) -> Vec<String> {
    let parts: &[&str] = match kind {
        FamilyType::Histogram => &["", "_bucket", "_sum", "_count"],
        _ => &[""],
    };
    parts.iter().map(|part| format!("{name}{part}")).collect()
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if !is_name(name, "_:") {
        return Err(Refusal::InvalidName);
    }
    // What a front counts is reported as an application's metrics are.
    if name.starts_with("prefork_upstream_") {
        return Ok(());
    }
    let reserved = ["prefork_", "process_"];
    if reserved.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(Refusal::ReservedName);
    }
    Ok(())
}

/// Whether it is a name of ASCII letters, digits and these marks, and begins
/// with no digit.
fn is_name(text: &str, marks: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    text.chars().all(allowed) && text.starts_with(|c: char| !c.is_ascii_digit())
}
