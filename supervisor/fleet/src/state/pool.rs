//! One pool: its slots, and what is counted over them.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::interface::{JobId, PoolId};
use crate::policy::Policy;
use crate::state::failure::Setback;
use crate::state::replacement::Turn;
use crate::state::rollout::Part;
use crate::state::slot::{Slot, SlotId, Standing};

/// A pool.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pool {
    /// Its name among the pools.
    pub(crate) id: PoolId,
    /// The numbers it is run by.
    pub(crate) policy: Rc<Policy>,
    /// What the reload in progress wants of it; none if there is no reload, or
    /// if the reload wants it gone.
    pub(crate) part: Option<Part>,
    /// Whether it is on its way out: it has no slots any more, only processes.
    pub(crate) retired: bool,
    /// How many slots, from 0, are to have a process.
    pub(crate) desired: u32,
    /// Every slot it ever had.
    pub(crate) slots: Vec<Slot>,
    /// What is counted over the slots.
    #[serde(skip)]
    pub(crate) tally: Tally,
    /// Slots that wait for a place to be replaced, in the order of their turn.
    #[serde(skip)]
    pub(crate) queue: BTreeMap<Turn, u32>,
    /// The scale command that is in progress.
    #[serde(skip)]
    pub(crate) scaling: Option<Scaling>,
    /// Its first failure in the first boot.
    #[serde(skip)]
    pub(crate) setback: Option<Setback>,
}

/// A scale command in progress.
#[derive(Debug)]
pub(crate) struct Scaling {
    /// Who waits for it; more than one where the same size was asked for again.
    pub(crate) jobs: Vec<JobId>,
    /// The slots from this one on are its own: if one fails, it fails.
    pub(crate) added_from: u32,
}

/// Counters over slots, kept as the slots change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Slots that accept connections.
    pub(crate) ready: u32,
    /// Slots that should and do not.
    pub(crate) missing: u32,
    /// Those of them that do not by an operator's wish.
    pub(crate) paused: u32,
    /// Slots that should, do not, and may soon.
    pub(crate) unsettled: u32,
    /// Slots that should and never have.
    pub(crate) unbooted: u32,
    /// Slots that should have no process and have one.
    pub(crate) surplus: u32,
    /// Slots that hold a place for a replacement.
    pub(crate) surging: u32,
    /// Slots that a reload in progress, or its rollback, waits for.
    pub(crate) behind: u32,
    /// Processes that were told to drain and may still accept.
    pub(crate) shutting: u32,
    /// Processes of a generation that is not in force yet.
    pub(crate) newcomers: u32,
    /// Processes worth waiting for.
    pub(crate) processes: u32,
}

impl Tally {
    /// Counts a slot as `new` that has been counted as `old`.
    pub(crate) fn replace(&mut self, old: Standing, new: Standing) {
        let fields = [
            (&mut self.ready, old.ready, new.ready),
            (&mut self.missing, old.missing, new.missing),
            (&mut self.paused, old.paused, new.paused),
            (&mut self.unsettled, old.unsettled, new.unsettled),
            (&mut self.unbooted, old.unbooted, new.unbooted),
            (&mut self.surplus, old.surplus, new.surplus),
            (&mut self.surging, old.surging, new.surging),
            (&mut self.behind, old.behind, new.behind),
        ];
        for (count, old, new) in fields {
            *count = *count + u32::from(new) - u32::from(old);
        }
        self.shutting = self.shutting + new.shutting - old.shutting;
        self.newcomers = self.newcomers + new.newcomers - old.newcomers;
        self.processes = self.processes + new.processes - old.processes;
    }
}

impl Pool {
    /// A pool whose slots have no process yet.
    pub(crate) fn new(id: PoolId, policy: Rc<Policy>, generation: u64) -> Self {
        let mut pool = Self {
            id,
            desired: 0,
            slots: Vec::new(),
            tally: Tally::default(),
            queue: BTreeMap::new(),
            scaling: None,
            setback: None,
            part: None,
            retired: false,
            policy,
        };
        pool.resize(pool.policy.workers, generation);
        pool
    }

    /// Wants this many slots; makes those that never were. Those that are
    /// added run `generation`.
    pub(crate) fn resize(&mut self, desired: u32, generation: u64) {
        let before = std::mem::replace(&mut self.desired, desired);
        for index in self.slots.len() as u32..desired {
            self.slots.push(Slot::new(SlotId {
                pool: self.id,
                index,
            }));
        }
        for index in before..desired {
            self.slots[index as usize].generation = generation;
        }
    }

    /// Counts the slots, and the processes that sit in them, as ones of another
    /// generation, which would have made the same of them.
    pub(crate) fn renumber(&mut self, generation: u64, policy: &Rc<Policy>) {
        for slot in &mut self.slots {
            slot.generation = generation;
            if let Some(process) = slot.current_mut() {
                process.take_settings(generation, Rc::clone(policy));
            }
        }
    }

    /// How many workers an operator wants that are not as many as configured.
    pub(crate) fn scaled_by_hand(&self) -> Option<u32> {
        (self.desired != self.policy.workers).then_some(self.desired)
    }

    /// How many slots may be replaced at a time.
    pub(crate) fn max_surge(&self) -> u32 {
        let part = self.part.as_ref();
        if let Some(canary) = part.and_then(Part::canary_workers) {
            return canary;
        }
        let policy = part.map_or(&self.policy, |part| &part.policy);
        policy.max_surge.max(1)
    }

    /// Whether it was on its way out and has no process any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.retired
            && self.tally.processes == 0
            && self.slots.iter().all(|slot| slot.leaving.is_empty())
    }
}
