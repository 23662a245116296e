//! The application's own metrics, put together from what workers report.
//!
//! A total is never made anew from its parts: what a worker's counter has grown
//! by since its last report is added to the pool's, so that there is nothing to
//! fold in when the worker dies and a scrape costs the same however many there
//! are. A family's form (its type, rule, labels and bounds) stands as long as a
//! live worker reports it; another form is refused meanwhile, and replaces the
//! family after that. So neither a bad deploy nor its rollback ends the metrics
//! of those that serve.
//!
//! Pools are apart: what one calls a name is nothing to another, and where the two
//! can't stand under one name in the exposition, `plain` finds a way for both.

mod form;
mod plain;
mod saved;
mod series;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use prefork_proto::metrics::{self, FamilyType, Rule};
use prometheus::proto::{LabelPair, MetricFamily, MetricType};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tracing::warn;

use super::supervisor::registered;
use form::{Form, Refusal};
pub(super) use saved::SavedPool;
use series::Series;

/// Samples that a pool's workers may have in the exposition, unless it is set.
pub(crate) const MAX_SERIES: u32 = 1000;

/// Refusals that are remembered, so that each is logged once.
const LOGGED: usize = 1000;

/// One process of a pool: its slot and incarnation.
pub(super) type Who = (u32, u64);

/// All pools' metrics of their applications' own.
#[derive(Debug)]
pub(super) struct Application {
    refused: IntCounterVec,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    max_series: usize,
    pools: BTreeMap<String, Pool>,
    logged: BTreeSet<(String, String, Refusal)>,
}

#[derive(Debug, Default)]
struct Pool {
    families: BTreeMap<String, Family>,
    /// In the exposition.
    samples: usize,
}

#[derive(Debug)]
struct Family {
    form: Form,
    help: String,
    /// By the values of their labels.
    series: BTreeMap<Vec<String>, Series>,
}

impl Application {
    pub(super) fn new(registry: &Registry) -> Self {
        let opts = Opts::new(
            "prefork_application_families_refused_total",
            "Families of the application's own metrics that were reported and not taken.",
        );
        let refused = IntCounterVec::new(opts, &["pool", "reason"]);
        Self {
            refused: registered(registry, refused),
            state: RefCell::new(State {
                max_series: MAX_SERIES as usize,
                pools: BTreeMap::new(),
                logged: BTreeSet::new(),
            }),
        }
    }

    /// How many samples each pool may have from now on; those that are there stay.
    pub(super) fn set_max_series(&self, samples: u32) {
        self.state.borrow_mut().max_series = samples as usize;
    }

    /// Every label set is exported from its birth.
    pub(super) fn pool(&self, name: &str) {
        for refusal in Refusal::ALL {
            self.refusals(name, refusal);
        }
    }

    fn refusals(&self, pool: &str, why: Refusal) -> IntCounter {
        self.refused.with_label_values(&[pool, why.as_str()])
    }

    /// Ends a pool's series.
    pub(super) fn remove_pool(&self, name: &str) {
        let mut state = self.state.borrow_mut();
        state.pools.remove(name);
        state.logged.retain(|(pool, ..)| pool != name);
        for refusal in Refusal::ALL {
            // It is not there where nobody ever asked for the pool.
            let _ = self.refused.remove_label_values(&[name, refusal.as_str()]);
        }
    }

    /// Takes a worker's report. Returns how many totals have begun to run
    /// backwards, and are held.
    pub(super) fn report(&self, pool: &str, who: Who, report: &metrics::Metrics) -> u64 {
        let mut state = self.state.borrow_mut();
        let mut held = 0;
        for family in &report.families {
            let taken = state.take(pool, who, report.seq, family);
            held += taken.held;
            if let Some(refusal) = taken.refusal {
                self.refusals(pool, refusal).inc();
                state.log_once(pool, who.0, &family.name, refusal);
            }
        }
        if !report.more
            && let Some(pool) = state.pools.get_mut(pool)
        {
            pool.forget_gauges(|series| series.forget_unless(who, report.seq));
        }
        held
    }

    /// A worker has gone: its gauges go with it, and its totals stay.
    pub(super) fn exited(&self, pool: &str, who: Who) {
        if let Some(pool) = self.state.borrow_mut().pools.get_mut(pool) {
            for family in pool.families.values_mut() {
                family.series.values_mut().for_each(|it| it.forget(who));
            }
            pool.forget_gauges(|_| {});
        }
    }

    /// Every family, with the series of all pools.
    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        let state = self.state.borrow();
        let pools = state.pools.iter();
        let all: Vec<(&str, &str, &Family)> = pools
            .flat_map(|(pool, it)| {
                let families = it.families.iter();
                families.map(|(name, family)| (pool.as_str(), name.as_str(), family))
            })
            .collect();
        let kinds = all
            .iter()
            .map(|(_, name, family)| (*name, family.form.kind));
        let ambiguous = plain::ambiguous(kinds);
        let mut collected: BTreeMap<String, MetricFamily> = BTreeMap::new();
        for (pool, name, family) in all {
            if ambiguous.contains(name) {
                for sample in family.samples(pool) {
                    plain::add(&mut collected, name, &family.help, family.form.kind, sample);
                }
                continue;
            }
            let exported = collected.entry(name.to_owned());
            let exported = exported.or_insert_with(|| family.head(name));
            exported.mut_metric().extend(family.samples(pool));
        }
        collected.into_values().collect()
    }
}

/// What became of a family in a report.
#[derive(Debug, Default)]
struct Taken {
    held: u64,
    refusal: Option<Refusal>,
}

impl State {
    fn take(&mut self, pool: &str, who: Who, seq: u64, family: &metrics::Family) -> Taken {
        let mut taken = Taken::default();
        match self.admit(pool, family) {
            Ok(true) => {}
            Ok(false) => return taken,
            Err(refusal) => {
                taken.refusal = Some(refusal);
                return taken;
            }
        }
        let max_series = self.max_series;
        let pool = self.pools.entry(pool.to_owned()).or_default();
        let Some(known) = pool.families.get_mut(&family.name) else {
            return taken;
        };
        let cost = known.form.samples();
        for series in &family.series {
            let key = known.key(who.0, series);
            let there = known.series.contains_key(&key);
            if !there && pool.samples + cost > max_series {
                taken.refusal = Some(Refusal::TooManySeries);
                continue;
            }
            pool.samples += if there { 0 } else { cost };
            let form = &known.form;
            let entry = known.series.entry(key);
            let entry = entry.or_insert_with(|| Series::new(form));
            taken.held += u64::from(entry.report(form, who, seq, series));
        }
        if known.series.is_empty() {
            pool.families.remove(&family.name);
        }
        taken
    }

    /// Sees to it that the pool has the family in the reported form; `false`
    /// where there is nothing to it.
    fn admit(&mut self, pool: &str, family: &metrics::Family) -> Result<bool, Refusal> {
        let Some(form) = Form::of(family)? else {
            return Ok(false);
        };
        let name = family.name.as_str();
        let names = form::sample_names(name, form.kind);
        let in_the_way = |theirs: &str, other: &Family| {
            if theirs == name {
                return other.form != form;
            }
            // Most names have nothing in common.
            (theirs.starts_with(name) || name.starts_with(theirs))
                && form::sample_names(theirs, other.form.kind)
                    .iter()
                    .any(|sample| names.contains(sample))
        };
        let pool = self.pools.entry(pool.to_owned()).or_default();
        let others = pool.families.iter();
        let mut clashing = others.filter(|(theirs, other)| in_the_way(theirs, other));
        if clashing.any(|(_, other)| other.is_live()) {
            return Err(Refusal::Clash);
        }
        pool.remove_families(in_the_way);
        let known = pool.families.entry(name.to_owned());
        let known = known.or_insert_with(|| Family {
            form,
            help: String::new(),
            series: BTreeMap::new(),
        });
        // Words may change from one release to the next without an end of the
        // series; those of the workers that are alive stay.
        if !known.is_live() {
            known.help.clone_from(&family.help);
        }
        Ok(true)
    }

    fn log_once(&mut self, pool: &str, slot: u32, name: &str, refusal: Refusal) {
        let shown: String = name.chars().take(80).collect();
        let news = (pool.to_owned(), shown.clone(), refusal);
        if self.logged.len() < LOGGED && self.logged.insert(news) {
            let slot = format!("{pool}/{slot}");
            let why = refusal.words();
            warn!(slot, "its metric {shown:?} is refused: {why}");
        }
    }
}

impl Pool {
    fn remove_families(&mut self, unwanted: impl Fn(&str, &Family) -> bool) {
        let samples = &mut self.samples;
        self.families.retain(|name, family| {
            let goes = unwanted(name, family);
            if goes {
                *samples -= family.series.len() * family.form.samples();
            }
            !goes
        });
    }

    /// Has each series of a gauge forget what it should, and drops those that
    /// no live worker has any more.
    fn forget_gauges(&mut self, forget: impl Fn(&mut Series)) {
        let samples = &mut self.samples;
        self.families.retain(|_, family| {
            if family.form.kind != FamilyType::Gauge {
                return true;
            }
            let before = family.series.len();
            family.series.retain(|_, series| {
                forget(series);
                series.is_live()
            });
            *samples -= before - family.series.len();
            !family.series.is_empty()
        });
    }
}

impl Family {
    fn is_live(&self) -> bool {
        self.series.values().any(Series::is_live)
    }

    /// The values of a series' labels, and the slot where each is kept by itself.
    fn key(&self, slot: u32, series: &metrics::Series) -> Vec<String> {
        let mut key: Vec<String> = series.labels.values().cloned().collect();
        if self.form.rule == Rule::Slot {
            key.push(slot.to_string());
        }
        key
    }

    fn head(&self, name: &str) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(self.help.clone());
        family.set_field_type(match self.form.kind {
            FamilyType::Counter => MetricType::COUNTER,
            FamilyType::Histogram => MetricType::HISTOGRAM,
            FamilyType::Gauge | FamilyType::Other => MetricType::GAUGE,
        });
        family
    }

    fn samples(&self, pool: &str) -> impl Iterator<Item = prometheus::proto::Metric> {
        self.series.iter().map(move |(values, series)| {
            let slot = (self.form.rule == Rule::Slot).then(|| "slot".to_owned());
            let names = self.form.exported_labels().chain(slot);
            let mut labels = vec![pair("pool".to_owned(), pool.to_owned())];
            labels.extend(
                names
                    .zip(values)
                    .map(|(name, value)| pair(name, value.clone())),
            );
            series.sample(&self.form, labels)
        })
    }
}

fn pair(name: String, value: String) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name);
    pair.set_value(value);
    pair
}
