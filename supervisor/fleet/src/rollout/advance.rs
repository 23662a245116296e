//! A reload in progress: what it wants of each pool, and which step comes next.
//!
//! Forward: the pools that are new start, then every pool that stays replaces
//! its slots, `max_surge` at a time, unless it keeps its processes. The first batch of a pool has to come up
//! before anything else happens in it, and there has to be a verdict on every
//! `canary`; then the slots that the new size adds start. When nothing is behind, the generation is put in force (`reload`).
//! A failure before that turns the rollout around (`rollback`).

use std::rc::Rc;

use prefork_api::ExitReason;

use crate::Fleet;
use crate::interface::{PoolId, Time};
use crate::policy::Policy;
use crate::state::failure::Failure;
use crate::state::process::Process;
use crate::state::replacement::{Cause, Progress};
use crate::state::rollout::{Batch, Stage};
use crate::state::slot::SlotId;

impl Fleet {
    /// The generation that the pool's slots are to run.
    pub(crate) fn aim(&self, pool: PoolId) -> u64 {
        match &self.rollout {
            Some(rollout) if rollout.is_forward() && self.pools[pool].part.is_some() => {
                rollout.generation
            }
            _ => self.generation,
        }
    }

    /// The numbers that a generation of a pool is run by.
    pub(crate) fn policy_in(&self, pool: PoolId, generation: u64) -> Rc<Policy> {
        let pool = &self.pools[pool];
        let policy = match &pool.part {
            Some(part) if generation > self.generation => &part.policy,
            _ => &pool.policy,
        };
        Rc::clone(policy)
    }

    /// Whether a failure is the end of the reload in progress.
    pub(crate) fn breaks_reload(&self, failure: &Failure) -> bool {
        self.rollout
            .as_ref()
            .is_some_and(|rollout| rollout.is_forward() && failure.generation == rollout.generation)
    }

    /// Whether the next successors in the pool have to prove themselves.
    pub(crate) fn probation(&self, pool: PoolId) -> bool {
        let part = self.pools[pool].part.as_ref();
        part.is_some_and(|part| part.batch == Batch::First && !part.policy.min_ready.is_zero())
    }

    /// Whether a slot whose seat has just been left is still to be brought to
    /// another generation: a process that starts in it now would not do.
    pub(crate) fn has_turn_to_come(&self, id: SlotId) -> bool {
        let slot = self.slot(id);
        slot.is_some_and(|slot| slot.replacement.is_some() && slot.generation != self.aim(id.pool))
    }

    /// Has a slot queue again whose process left while it was asked to take
    /// new settings. A successor that has been started goes on.
    pub(crate) fn wait_again(&mut self, id: SlotId) {
        let replacement = self
            .slot_mut(id)
            .replacement
            .take_if(|it| matches!(it.progress, Progress::Asked));
        if let Some(replacement) = replacement {
            self.enqueue(id, replacement.cause);
        }
    }

    /// Follows the first batch of a pool. Once it has come up, and has been judged where
    /// it is a canary, the slots that the new size adds start, as soon as no pool's canary
    /// is being judged.
    pub(crate) fn prove(&mut self, now: Time, pool: PoolId) {
        let surging = self.pool_mut(pool).tally.surging;
        let is_open = !self.has_canaries();
        let Some(part) = &mut self.pool_mut(pool).part else {
            return;
        };
        if part.batch == Batch::First {
            part.batch = Batch::Trial;
        }
        if part.batch == Batch::Trial && surging == 0 && part.canary.is_some() {
            self.hear(now, pool);
        } else if part.batch == Batch::Trial && surging == 0 && is_open {
            part.batch = Batch::Proven;
            let workers = part.workers();
            let desired = self.pool_mut(pool).desired;
            self.resize(now, pool, workers.max(desired), ExitReason::Reload);
            self.admit(now, pool);
        }
    }

    /// Takes the rollout's next step, if it is due. Returns whether it was.
    pub(crate) fn advance_rollout(&mut self, now: Time) -> bool {
        let Some(rollout) = &self.rollout else {
            return false;
        };
        let untold = rollout.job.is_some();
        match &rollout.stage {
            Stage::Opening if self.new_pools_are_up() => self.begin_replacing(now),
            Stage::Replacing if self.total.behind == 0 && !self.has_canaries() => {
                self.commit(now);
            }
            Stage::Back(back) if untold && back.stderr.is_some() && self.total.behind == 0 => {
                self.tell_rollback();
            }
            Stage::Back(_) if !untold && self.total.newcomers == 0 => self.end_rollback(),
            _ => return false,
        }
        true
    }

    fn new_pools_are_up(&self) -> bool {
        let mut new = self
            .pools
            .iter()
            .filter(|pool| pool.part.as_ref().is_some_and(|part| part.before.is_none()));
        new.all(|pool| pool.tally.behind == 0)
    }

    /// Queues every slot that stays.
    fn begin_replacing(&mut self, now: Time) {
        let Some(rollout) = &mut self.rollout else {
            return;
        };
        rollout.stage = Stage::Replacing;
        for pool in rollout.pools.clone() {
            let Some(part) = &mut self.pool_mut(pool).part else {
                continue;
            };
            let Some(before) = part.before else {
                part.batch = Batch::Proven;
                continue;
            };
            part.batch = Batch::First;
            let slots = (0..before.min(part.workers())).map(|index| SlotId { pool, index });
            let slots: Vec<SlotId> = slots.filter(|slot| !part.keeps(*slot)).collect();
            for id in slots {
                self.enqueue(id, Cause::Reload { failures: 0 });
            }
            self.admit(now, pool);
        }
    }

    /// Counts every slot anew, since what is counted has changed.
    pub(crate) fn recount_all(&mut self) {
        for id in self.pools.slot_ids() {
            self.recount(id);
            self.touch(id);
        }
    }

    /// How many processes drain.
    pub(crate) fn draining(&self) -> usize {
        self.pools
            .iter()
            .flat_map(|pool| &pool.slots)
            .flat_map(|slot| &slot.leaving)
            .filter(|leaving| leaving.stage.is_draining())
            .count()
    }
}

impl Process {
    /// Runs another generation from now on.
    pub(crate) fn take_settings(&mut self, generation: u64, policy: Rc<Policy>) {
        self.generation = generation;
        self.policy = policy;
    }
}
