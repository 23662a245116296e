//! The metrics of the whole process tree, for Prometheus.
//!
//! What the supervisor does itself (`supervisor`) and what concerns a pool
//! (`pool`) is counted in the `prometheus` crate's own types. What concerns a
//! slot is kept as plain numbers (`slot`), since status, `describe` and
//! `channels` show the same numbers, and a table (`families`) says how each is
//! exported. Totals are the sum of the incarnations that have gone and of those
//! that live, so that they never go backwards.

mod distribution;
mod families;
mod http;
mod listener;
mod pool;
mod slot;
mod supervisor;
#[cfg(test)]
mod tests;

pub use listener::ListenerMetrics;
pub use pool::PoolMetrics;
pub use slot::SlotMetrics;
pub use supervisor::SupervisorMetrics;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::SystemTime;

use prefork_proto::message::{Message, ToSupervisor, ToWorker};
use prometheus::{Registry, TextEncoder};

use self::listener::ListenerFamilies;
use self::pool::PoolFamilies;

/// The values that labels can have; all are exported from a slot's birth.
#[derive(Debug, Clone)]
struct Labels {
    sent_kinds: Vec<&'static str>,
    received_kinds: Vec<&'static str>,
    decode_reasons: Vec<&'static str>,
    send_reasons: Vec<&'static str>,
}

/// The reasons, and one more for those that have no name of their own.
fn and_other(reasons: &[&'static str]) -> Vec<&'static str> {
    reasons.iter().copied().chain(["other"]).collect()
}

/// Every metric there is.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    labels: Rc<Labels>,
    supervisor: SupervisorMetrics,
    listener_families: ListenerFamilies,
    pool_families: PoolFamilies,
    pools: BTreeMap<String, Rc<PoolMetrics>>,
    slots: BTreeMap<String, BTreeMap<u32, Rc<SlotMetrics>>>,
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
            supervisor: SupervisorMetrics::new(&registry, version, started_at),
            listener_families: ListenerFamilies::new(&registry),
            pool_families: PoolFamilies::new(&registry),
            pools: BTreeMap::new(),
            slots: BTreeMap::new(),
            registry,
        }
    }

    /// The supervisor's own.
    pub fn supervisor(&self) -> &SupervisorMetrics {
        &self.supervisor
    }

    /// A listener's, exported from this call on. `name` is as configured,
    /// `address` is what it is bound to.
    pub fn listener(&self, name: &str, pool: &str, address: &str, mode: &str) -> ListenerMetrics {
        self.listener_families.listener(name, pool, address, mode)
    }

    /// A pool's, exported from the first call on.
    pub fn pool(&mut self, name: &str) -> Rc<PoolMetrics> {
        let families = &self.pool_families;
        let pool = self.pools.entry(name.to_owned());
        Rc::clone(pool.or_insert_with(|| Rc::new(families.pool(name))))
    }

    /// A slot's, exported from the first call on. A slot that a smaller pool has
    /// lost keeps its counters and finds them here when it comes back.
    pub fn slot(&mut self, pool: &str, slot: u32) -> Rc<SlotMetrics> {
        let slots = self.slots.entry(pool.to_owned()).or_default();
        let labels = &self.labels;
        let metrics = slots.entry(slot);
        Rc::clone(metrics.or_insert_with(|| Rc::new(SlotMetrics::new(pool, slot, labels))))
    }

    /// A slot's, if it has been exported.
    pub fn known_slot(&self, pool: &str, slot: u32) -> Option<&Rc<SlotMetrics>> {
        self.slots.get(pool)?.get(&slot)
    }

    /// Everything in text format 0.0.4.
    pub fn encode(&self) -> String {
        self.supervisor.refresh_process();
        let encoder = TextEncoder::new();
        let mut text = String::new();
        let slots: Vec<&SlotMetrics> = self
            .slots
            .values()
            .flat_map(BTreeMap::values)
            .map(Rc::as_ref)
            .collect();
        // One family at a time: a thousand slots have tens of thousands of samples.
        let of_slots = families::collect(&slots);
        for family in self.registry.gather().into_iter().chain(of_slots) {
            encoder
                .encode_utf8(&[family], &mut text)
                .expect("names are valid, families have samples, and a String takes all");
        }
        text
    }
}
