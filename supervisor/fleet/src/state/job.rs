//! A job: a command whose asker waits, and what it waits for.

use crate::interface::{Ask, JobId, PoolId};
use crate::state::slot::{Slot, SlotId};

/// A job that waits for one slot or more. (A job that waits for an answer
/// or for the end of everything is kept where that is awaited.)
#[derive(Debug)]
pub(crate) struct Job {
    /// The pool it concerns.
    pub(crate) pool: PoolId,
    /// The slot it concerns; none for the whole pool.
    pub(crate) slot: Option<u32>,
    /// What it does, as a participle: `restarted`.
    pub(crate) deed: &'static str,
    /// Slots that it waits for.
    pub(crate) remaining: u32,
    /// Slots that it has waited for in all.
    pub(crate) total: u32,
}

/// What a job waits for in one slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    /// The job.
    pub(crate) job: JobId,
    /// A process with this number must be gone.
    pub(crate) predecessor: Option<u64>,
    /// A process with a higher number than this must be up.
    pub(crate) newer_than: Option<u64>,
}

/// A question to the current process.
#[derive(Debug)]
pub(crate) struct Asking {
    /// Who waits for the answer.
    pub(crate) jobs: Vec<JobId>,
    /// What was asked.
    pub(crate) ask: Ask,
}

/// Who waits for the certificate of a process to say why it failed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Awaiting {
    /// A job.
    Job(JobId),
    /// The boot that it broke.
    Boot(SlotId),
    /// The reload that it broke.
    Reload,
}

impl Job {
    /// A job that concerns a whole pool and waits for no slot yet.
    pub(crate) fn whole_pool(pool: PoolId, deed: &'static str) -> Self {
        Self {
            pool,
            slot: None,
            deed,
            remaining: 0,
            total: 0,
        }
    }
}

impl Watch {
    /// Whether what it waits for is so.
    pub(crate) fn is_fulfilled(&self, slot: &Slot) -> bool {
        let gone = self
            .predecessor
            .is_none_or(|incarnation| slot.place_of(incarnation).is_none());
        let up = self.newer_than.is_none_or(|incarnation| {
            slot.current().is_some_and(|process| {
                process.serving().is_some() && process.worker.incarnation > incarnation
            })
        });
        gone && up
    }
}

/// So many workers, as people write it.
pub(crate) fn counted(workers: u32) -> String {
    match workers {
        1 => "1 worker".to_owned(),
        _ => format!("{workers} workers"),
    }
}
