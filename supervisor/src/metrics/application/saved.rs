//! The application's metrics as they are written down. What each live worker has
//! said last is written beside the totals: it says everything again to the next
//! supervisor, and only what it has counted since is added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::form::{Form, Refusal};
use super::series::{Reported, Series, Value};
use super::{Application, Family, Pool};
use crate::metrics::saved::{by_name, in_order};

/// A pool's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::metrics) struct SavedPool {
    refused: BTreeMap<String, u64>,
    families: BTreeMap<String, SavedFamily>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedFamily {
    form: Form,
    help: String,
    series: Vec<SavedSeries>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedSeries {
    /// The values of its labels.
    labels: Vec<String>,
    total: Value,
    live: Vec<SavedReport>,
}

/// A worker's last word on a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedReport {
    slot: u32,
    incarnation: u64,
    seq: u64,
    value: Value,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    held: bool,
}

impl Application {
    /// What there is of a pool.
    pub(in crate::metrics) fn save(&self, pool: &str) -> SavedPool {
        let refused = Refusal::ALL.map(|it| self.refusals(pool, it).get());
        let state = self.state.borrow();
        let families = state.pools.get(pool).into_iter().flat_map(Pool::save);
        SavedPool {
            refused: by_name(&Refusal::ALL.map(Refusal::as_str), &refused),
            families: families.collect(),
        }
    }

    /// Goes on from what was written down of a pool.
    pub(in crate::metrics) fn restore(&self, name: &str, saved: &SavedPool) {
        let refused = in_order(&Refusal::ALL.map(Refusal::as_str), &saved.refused);
        for (refusal, number) in Refusal::ALL.into_iter().zip(refused) {
            self.refusals(name, refusal).inc_by(number);
        }
        let mut pool = Pool::default();
        for (name, saved) in &saved.families {
            let family = Family::restore(saved);
            pool.samples += family.series.len() * family.form.samples();
            // A family without samples can't be exported.
            if !family.series.is_empty() {
                pool.families.insert(name.clone(), family);
            }
        }
        self.state.borrow_mut().pools.insert(name.to_owned(), pool);
    }
}

impl Pool {
    fn save(&self) -> impl Iterator<Item = (String, SavedFamily)> {
        let families = self.families.iter();
        families.map(|(name, family)| (name.clone(), family.save()))
    }
}

impl Family {
    fn save(&self) -> SavedFamily {
        let series = self.series.iter();
        SavedFamily {
            form: self.form.clone(),
            help: self.help.clone(),
            series: series.map(|(labels, it)| it.save(labels)).collect(),
        }
    }

    fn restore(saved: &SavedFamily) -> Self {
        let series = saved.series.iter();
        Self {
            form: saved.form.clone(),
            help: saved.help.clone(),
            series: series
                .map(|it| (it.labels.clone(), Series::restore(it)))
                .collect(),
        }
    }
}

impl Series {
    fn save(&self, labels: &[String]) -> SavedSeries {
        let live = self.live.iter();
        SavedSeries {
            labels: labels.to_vec(),
            total: self.total.clone(),
            live: live
                .map(|(&(slot, incarnation), last)| SavedReport {
                    slot,
                    incarnation,
                    seq: last.seq,
                    value: last.value.clone(),
                    held: last.held,
                })
                .collect(),
        }
    }

    fn restore(saved: &SavedSeries) -> Self {
        let live = saved.live.iter();
        Self {
            total: saved.total.clone(),
            live: live
                .map(|it| {
                    let last = Reported {
                        seq: it.seq,
                        value: it.value.clone(),
                        held: it.held,
                    };
                    ((it.slot, it.incarnation), last)
                })
                .collect(),
        }
    }
}
