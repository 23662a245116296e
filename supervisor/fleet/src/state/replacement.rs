//! A replacement: who is to follow a slot's current process, why, and how far that is.

use prefork_api::ExitReason;
use serde::{Deserialize, Serialize};

use crate::interface::Time;
use crate::state::process::Process;

/// Who is to follow a slot's current process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Replacement {
    /// Why.
    pub(crate) cause: Cause,
    /// How far that has come.
    pub(crate) progress: Progress,
}

/// Why a process is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// It has reached a limit. If its successor fails, it is tried again.
    Recycle(ExitReason),
    /// An operator wants it. If its successor fails, the command has failed.
    Restart,
    /// A reload brings another generation, or its rollback the one before. If a
    /// successor fails, the reload has failed; the rollback tries again.
    Reload {
        /// How many successors have failed.
        failures: u32,
    },
}

impl Cause {
    /// What the predecessor's certificate says.
    pub(crate) fn reason(self) -> ExitReason {
        match self {
            Self::Recycle(reason) => reason,
            Self::Restart => ExitReason::Operator,
            Self::Reload { .. } => ExitReason::Reload,
        }
    }
}

/// How far a replacement has come.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Progress {
    /// It waits for its turn in the pool's queue.
    Queued(Turn),
    /// The successor has been started.
    Booting(Box<Process>),
    /// The current process was asked to become its own successor: to take the
    /// settings of another generation.
    Asked,
    /// The successor failed, or the last one did: it waits before the next try.
    Waiting {
        /// Then it queues again.
        until: Time,
    },
}

impl Progress {
    /// Whether it takes one of the pool's places for replacements.
    pub(crate) fn holds_a_place(&self) -> bool {
        matches!(self, Self::Booting(_) | Self::Asked)
    }
}

/// A place in a pool's queue: commands by slot, then recycles as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Turn {
    /// A command's, with the slot's index.
    Rollout(u32),
    /// A recycle's, with its number.
    Recycle(u64),
}
