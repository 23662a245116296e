//! A reload in progress: what it wants of each pool, and which step comes next.
//!
//! Forward: the pools that are new start, then every pool that stays replaces
//! its slots, `max_surge` at a time, unless it keeps its processes. The first batch of a pool has to come up
//! before anything else happens in it; then the slots that the new size adds
//! start. When nothing is behind, the generation is put in force (`reload`).
//! A failure before that turns the rollout around (`rollback`).

use std::rc::Rc;

use prefork_api::ExitReason;
use serde::{Deserialize, Serialize};

use super::Fleet;
use super::event::{Fate, JobId, PoolId, Time};
use super::lifecycle::Failure;
use super::policy::Policy;
use super::pool::Pool;
use super::process::Process;
use super::replacement::{Cause, Progress};
use super::slot::{Slot, SlotId, Standing};

/// A reload in progress.
#[derive(Debug)]
pub(super) struct Rollout {
    /// Who waits for its end; none once that has been told.
    pub(super) job: Option<JobId>,
    /// The generation that it brings, or takes back.
    pub(super) generation: u64,
    /// The pools that are to be, in their order.
    pub(super) pools: Vec<PoolId>,
    /// How far it has come.
    pub(super) stage: Stage,
}

/// How far a rollout has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// The pools that are new start.
    Opening,
    /// The pools that stay replace their slots.
    Replacing,
    /// It has failed, and everything goes back.
    Back(Rollback),
}

/// A rollback in progress.
#[derive(Debug)]
pub(super) struct Rollback {
    /// Why, with the name of the slot.
    pub(super) why: String,
    /// The stderr of the process that is the reason; none until it is reaped.
    pub(super) stderr: Option<String>,
    /// What went wrong last with the generation that is to be restored.
    pub(super) setback: Option<String>,
}

/// What a rollout wants of one pool.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Part {
    /// The numbers that the new generation is run by.
    pub(super) policy: Rc<Policy>,
    /// How many workers an operator has scaled it to, where the new generation asks for
    /// as many as the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scaled: Option<u32>,
    /// What becomes of the workers that it has.
    #[serde(default)]
    pub(super) fate: Fate,
    /// How many slots the pool had before; none if it is new.
    pub(super) before: Option<u32>,
    /// Whether the first slots have come up in the new generation.
    pub(super) batch: Batch,
}

/// The first slots of a pool that a rollout replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Batch {
    /// Their turn has not come.
    Waiting,
    /// They are taking their turn.
    First,
    /// They have started; nothing else is replaced.
    Trial,
    /// They have come up; the others may follow.
    Proven,
}

impl Part {
    /// How many workers the pool is to have once the new generation is in force.
    pub(super) fn workers(&self) -> u32 {
        self.scaled.unwrap_or(self.policy.workers)
    }

    /// Whether the slot keeps its process, which is one of the new generation as soon
    /// as that is in force.
    pub(super) fn keeps(&self, slot: SlotId) -> bool {
        self.fate == Fate::Kept && self.before.is_some_and(|before| slot.index < before)
    }
}

impl Rollout {
    pub(super) fn is_forward(&self) -> bool {
        !matches!(self.stage, Stage::Back(_))
    }

    /// Completes what a slot adds to the counters by what the rollout makes of it.
    pub(super) fn adjust(&self, standing: &mut Standing, slot: &Slot, part: &Part, wanted: bool) {
        // What a reload adds is not missed before it is in force.
        standing.missing &= slot.id.index < part.before.unwrap_or(0);
        standing.paused &= standing.missing;
        standing.behind = wanted
            && match self.stage {
                Stage::Back(_) => !self.is_restored(slot),
                _ => {
                    slot.id.index < part.workers()
                        && !part.keeps(slot.id)
                        && !self.has_arrived(slot)
                }
            };
    }

    fn has_arrived(&self, slot: &Slot) -> bool {
        slot.current()
            .is_some_and(|process| process.is_ready() && process.generation == self.generation)
    }

    /// Whether the slot is back in the generation before, or its restoring has
    /// failed and will be tried again.
    fn is_restored(&self, slot: &Slot) -> bool {
        if let Some(Cause::Reload { failures: 1.. }) = slot.replacement.as_ref().map(|it| it.cause)
        {
            return true;
        }
        let current = slot.current();
        if current.is_some_and(|process| process.generation == self.generation) {
            return false;
        }
        current.is_some_and(|process| process.serving().is_some()) || slot.backoff.failing()
    }
}

impl Pool {
    /// Whether nothing is to be replaced until the first batch has come up.
    pub(super) fn is_on_trial(&self) -> bool {
        self.part
            .as_ref()
            .is_some_and(|part| part.batch == Batch::Trial)
    }
}

impl Fleet {
    /// The generation that the pool's slots are to run.
    pub(super) fn aim(&self, pool: PoolId) -> u64 {
        match &self.rollout {
            Some(rollout) if rollout.is_forward() && self.pools[pool].part.is_some() => {
                rollout.generation
            }
            _ => self.generation,
        }
    }

    /// The numbers that a generation of a pool is run by.
    pub(super) fn policy_in(&self, pool: PoolId, generation: u64) -> Rc<Policy> {
        let pool = &self.pools[pool];
        let policy = match &pool.part {
            Some(part) if generation > self.generation => &part.policy,
            _ => &pool.policy,
        };
        Rc::clone(policy)
    }

    /// Whether a failure is the end of the reload in progress.
    pub(super) fn breaks_reload(&self, failure: &Failure) -> bool {
        self.rollout
            .as_ref()
            .is_some_and(|rollout| rollout.is_forward() && failure.generation == rollout.generation)
    }

    /// Whether the next successors in the pool have to prove themselves.
    pub(super) fn probation(&self, pool: PoolId) -> bool {
        let part = self.pools[pool].part.as_ref();
        part.is_some_and(|part| part.batch == Batch::First && !part.policy.min_ready.is_zero())
    }

    /// Whether a slot whose seat has just been left is still to be brought to
    /// another generation: a process that starts in it now would not do.
    pub(super) fn has_turn_to_come(&self, id: SlotId) -> bool {
        let slot = self.slot(id);
        slot.is_some_and(|slot| slot.replacement.is_some() && slot.generation != self.aim(id.pool))
    }

    /// Has a slot queue again whose process left while it was asked to take
    /// new settings. A successor that has been started goes on.
    pub(super) fn wait_again(&mut self, id: SlotId) {
        let replacement = self
            .slot_mut(id)
            .replacement
            .take_if(|it| matches!(it.progress, Progress::Asked));
        if let Some(replacement) = replacement {
            self.enqueue(id, replacement.cause);
        }
    }

    /// Follows the first batch of a pool. Once it has come up, the slots that
    /// the new size adds start.
    pub(super) fn prove(&mut self, now: Time, pool: PoolId) {
        let surging = self.pool_mut(pool).tally.surging;
        let Some(part) = &mut self.pool_mut(pool).part else {
            return;
        };
        if part.batch == Batch::First {
            part.batch = Batch::Trial;
        }
        if part.batch == Batch::Trial && surging == 0 {
            part.batch = Batch::Proven;
            let workers = part.workers();
            let desired = self.pool_mut(pool).desired;
            self.resize(now, pool, workers.max(desired), ExitReason::Reload);
            self.admit(now, pool);
        }
    }

    /// Takes the rollout's next step, if it is due. Returns whether it was.
    pub(super) fn advance_rollout(&mut self, now: Time) -> bool {
        let Some(rollout) = &self.rollout else {
            return false;
        };
        let untold = rollout.job.is_some();
        match &rollout.stage {
            Stage::Opening if self.new_pools_are_up() => self.begin_replacing(now),
            Stage::Replacing if self.total.behind == 0 => self.commit(now),
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
    pub(super) fn recount_all(&mut self) {
        for id in self.pools.slot_ids() {
            self.recount(id);
            self.touch(id);
        }
    }

    /// How many processes drain.
    pub(super) fn draining(&self) -> usize {
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
    pub(super) fn take_settings(&mut self, generation: u64, policy: Rc<Policy>) {
        self.generation = generation;
        self.policy = policy;
    }
}
