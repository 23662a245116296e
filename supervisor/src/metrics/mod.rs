//! The metrics of the whole process tree, for Prometheus.
//!
//! What the supervisor does itself (`supervisor`) and what concerns a pool
//! (`pool`) is counted in the `prometheus` crate's own types. What concerns a
//! slot is kept as plain numbers (`slot`), since status, `describe` and
//! `channels` show the same numbers; a table (`families`) says how each is
//! exported, and `samples` does it, slot by slot or pool by pool. Totals are the
//! sum of the incarnations that have gone and of those that live, so that they
//! never go backwards. What applications count themselves is put together in
//! `application`. METRICS.md describes every family.

mod application;
mod distribution;
mod families;
mod histograms;
mod http;
mod listener;
mod openmetrics;
mod pool;
mod samples;
mod saved;
mod slot;
mod supervisor;
#[cfg(test)]
mod tests;

pub use listener::ListenerMetrics;
pub(crate) use openmetrics::openmetrics;
pub use pool::PoolMetrics;
pub(crate) use saved::Known;
pub use saved::SavedMetrics;
pub use slot::SlotMetrics;
pub use supervisor::SupervisorMetrics;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::SystemTime;

use prefork_proto::message::{HttpCounts, Message, ToSupervisor, ToWorker};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};

use self::application::Application;

pub(crate) use self::application::MAX_SERIES;
use self::listener::{HostMetrics, ListenerFamilies};
use self::pool::PoolFamilies;
use self::samples::Group;
use crate::config::Detail;
use crate::kernel::procfs::ListenDrops;

/// The values that labels can have; all are exported from a slot's birth.
#[derive(Debug, Clone)]
struct Labels {
    sent_kinds: Vec<&'static str>,
    received_kinds: Vec<&'static str>,
    decode_reasons: Vec<&'static str>,
    send_reasons: Vec<&'static str>,
}

/// The reasons, and last of all one for those that have no label of their own.
fn and_other(reasons: &[&'static str]) -> Vec<&'static str> {
    let other = "other";
    let named = reasons.iter().copied().filter(|reason| *reason != other);
    named.chain([other]).collect()
}

/// Every metric there is.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    detail: Detail,
    labels: Rc<Labels>,
    supervisor: SupervisorMetrics,
    host: HostMetrics,
    listener_families: ListenerFamilies,
    listeners: BTreeMap<String, Rc<ListenerMetrics>>,
    pool_families: PoolFamilies,
    pools: BTreeMap<String, Rc<PoolMetrics>>,
    slots: BTreeMap<String, BTreeMap<u32, Rc<SlotMetrics>>>,
    application: Rc<Application>,
}

impl Metrics {
    /// The metrics of a supervisor of this version that started then. The
    /// reasons are those that channels give for what they could not decode and
    /// not send.
    pub fn new(
        version: &str,
        started_at: SystemTime,
        decode_reasons: &[&'static str],
        send_reasons: &[&'static str],
    ) -> Self {
        let registry = Registry::new();
        let mut received_kinds = ToSupervisor::KINDS.to_vec();
        received_kinds.push("unknown");
        Self {
            labels: Rc::new(Labels {
                sent_kinds: ToWorker::KINDS.to_vec(),
                received_kinds,
                decode_reasons: and_other(decode_reasons),
                send_reasons: and_other(send_reasons),
            }),
            detail: Detail::default(),
            supervisor: SupervisorMetrics::new(&registry, version, started_at),
            host: HostMetrics::new(&registry),
            listener_families: ListenerFamilies::new(&registry),
            listeners: BTreeMap::new(),
            pool_families: PoolFamilies::new(&registry),
            pools: BTreeMap::new(),
            slots: BTreeMap::new(),
            application: Rc::new(Application::new(&registry)),
            registry,
        }
    }

    /// The supervisor's own.
    pub fn supervisor(&self) -> &SupervisorMetrics {
        &self.supervisor
    }

    /// How finely workers are told apart from now on. Nothing that has been
    /// counted is lost by a change, but it goes on under other series.
    pub fn set_detail(&mut self, detail: Detail) {
        self.detail = detail;
    }

    /// How many samples of the application's own each pool may have from now
    /// on. Those that are exported already stay.
    pub fn set_max_series(&self, samples: u32) {
        self.application.set_max_series(samples);
    }

    /// What the host's listeners have turned away so far.
    pub fn listen_drops(&self, totals: ListenDrops) {
        self.host.record(totals);
    }

    /// A listener's, exported from the first call on. `name` is as configured,
    /// `address` is what it is bound to; a later call may give it another pool,
    /// address or mode.
    pub fn listener(
        &mut self,
        name: &str,
        pool: &str,
        address: &str,
        mode: &str,
    ) -> Rc<ListenerMetrics> {
        let info = [name, pool, address, mode];
        if let Some(known) = self.listeners.get(name) {
            if known.is_about(info) {
                return Rc::clone(known);
            }
            self.remove_listener(name);
        }
        let listener = Rc::new(self.listener_families.listener(info));
        self.listeners.insert(name.to_owned(), Rc::clone(&listener));
        listener
    }

    /// Ends the series of a listener that has been closed.
    pub fn remove_listener(&mut self, name: &str) {
        if let Some(listener) = self.listeners.remove(name) {
            self.listener_families.remove(&listener);
        }
    }

    /// A pool's, exported from the first call on.
    pub fn pool(&mut self, name: &str) -> Rc<PoolMetrics> {
        if !self.pools.contains_key(name) {
            self.application.pool(name);
        }
        let families = &self.pool_families;
        let pool = self.pools.entry(name.to_owned());
        Rc::clone(pool.or_insert_with(|| Rc::new(families.pool(name))))
    }

    /// Ends the series of a pool that a reload has removed, and those of its
    /// slots. Its counters go with them: should the pool come back, they begin
    /// at 0. To be called when its last worker has gone, since to ask for the
    /// pool's or a slot's metrics makes new ones.
    pub fn remove_pool(&mut self, name: &str) {
        self.slots.remove(name);
        self.application.remove_pool(name);
        if self.pools.remove(name).is_some() {
            self.pool_families.remove(name);
        }
    }

    /// A slot's, exported from the first call on. A slot that a smaller pool has
    /// lost keeps its counters and finds them here when it comes back.
    pub fn slot(&mut self, pool: &str, slot: u32) -> Rc<SlotMetrics> {
        let slots = self.slots.entry(pool.to_owned()).or_default();
        let metrics = slots.entry(slot).or_insert_with(|| {
            let new = SlotMetrics::new(pool, slot, &self.labels, &self.application);
            Rc::new(new)
        });
        Rc::clone(metrics)
    }

    /// A slot's, if it has been exported.
    pub fn known_slot(&self, pool: &str, slot: u32) -> Option<&Rc<SlotMetrics>> {
        self.slots.get(pool)?.get(&slot)
    }

    /// What all slots of a pool have served; none where no worker counts it.
    pub fn served_by(&self, pool: &str) -> Option<HttpCounts> {
        let slots = self.slots.get(pool)?.values();
        slots.filter_map(|slot| slot.http()).reduce(|mut sum, it| {
            http::add(&mut sum, &it);
            sum
        })
    }

    /// Everything in text format 0.0.4.
    pub fn encode(&self) -> String {
        self.supervisor.refresh_process();
        let encoder = TextEncoder::new();
        let mut text = String::new();
        let encode = |families: &[MetricFamily], text: &mut String| {
            encoder
                .encode_utf8(families, text)
                .expect("names are valid, families have samples, and a String takes all");
        };
        encode(&self.registry.gather(), &mut text);
        let pools = self.groups(Detail::Pool);
        samples::write(&self.groups(self.detail), &pools, &mut text);
        // One family at a time: an application may have tens of thousands of samples.
        for family in self.application.collect() {
            encode(&[family], &mut text);
        }
        text
    }

    /// The slots by the series that they share.
    fn groups(&self, detail: Detail) -> Vec<Group<'_>> {
        let pools = self.slots.values();
        match detail {
            Detail::Slot => pools
                .flat_map(BTreeMap::values)
                .map(|slot| Group::slot(slot))
                .collect(),
            Detail::Pool => pools
                .filter_map(|slots| Group::pool(slots.values().map(Rc::as_ref).collect()))
                .collect(),
        }
    }
}
