//! The counters as they are written down, so that those of the next supervisor
//! go on from there. By name, so that a version with more kinds or reasons
//! reads what one with fewer wrote; what is 0 is left out.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use prefork_proto::message::HttpCounts;
use prefork_proto::passage::Kept;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::Metrics;
use super::application;
use super::distribution::Distribution;
use super::slot::SlotMetrics;

/// Every counter there is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedMetrics {
    supervisor: SavedSupervisor,
    pools: BTreeMap<String, SavedPool>,
    slots: Vec<SavedSlot>,
    /// By pool.
    #[serde(default)]
    application: BTreeMap<String, application::SavedPool>,
}

/// What the supervisor counts of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedSupervisor {
    pub(super) loop_lag: SavedHistogram,
    pub(super) commands: BTreeMap<String, u64>,
    pub(super) command_failures: BTreeMap<String, u64>,
    #[serde(default)]
    pub(super) rejoins_refused: BTreeMap<String, u64>,
    pub(super) reloads: u64,
    pub(super) reload_failures: u64,
    #[serde(default)]
    pub(super) upgrades: u64,
    #[serde(default)]
    pub(super) upgrade_failures: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) output_reader_starts: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) outputs_held: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) state_write_failures: u64,
    pub(super) last_reload_ok: bool,
    pub(super) last_reload_at: f64,
    pub(super) cpu_seconds: f64,
}

/// What is counted for a pool as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedPool {
    pub(super) boot: SavedHistogram,
    pub(super) drain: SavedHistogram,
    /// Canaries by their verdicts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) canaries: BTreeMap<String, u64>,
}

/// What is counted for a slot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedSlot {
    pub(super) pool: String,
    pub(super) slot: u32,
    pub(super) sent: BTreeMap<String, u64>,
    pub(super) received: BTreeMap<String, u64>,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) fds_sent: u64,
    pub(super) fds_received: u64,
    pub(super) fds_rejected: u64,
    pub(super) decode_errors: BTreeMap<String, u64>,
    pub(super) send_errors: BTreeMap<String, u64>,
    pub(super) round_trips: SavedHistogram,
    pub(super) heartbeats_missed: u64,
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub(super) starved: Duration,
    pub(super) counters_held: u64,
    #[serde(default)]
    pub(super) access_log_dropped: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) passed_on: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) not_passed_on: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) output_dropped: u64,
    pub(super) starts: u64,
    pub(super) exits: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) uncounted: bool,
    pub(super) http: HttpCounts,
    pub(super) cpu: Duration,
    /// By incarnation.
    pub(super) live: BTreeMap<u64, SavedProcess>,
}

/// What no version before knew is written only where there is something to say.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn are_zero(numbers: &[u64]) -> bool {
    numbers.iter().all(is_zero)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// What one live process has counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedProcess {
    pub(super) pid: i32,
    pub(super) generation: u64,
    pub(super) started_at: f64,
    pub(super) last_heartbeat: f64,
    #[serde(default)]
    pub(super) access_log_dropped: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) passed_on: u64,
    #[serde(default, skip_serializing_if = "are_zero")]
    pub(super) not_passed_on: [u64; Kept::ALL.len()],
    pub(super) http: HttpCounts,
    pub(super) cpu: Duration,
}

/// A histogram: counts per bucket, not cumulative, the last without bound.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedHistogram {
    pub(super) counts: Vec<u64>,
    pub(super) sum: f64,
}

impl From<&Distribution> for SavedHistogram {
    fn from(distribution: &Distribution) -> Self {
        Self {
            counts: distribution.counts().to_vec(),
            sum: distribution.sum(),
        }
    }
}

impl Metrics {
    /// Every counter as it is now.
    pub fn save(&self) -> SavedMetrics {
        let slots = self.slots.values().flat_map(BTreeMap::values);
        let pools = self.pools.iter();
        SavedMetrics {
            supervisor: self.supervisor.save(),
            pools: pools.map(|(name, it)| (name.clone(), it.save())).collect(),
            slots: slots.map(|slot| slot.save()).collect(),
            application: self
                .pools
                .keys()
                .map(|name| (name.clone(), self.application.save(name)))
                .collect(),
        }
    }

    /// What [`save`](Self::save) gives as JSON, without ever having all of it beside
    /// the text.
    ///
    /// # Errors
    /// None that numbers and names could have.
    pub(crate) fn to_json(&self) -> serde_json::Result<Box<RawValue>> {
        let pools = self.pools.iter();
        let application = self.pools.keys().map(|name| self.application.save(name));
        to_raw_value(&Saving {
            supervisor: self.supervisor.save(),
            pools: pools.map(|(name, it)| (&**name, it.save())).collect(),
            slots: self,
            application: self.pools.keys().map(|it| &**it).zip(application).collect(),
        })
    }

    /// Has the processes be these, by pool and slot: they are written down later than
    /// the counters may have been. What others had counted stays counted.
    pub(crate) fn agree_on(&mut self, processes: &BTreeMap<(String, u32), Vec<Known>>) {
        for (pool, slots) in &self.slots {
            for (number, slot) in slots {
                let known = processes.get(&(pool.clone(), *number));
                slot.forget_others(known.map_or(&[], Vec::as_slice));
            }
        }
        for ((pool, number), known) in processes {
            let slot = self.slot(pool, *number);
            let unknown = known.iter().filter(|it| !slot.lives(it.incarnation));
            unknown.for_each(|it| slot.started(it.incarnation, it.pid, it.generation, it.at));
        }
    }

    /// Goes on from what was written down; to be called before anything is
    /// counted.
    pub fn restore(&mut self, saved: &SavedMetrics) {
        self.supervisor.restore(&saved.supervisor);
        for (name, pool) in &saved.pools {
            self.pool(name).restore(pool);
        }
        for slot in &saved.slots {
            self.slot(&slot.pool, slot.slot).restore(slot);
        }
        for (name, pool) in &saved.application {
            self.application.restore(name, pool);
        }
    }

    /// Drops what was written down of processes that are not there any more,
    /// which keeps what they had counted.
    pub fn bury_all(&self) {
        let slots = self.slots.values().flat_map(BTreeMap::values);
        slots.for_each(|slot| slot.bury_all());
    }
}

/// The numbers that are not 0, by name.
pub(super) fn by_name(names: &[&str], numbers: &[u64]) -> BTreeMap<String, u64> {
    let named = names.iter().zip(numbers).filter(|(_, number)| **number > 0);
    named
        .map(|(name, number)| ((*name).to_owned(), *number))
        .collect()
}

/// The numbers in the order of the names. One whose name is gone is counted
/// with the last, so that no sum runs backwards.
pub(super) fn in_order(names: &[&str], saved: &BTreeMap<String, u64>) -> Vec<u64> {
    let mut numbers = vec![0; names.len()];
    for (name, number) in saved {
        let known = names.iter().position(|known| known == name);
        if let Some(place) = known.or(names.len().checked_sub(1)) {
            numbers[place] += number;
        }
    }
    numbers
}

/// A process that is written down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) incarnation: u64,
    pub(crate) pid: i32,
    pub(crate) generation: u64,
    /// When it was started.
    pub(crate) at: SystemTime,
}

impl SlotMetrics {
    /// Nothing lives any more: everything is base.
    fn bury_all(&self) {
        self.forget_others(&[]);
    }

    /// Nothing lives but these: of all others everything is base.
    fn forget_others(&self, known: &[Known]) {
        let live = self.numbers().live_incarnations();
        live.into_iter()
            .filter(|live| known.iter().all(|it| it.incarnation != *live))
            .for_each(|incarnation| self.forget(incarnation));
    }

    fn lives(&self, incarnation: u64) -> bool {
        self.numbers().live_incarnations().contains(&incarnation)
    }
}

/// [`SavedMetrics`] as it is written.
#[derive(Serialize)]
struct Saving<'a> {
    supervisor: SavedSupervisor,
    pools: BTreeMap<&'a str, SavedPool>,
    #[serde(serialize_with = "one_by_one")]
    slots: &'a Metrics,
    application: BTreeMap<&'a str, application::SavedPool>,
}

fn one_by_one<S: Serializer>(metrics: &Metrics, serializer: S) -> Result<S::Ok, S::Error> {
    let slots = metrics.slots.values().flat_map(BTreeMap::values);
    serializer.collect_seq(slots.map(|slot| slot.save()))
}
