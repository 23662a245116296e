//! What has happened to each pool and slot.

use prefork_fleet::{Policy, Time, Worker};

use crate::reload::Planned;

/// What has happened to a pool.
pub(crate) struct PoolFacts {
    pub(crate) policy: Policy,
    pub(crate) desired: u32,
    pub(crate) slots: Vec<SlotFacts>,
    /// What the reload in progress wants of it.
    pub(crate) planned: Option<Planned>,
    /// How many slots the last reload has left their processes.
    pub(crate) kept: u32,
    /// Whether it is on its way out.
    pub(crate) retired: bool,
    /// Whether a slot of it failed before it was ever ready, in the first boot.
    pub(crate) set_back: bool,
}

impl PoolFacts {
    /// A pool that is about to start.
    pub(crate) fn new(policy: &Policy) -> Self {
        let started = || SlotFacts {
            reasons: 1,
            ..SlotFacts::default()
        };
        Self {
            policy: policy.clone(),
            desired: policy.workers,
            slots: (0..policy.workers).map(|_| started()).collect(),
            planned: None,
            kept: 0,
            retired: false,
            set_back: false,
        }
    }

    /// Whether each of its slots has been ready once.
    pub(crate) fn is_up(&self) -> bool {
        let wanted = self.slots.iter().take(self.desired as usize);
        wanted.into_iter().all(|slot| slot.been_ready)
    }

    /// Whether it goes by this name and stays.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.policy.name == name && !self.retired
    }

    /// Slots from `from` on are to start.
    pub(crate) fn add_slots(&mut self, from: u32) {
        for slot in from..self.desired {
            if slot as usize == self.slots.len() {
                self.slots.push(SlotFacts::default());
            }
            let facts = &mut self.slots[slot as usize];
            facts.reasons += 1;
            facts.failures = 0;
        }
    }

    /// It goes.
    pub(crate) fn retire(&mut self) {
        self.retired = true;
        self.desired = 0;
    }
}

/// What has happened to a slot.
#[derive(Debug, Default)]
pub(crate) struct SlotFacts {
    pub(crate) incarnations: u64,
    /// Whether a process of it has ever been ready.
    pub(crate) been_ready: bool,
    /// Processes that were ready and have not been told to leave, nor died.
    pub(crate) serving: Vec<Worker>,
    /// Failures in a row, by the law of backoff.
    pub(crate) failures: u32,
    pub(crate) last_failure: Time,
    pub(crate) starts: u64,
    /// How many starts it has had reason for.
    pub(crate) reasons: u64,
    /// Commands that may start a process before the wait is over.
    pub(crate) commands: u32,
    /// Processes that failed in a rollback while their predecessor served.
    pub(crate) restores_failed: u32,
    /// Commands that may drain without a successor.
    pub(crate) drains: u32,
}
