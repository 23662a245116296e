//! A leave: how a process was told to leave, and who caused its end.

use prefork_api::ExitReason;
use serde::{Deserialize, Serialize};

use crate::interface::{Death, Signal, Time};
use crate::state::failure::unasked_reason;
use crate::state::job::Awaiting;
use crate::state::process::Process;

/// The first thing that is done to make a process leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Let it finish what is in flight. One that never was ready has nothing
    /// in flight: it is told to stop.
    Drain,
    /// Tell it to leave.
    Stop,
    /// Have it dump its core.
    Abort,
    /// Kill it.
    Kill,
}

/// A process that was told to leave and has not been reaped.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Leaving {
    /// The process.
    pub(crate) process: Process,
    /// Who caused it.
    pub(crate) cause: ExitReason,
    /// One sentence more for its certificate.
    pub(crate) note: Option<String>,
    /// When it began to drain, if it did.
    pub(crate) draining_since: Option<Time>,
    /// How it was asked.
    pub(crate) stage: Leave,
    /// Until when it is waited for to say that it accepts nothing more; none once it
    /// has, and where it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) accepts_until: Option<Time>,
    /// Who wants its certificate to know why it failed, and what they are told.
    #[serde(skip)]
    pub(crate) awaiting: Vec<(Awaiting, String)>,
}

/// How a process was asked to leave, and until when that may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Leave {
    /// It finishes what is in flight.
    Draining {
        /// Then it is told to stop.
        until: Time,
    },
    /// It said `drained` and is about to exit.
    Drained {
        /// Then it is told to stop.
        until: Time,
    },
    /// It was told to stop.
    Stopping {
        /// Then it is killed.
        until: Time,
    },
    /// It was sent SIGABRT and dumps its core.
    Aborting {
        /// Then it is killed.
        until: Time,
    },
    /// It was sent SIGKILL.
    Killed {
        /// Then nobody waits for it any more.
        until: Time,
    },
    /// The kernel does not let go of it; nobody waits for it.
    Stuck,
}

impl Leave {
    /// When the next thing happens to it by itself.
    pub(crate) fn deadline(self) -> Option<Time> {
        match self {
            Self::Draining { until }
            | Self::Drained { until }
            | Self::Stopping { until }
            | Self::Aborting { until }
            | Self::Killed { until } => Some(until),
            Self::Stuck => None,
        }
    }

    /// Whether it still finishes what it had.
    pub(crate) fn is_draining(self) -> bool {
        matches!(self, Self::Draining { .. } | Self::Drained { .. })
    }

    /// Whether SIGKILL is the last thing it was or will be sent.
    pub(crate) fn is_killed(self) -> bool {
        matches!(self, Self::Killed { .. } | Self::Stuck)
    }
}

impl Leaving {
    /// Whether it may still accept, as far as is known.
    pub(crate) fn accepts(&self) -> bool {
        self.stage.is_draining() && self.accepts_until.is_some()
    }

    /// When the next thing happens to it by itself.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let accepts_until = self.accepts_until.filter(|_| self.accepts());
        self.stage.deadline().into_iter().chain(accepts_until).min()
    }

    /// Who caused the death of a process that was leaving. The cause for
    /// which it had to leave, unless something else was quicker.
    pub(crate) fn reason(&self, death: &Death) -> ExitReason {
        let ours = match self.stage {
            Leave::Draining { .. } => death.signal.is_none(),
            // A program behind an adapter was asked by a signal, and may end by that.
            Leave::Drained { .. } => death.signal.is_none_or(Signal::asks_to_leave),
            Leave::Stopping { .. } => death.signal.is_none_or(|signal| signal == Signal::TERM),
            Leave::Aborting { .. } | Leave::Killed { .. } | Leave::Stuck => true,
        };
        if ours {
            self.cause
        } else {
            unasked_reason(death)
        }
    }
}
