//! Families of several pools whose names can't stand beside each other in one
//! exposition: it has one type for a name, and a histogram called `x` takes `x_count`
//! as well. Their samples are exported one by one, as gauges under the very names that they
//! have in any case: Prometheus stores and queries them as before.

use std::collections::{BTreeMap, BTreeSet};

use prefork_proto::metrics::FamilyType;
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::form::sample_names;
use super::pair;

/// The names of families whose samples another pool has as something else.
pub(super) fn ambiguous<'a>(
    families: impl Iterator<Item = (&'a str, FamilyType)>,
) -> BTreeSet<&'a str> {
    let kinds: BTreeSet<(&str, &str)> = families.map(|(name, kind)| (name, word(kind))).collect();
    let mut users: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, kind) in &kinds {
        for sample in sample_names(name, kind_of(kind)) {
            users.entry(sample).or_default().push(name);
        }
    }
    let shared = users.into_values().filter(|users| users.len() > 1);
    shared.flatten().collect()
}

/// Kinds in an order of their own.
fn word(kind: FamilyType) -> &'static str {
    match kind {
        FamilyType::Counter => "counter",
        FamilyType::Histogram => "histogram",
        FamilyType::Gauge | FamilyType::Other => "gauge",
    }
}

fn kind_of(word: &str) -> FamilyType {
    match word {
        "histogram" => FamilyType::Histogram,
        _ => FamilyType::Gauge,
    }
}

/// Adds a sample of a family as what it consists of.
pub(super) fn add(
    collected: &mut BTreeMap<String, MetricFamily>,
    name: &str,
    help: &str,
    kind: FamilyType,
    sample: Metric,
) {
    let labels = sample.get_label().to_vec();
    let mut gauge = |suffix: &str, labels: Vec<LabelPair>, value: f64| {
        let name = format!("{name}{suffix}");
        let family = collected.entry(name).or_insert_with_key(|name| {
            let mut family = MetricFamily::default();
            family.set_name(name.clone());
            family.set_help(help.to_owned());
            family.set_field_type(MetricType::GAUGE);
            family
        });
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(labels);
        metric.set_gauge(gauge);
        family.mut_metric().push(metric);
    };
    match kind {
        FamilyType::Counter => gauge("", labels, sample.get_counter().get_value()),
        FamilyType::Gauge | FamilyType::Other => {
            gauge("", labels, sample.get_gauge().get_value());
        }
        FamilyType::Histogram => {
            let histogram = sample.get_histogram();
            let bounds = histogram.get_bucket().iter();
            let bounds = bounds.map(|bucket| {
                let bound = bucket.upper_bound().to_string();
                (bound, bucket.cumulative_count())
            });
            let all = histogram.get_sample_count();
            for (bound, count) in bounds.chain([("+Inf".to_owned(), all)]) {
                let mut labels = labels.clone();
                labels.push(pair("le".to_owned(), bound));
                gauge("_bucket", labels, count as f64);
            }
            gauge("_sum", labels.clone(), histogram.get_sample_sum());
            gauge("_count", labels, all as f64);
        }
    }
}
