//! One pool: its slots, and what is counted over them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::{JobId, PoolId};
use super::policy::Policy;
use super::replacement::Turn;
use super::slot::{Slot, SlotId, Standing};

/// A pool.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pool {
    /// Its name among the pools.
    pub(super) id: PoolId,
    /// The numbers it is run by.
    pub(super) policy: Policy,
    /// How many slots, from 0, are to have a process.
    pub(super) desired: u32,
    /// Every slot it ever had.
    pub(super) slots: Vec<Slot>,
    /// What is counted over the slots.
    #[serde(skip)]
    pub(super) tally: Tally,
    /// Slots that wait for a place to be replaced, in the order of their turn.
    #[serde(skip)]
    pub(super) queue: BTreeMap<Turn, u32>,
    /// The scale command that is in progress.
    #[serde(skip)]
    pub(super) scaling: Option<Scaling>,
}

/// A scale command in progress.
#[derive(Debug)]
pub(super) struct Scaling {
    /// Who waits for it; more than one where the same size was asked for again.
    pub(super) jobs: Vec<JobId>,
    /// The slots from this one on are its own: if one fails, it fails.
    pub(super) added_from: u32,
}

/// Counters over slots, kept as the slots change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Slots that accept connections.
    pub(super) ready: u32,
    /// Slots that should and do not.
    pub(super) missing: u32,
    /// Slots that should, do not, and may soon.
    pub(super) unsettled: u32,
    /// Slots that should and never have.
    pub(super) unbooted: u32,
    /// Slots that should have no process and have one.
    pub(super) surplus: u32,
    /// Slots that hold a place for a replacement.
    pub(super) surging: u32,
    /// Processes worth waiting for.
    pub(super) processes: u32,
}

impl Tally {
    /// Counts a slot as `new` that has been counted as `old`.
    pub(super) fn replace(&mut self, old: Standing, new: Standing) {
        let fields = [
            (&mut self.ready, old.ready, new.ready),
            (&mut self.missing, old.missing, new.missing),
            (&mut self.unsettled, old.unsettled, new.unsettled),
            (&mut self.unbooted, old.unbooted, new.unbooted),
            (&mut self.surplus, old.surplus, new.surplus),
            (&mut self.surging, old.surging, new.surging),
        ];
        for (count, old, new) in fields {
            *count = *count + u32::from(new) - u32::from(old);
        }
        self.processes = self.processes + new.processes - old.processes;
    }
}

impl Pool {
    /// A pool whose slots have no process yet.
    pub(super) fn new(id: PoolId, policy: Policy) -> Self {
        let mut pool = Self {
            id,
            desired: 0,
            slots: Vec::new(),
            tally: Tally::default(),
            queue: BTreeMap::new(),
            scaling: None,
            policy,
        };
        pool.resize(pool.policy.workers);
        pool
    }

    /// Wants this many slots; makes those that never were.
    pub(super) fn resize(&mut self, desired: u32) {
        self.desired = desired;
        for index in self.slots.len() as u32..desired {
            self.slots.push(Slot::new(SlotId {
                pool: self.id,
                index,
            }));
        }
    }
}
