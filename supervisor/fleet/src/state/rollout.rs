//! A rollout: a reload in progress, and what it wants of each pool.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::interface::{Fate, JobId, PoolId, Time};
use crate::policy::Policy;
use crate::state::canary::Candidate;
use crate::state::pool::Pool;
use crate::state::replacement::Cause;
use crate::state::slot::{Slot, SlotId, Standing};

/// A reload in progress.
#[derive(Debug)]
pub(crate) struct Rollout {
    /// Who waits for its end; none once that has been told.
    pub(crate) job: Option<JobId>,
    /// Who had its canaries pass, and waits for its end as well.
    pub(crate) promoters: Vec<JobId>,
    /// Who wanted it undone, and waits for that.
    pub(crate) aborters: Vec<JobId>,
    /// The generation that it brings, or takes back.
    pub(crate) generation: u64,
    /// The pools that are to be, in their order.
    pub(crate) pools: Vec<PoolId>,
    /// How far it has come.
    pub(crate) stage: Stage,
}

/// How far a rollout has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The pools that are new start.
    Opening,
    /// The pools that stay replace their slots.
    Replacing,
    /// It has failed, and everything goes back.
    Back(Rollback),
}

/// A rollback in progress.
#[derive(Debug)]
pub(crate) struct Rollback {
    /// Why, with the name of the slot.
    pub(crate) why: String,
    /// The stderr of the process that is the reason; none until it is reaped.
    pub(crate) stderr: Option<String>,
    /// What went wrong last with the generation that is to be restored.
    pub(crate) setback: Option<String>,
}

/// What a rollout wants of one pool.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The numbers that the new generation is run by.
    pub(crate) policy: Rc<Policy>,
    /// How many workers an operator has scaled it to, where the new generation asks for
    /// as many as the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scaled: Option<u32>,
    /// What becomes of the workers that it has.
    #[serde(default)]
    pub(crate) fate: Fate,
    /// How many slots the pool had before; none if it is new.
    pub(crate) before: Option<u32>,
    /// Whether the first slots have come up in the new generation.
    pub(crate) batch: Batch,
    /// Its canary, until there is a verdict on it. A supervisor that goes on after
    /// another undoes the reload, so that this is not written down.
    #[serde(skip)]
    pub(crate) canary: Option<Candidate>,
}

/// The first slots of a pool that a rollout replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Batch {
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
    pub(crate) fn workers(&self) -> u32 {
        self.scaled.unwrap_or(self.policy.workers)
    }

    /// How many slots have another worker once it is in force.
    pub(crate) fn renewed(&self) -> u32 {
        let kept = match self.fate {
            Fate::Kept => self.before.unwrap_or(0).min(self.workers()),
            Fate::InPlace | Fate::Replaced => 0,
        };
        self.workers() - kept
    }

    /// Whether the slot keeps its process, which is one of the new generation as soon
    /// as that is in force.
    pub(crate) fn keeps(&self, slot: SlotId) -> bool {
        self.fate == Fate::Kept && self.before.is_some_and(|before| slot.index < before)
    }
}

impl Rollout {
    /// Everybody who waits for its end.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = JobId> {
        let others = self.promoters.iter().chain(&self.aborters);
        self.job.iter().chain(others).copied()
    }

    pub(crate) fn is_forward(&self) -> bool {
        !matches!(self.stage, Stage::Back(_))
    }

    /// Completes what a slot adds to the counters by what the rollout makes of it.
    pub(crate) fn adjust(&self, standing: &mut Standing, slot: &Slot, part: &Part, wanted: bool) {
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
    pub(crate) fn is_on_trial(&self) -> bool {
        self.part
            .as_ref()
            .is_some_and(|part| part.batch == Batch::Trial)
    }
}

/// A reload that is in force, of which whoever asked is still to be told.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) job: JobId,
    pub(crate) message: String,
    /// Then it is told whatever those do that have to leave.
    pub(crate) until: Time,
}
