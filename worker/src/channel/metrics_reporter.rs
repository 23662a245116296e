//! The application's own metrics on their way to the supervisor: gathered from
//! its registries, cut into messages that fit a line.

use std::collections::{BTreeMap, VecDeque};
use std::slice;
use std::time::Duration;

use prefork_proto::channel::LINE_LIMIT;
use prefork_proto::message::ToSupervisor;
use prefork_proto::metrics::{Family, FamilyType, Metrics, Rule, Series};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{Registry, TextEncoder};
use serde::Serialize;
use tokio::time::Instant;

use crate::channel::link::Link;
use crate::output::say;

/// The least time between two reports.
const PACE: Duration = Duration::from_secs(1);

/// Room for what surrounds the families in a line.
const ENVELOPE: usize = 256;

/// What a series or a family's head costs beside its own JSON.
const PUNCTUATION: usize = 64;

/// Where the application's metrics are, and how gauges of several workers are
/// put together.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Beside the default registry.
    pub(crate) registries: Vec<Registry>,
    pub(crate) rules: BTreeMap<String, Rule>,
}

/// Reports on the sources, one after the other.
#[derive(Debug)]
pub(crate) struct Reporter {
    sources: Sources,
    seq: u64,
    next: Instant,
    /// What was reported last: what has not changed is not said again.
    last: Vec<Family>,
    /// The rest of the report that is being sent.
    unsent: VecDeque<Metrics>,
    /// Series that fit no line are spoken of once.
    complained: bool,
}

impl Reporter {
    pub(crate) fn new(sources: Sources) -> Self {
        Self {
            sources,
            seq: 0,
            next: Instant::now(),
            last: Vec::new(),
            unsent: VecDeque::new(),
            complained: false,
        }
    }

    /// The next message for a link that has room; none if nothing is due or
    /// nothing has changed.
    pub(crate) fn next(&mut self, link: &Link) -> Option<ToSupervisor> {
        if !link.is_clear() {
            return None;
        }
        let now = Instant::now();
        if self.unsent.is_empty() && now >= self.next {
            self.next = now + PACE;
            self.gather();
        }
        self.unsent.pop_front().map(ToSupervisor::Metrics)
    }

    /// Makes what [`Self::next`] gives from now on the last report: everything
    /// up to this moment, whenever the report before was.
    pub(crate) fn conclude(&mut self) {
        self.begin_anew();
        self.gather();
        self.next = Instant::now() + Duration::from_secs(3600);
    }

    /// Another supervisor listens, who knows of no report before: the next one
    /// says everything.
    pub(crate) fn begin_anew(&mut self) {
        self.unsent.clear();
        self.last.clear();
        self.next = Instant::now();
    }

    fn gather(&mut self) {
        let families = self.sources.gather();
        if families == self.last {
            return;
        }
        self.seq += 1;
        let (messages, left_out) = cut(&families, self.seq);
        if left_out > 0 && !std::mem::replace(&mut self.complained, true) {
            say(format_args!(
                "{left_out} series of the application's metrics are longer than a line of the \
                 channel: they are not reported"
            ));
        }
        self.unsent = messages;
        self.last = families;
    }
}

impl Sources {
    fn gather(&self) -> Vec<Family> {
        let own = self.registries.iter().flat_map(Registry::gather);
        prometheus::gather()
            .into_iter()
            .chain(own)
            // The supervisor has these of every worker, for all programs alike.
            .filter(|family| !family.name().starts_with("process_"))
            .map(|family| self.family(&family))
            .collect()
    }

    fn family(&self, family: &MetricFamily) -> Family {
        let rule = self.rules.get(family.name());
        let kind = match family.get_field_type() {
            MetricType::COUNTER => FamilyType::Counter,
            MetricType::GAUGE => FamilyType::Gauge,
            MetricType::HISTOGRAM => FamilyType::Histogram,
            _ => FamilyType::Other,
        };
        let mut values = values(family, kind).into_iter();
        let series = family.get_metric().iter();
        Family {
            name: family.name().to_owned(),
            help: family.help().to_owned(),
            kind,
            rule: rule.copied().unwrap_or_default(),
            series: series
                .filter_map(|metric| read(metric, kind, values.next()))
                .collect(),
        }
    }
}

/// One series, with its value where the family is of counters or gauges; none
/// where that is not a number.
fn read(metric: &Metric, kind: FamilyType, value: Option<f64>) -> Option<Series> {
    let pairs = metric.get_label().iter();
    let labels = pairs.map(|pair| (pair.name().to_owned(), pair.value().to_owned()));
    let mut series = Series {
        labels: labels.collect(),
        ..Series::default()
    };
    match kind {
        FamilyType::Counter | FamilyType::Gauge => {
            series.value = Some(value.filter(|value| value.is_finite())?);
        }
        FamilyType::Histogram => {
            let histogram = metric.get_histogram();
            let buckets = histogram.get_bucket().iter();
            series.buckets = buckets
                .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                .filter(|(bound, _)| bound.is_finite())
                .collect();
            // A sum that an observation has spoilt says nothing any more.
            let sum = Some(histogram.get_sample_sum());
            series.sum = sum.filter(|sum| sum.is_finite()).or(Some(0.0));
            series.count = Some(histogram.get_sample_count());
        }
        FamilyType::Other => {}
    }
    Some(series)
}

/// The values of a family of counters or gauges, in the order of its metrics.
/// They are read from the exposition: the getters of the `prometheus` crate's
/// model have other names where any crate of the program turns its feature
/// `protobuf` on.
fn values(family: &MetricFamily, kind: FamilyType) -> Vec<f64> {
    let mut text = String::new();
    let plain = matches!(kind, FamilyType::Counter | FamilyType::Gauge);
    // Fails for a family without metrics, which has no values either.
    if plain
        && TextEncoder::new()
            .encode_utf8(slice::from_ref(family), &mut text)
            .is_ok()
    {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let value = |sample: &str| sample.rsplit(' ').next()?.parse().ok();
        return samples
            .map(|sample| value(sample).unwrap_or(f64::NAN))
            .collect();
    }
    Vec::new()
}

/// Cuts a report into messages that fit a line. Also returns how many series
/// are too long for one by themselves.
fn cut(families: &[Family], seq: u64) -> (VecDeque<Metrics>, usize) {
    let room = LINE_LIMIT - ENVELOPE;
    let mut messages = VecDeque::from([Metrics::default()]);
    let (mut used, mut left_out) = (0, 0);
    for family in families {
        let head = Family {
            series: Vec::new(),
            ..family.clone()
        };
        let head_length = length(&head);
        let mut begun = false;
        for series in &family.series {
            let length = length(series);
            if head_length + length > room {
                left_out += 1;
                continue;
            }
            let wanted = if begun { length } else { head_length + length };
            if used + wanted > room {
                messages.push_back(Metrics::default());
                (used, begun) = (0, false);
            }
            let message = messages.back_mut().expect("it begins with one");
            if !begun {
                message.families.push(head.clone());
                used += head_length;
                begun = true;
            }
            let part = message.families.last_mut().expect("it was begun");
            part.series.push(series.clone());
            used += length;
        }
    }
    let last = messages.len() - 1;
    for (index, message) in messages.iter_mut().enumerate() {
        message.seq = seq;
        message.more = index < last;
    }
    (messages, left_out)
}

/// The bytes that it takes in a line.
fn length(part: &impl Serialize) -> usize {
    let json = serde_json::to_vec(part).expect("names and finite numbers can be said in JSON");
    json.len() + PUNCTUATION
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{CounterVec, Gauge, Histogram, HistogramOpts, Opts};

    fn family(name: &str, series: usize) -> Family {
        let one = |number: usize| Series {
            labels: BTreeMap::from([("number".to_owned(), format!("{number:0100}"))]),
            value: Some(1.5),
            ..Series::default()
        };
        Family {
            name: name.to_owned(),
            help: "It \"counts\".\n".repeat(20),
            series: (0..series).map(one).collect(),
            ..Family::default()
        }
    }

    #[test]
    fn a_long_report_is_cut_into_lines_that_lose_nothing() {
        let families = [family("a", 1), family("b", 3000), family("c", 2)];
        let (messages, left_out) = cut(&families, 7);
        assert_eq!(left_out, 0);
        assert!(messages.len() > 3, "{}", messages.len());
        let mut seen: BTreeMap<&str, Vec<&Series>> = BTreeMap::new();
        for (index, message) in messages.iter().enumerate() {
            let line = serde_json::to_vec(&ToSupervisor::Metrics(message.clone())).unwrap();
            assert!(line.len() < LINE_LIMIT, "{}", line.len());
            assert_eq!(message.seq, 7);
            assert_eq!(message.more, index + 1 < messages.len());
            for part in &message.families {
                assert_eq!(part.help, families[0].help);
                seen.entry(&part.name).or_default().extend(&part.series);
            }
        }
        for family in &families {
            assert!(
                seen[family.name.as_str()]
                    .iter()
                    .copied()
                    .eq(&family.series)
            );
        }
    }

    #[test]
    fn a_series_that_fits_no_line_is_left_out_and_the_others_stay() {
        let mut families = [family("a", 3)];
        families[0].series[1]
            .labels
            .insert("long".to_owned(), "x".repeat(LINE_LIMIT));
        let (messages, left_out) = cut(&families, 1);
        assert_eq!((messages.len(), left_out), (1, 1));
        assert_eq!(messages[0].families[0].series.len(), 2);
    }

    #[test]
    fn what_registries_hold_is_read_as_it_is() {
        let registry = Registry::new();
        let orders = CounterVec::new(Opts::new("orders_total", "Orders."), &["method"]).unwrap();
        registry.register(Box::new(orders.clone())).unwrap();
        orders.with_label_values(&["card"]).inc_by(2.5);
        let carts = Gauge::new("carts", "Carts.").unwrap();
        registry.register(Box::new(carts.clone())).unwrap();
        let odd = Gauge::new("odd", "No number.").unwrap();
        registry.register(Box::new(odd.clone())).unwrap();
        odd.set(f64::NAN);
        let opts = HistogramOpts::new("price", "Prices.").buckets(vec![1.0, 10.0]);
        let price = Histogram::with_opts(opts).unwrap();
        registry.register(Box::new(price.clone())).unwrap();
        carts.set(-3.0);
        [0.5, 5.0, 50.0]
            .into_iter()
            .for_each(|euros| price.observe(euros));

        let sources = Sources {
            registries: vec![registry],
            rules: BTreeMap::from([("carts".to_owned(), Rule::Max)]),
        };
        let families = sources.gather();
        let family = |name: &str| families.iter().find(|family| family.name == name).unwrap();
        let orders = family("orders_total");
        assert_eq!(
            (orders.kind, orders.help.as_str()),
            (FamilyType::Counter, "Orders.")
        );
        assert_eq!(orders.series[0].labels["method"], "card");
        assert_eq!(orders.series[0].value, Some(2.5));
        assert_eq!(
            (family("carts").rule, family("carts").series[0].value),
            (Rule::Max, Some(-3.0))
        );
        assert!(family("odd").series.is_empty());
        let price = &family("price").series[0];
        assert_eq!(price.buckets, [(1.0, 1), (10.0, 2)]);
        assert_eq!((price.sum, price.count), (Some(55.5), Some(3)));
    }
}
