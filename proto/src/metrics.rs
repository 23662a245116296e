//! The application's own metric families, as a worker reports them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A report on the application's metrics, or a part of one. Counters and
/// histograms are totals since the incarnation began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Metrics {
    /// The report's number; grows by one with each report.
    pub seq: u64,
    /// Whether another message with this `seq` follows: one line may be too
    /// short for all families, and for all series of a family.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// Families, or parts of families.
    pub families: Vec<Family>,
}

/// A family: everything of one name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Family {
    /// Its name, as Prometheus allows it.
    pub name: String,
    /// What it means, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// What its values are.
    #[serde(rename = "type")]
    pub kind: FamilyType,
    /// What becomes of a gauge's values in several workers.
    #[serde(default, skip_serializing_if = "Rule::is_sum")]
    pub rule: Rule,
    /// Its series.
    pub series: Vec<Series>,
}

/// What the values of a family are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FamilyType {
    /// A total that only grows.
    #[default]
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Observations, counted in buckets.
    Histogram,
    /// Any other: refused by the supervisor, since it can't be put together
    /// from several workers.
    #[serde(other)]
    Other,
}

/// What becomes of a gauge's values in several workers.
///
/// ```
/// use prefork_proto::metrics::Rule;
///
/// assert_eq!(Rule::default(), Rule::Sum);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Their sum.
    #[default]
    Sum,
    /// The largest of them.
    Max,
    /// The smallest of them.
    Min,
    /// Each by itself, with the label `slot`.
    Slot,
    /// Any other: refused by the supervisor.
    #[serde(other)]
    Other,
}

impl Rule {
    fn is_sum(&self) -> bool {
        *self == Self::Sum
    }
}

/// One series of a family: a counter or gauge with `value`, a histogram with
/// `buckets`, `sum` and `count`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Series {
    /// Label names and values; every series of a family has the same names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The value of a counter or gauge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// A histogram's buckets: the upper bound, and how many observations were
    /// not above it. In the order of the bounds, without the infinite one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<(f64, u64)>,
    /// The sum of a histogram's observations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    /// The number of a histogram's observations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_may_add_does_not_break_a_line() {
        let line = r#"{"seq":1,"families":[{"name":"a","type":"summary","rule":"mean","series":[{"quantiles":[]}]}]}"#;
        let metrics: Metrics = serde_json::from_str(line).unwrap();
        let family = &metrics.families[0];
        assert_eq!(family.kind, FamilyType::Other);
        assert_eq!(family.rule, Rule::Other);
        assert_eq!(family.series, [Series::default()]);
    }
}
