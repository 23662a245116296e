//! A family of histograms whose counts can be written down and taken up again,
//! which those of the `prometheus` crate can't.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::distribution::Distribution;

/// Histograms by the value of one label; by `""` where the family has none.
#[derive(Debug, Clone)]
pub(super) struct Histograms {
    desc: Desc,
    label: Option<&'static str>,
    bounds: &'static [f64],
    /// A collector has to be `Sync`, although nobody else ever locks this.
    counts: Arc<Mutex<BTreeMap<String, Distribution>>>,
}

impl Histograms {
    /// A family without histograms; `bounds` grow.
    pub(super) fn new(
        name: &str,
        help: &str,
        label: Option<&'static str>,
        bounds: &'static [f64],
    ) -> prometheus::Result<Self> {
        let labels = label.map(str::to_owned).into_iter().collect();
        Ok(Self {
            desc: Desc::new(
                name.to_owned(),
                help.to_owned(),
                labels,
                std::collections::HashMap::new(),
            )?,
            label,
            bounds,
            counts: Arc::default(),
        })
    }

    /// Exports a histogram from now on.
    pub(super) fn add(&self, value: &str) {
        let fresh = || Distribution::new(self.bounds);
        self.counts().entry(value.to_owned()).or_insert_with(fresh);
    }

    /// Ends a histogram's series.
    pub(super) fn remove(&self, value: &str) {
        self.counts().remove(value);
    }

    pub(super) fn observe(&self, value: &str, seconds: f64) {
        if let Some(distribution) = self.counts().get_mut(value) {
            distribution.observe(seconds);
        }
    }

    /// What has been observed.
    pub(super) fn of(&self, value: &str) -> Option<Distribution> {
        self.counts().get(value).cloned()
    }

    /// Adds what another process has observed.
    pub(super) fn go_on_from(&self, value: &str, counts: &[u64], sum: f64) {
        if let Some(distribution) = self.counts().get_mut(value) {
            distribution.go_on_from(counts, sum);
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, Distribution>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sample(&self, value: &str, distribution: &Distribution) -> Metric {
        let pair = |name: &str| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        };
        let mut metric = Metric::from_label(self.label.map(pair).into_iter().collect());
        metric.set_histogram(distribution.to_proto());
        metric
    }
}

impl Collector for Histograms {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counts = self.counts();
        if counts.is_empty() {
            return Vec::new();
        }
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        let samples = counts.iter().map(|(value, it)| self.sample(value, it));
        family.set_metric(samples.collect());
        vec![family]
    }
}
