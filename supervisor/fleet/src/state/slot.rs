//! One slot: who sits in it, who is to follow, who still leaves.

use std::collections::VecDeque;

use prefork_api::{Exit, SlotState};
use serde::{Deserialize, Serialize};

use crate::interface::{PoolId, Time, Worker};
use crate::state::backoff::Backoff;
use crate::state::job::{Asking, Watch};
use crate::state::leave::{Leave, Leaving};
use crate::state::process::{Process, Stage};
use crate::state::replacement::{Progress, Replacement};

/// Names a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SlotId {
    /// Its pool.
    pub(crate) pool: PoolId,
    /// Its index in the pool.
    pub(crate) index: u32,
}

impl From<Worker> for SlotId {
    fn from(worker: Worker) -> Self {
        Self {
            pool: worker.pool,
            index: worker.slot,
        }
    }
}

/// Who sits in a slot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Seat {
    /// Nobody. A slot that is wanted does not stay so: it starts a process.
    Vacant,
    /// Nobody, until the wait is over.
    Backoff {
        /// When the next process starts.
        until: Time,
        /// Why it waits, for people.
        why: String,
    },
    /// The current process.
    Held(Process),
}

/// A slot. It outlives being scaled away, so that no worker's name is reused.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Slot {
    /// Its name.
    pub(crate) id: SlotId,
    /// How many processes it has had, with those that could not be made.
    pub(crate) incarnations: u64,
    /// The generation of the next process that nobody precedes.
    pub(crate) generation: u64,
    /// Who sits in it.
    pub(crate) seat: Seat,
    /// Who is to follow the current process while that one serves.
    pub(crate) replacement: Option<Replacement>,
    /// Who was told to leave and has not been reaped.
    pub(crate) leaving: Vec<Leaving>,
    /// Its failures in a row.
    pub(crate) backoff: Backoff,
    /// Whether its last process to be recycled for its memory was young: the next one
    /// grows as fast.
    #[serde(skip)]
    pub(crate) grows_at_once: bool,
    /// Its last death certificates, newest first.
    pub(crate) exits: VecDeque<Exit>,
    /// Jobs that wait for something to become true of it.
    #[serde(skip)]
    pub(crate) watches: Vec<Watch>,
    /// What its current process was asked and has not answered.
    #[serde(skip)]
    pub(crate) asking: Option<Asking>,
    /// Whether any process of it was ever ready.
    pub(crate) been_ready: bool,
    /// The time of its entry among the deadlines.
    #[serde(skip)]
    pub(crate) armed: Option<Time>,
    /// What it has been counted as.
    #[serde(skip)]
    pub(crate) counted: Standing,
}

/// What a slot adds to its pool's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// It accepts connections.
    pub(crate) ready: bool,
    /// It should accept connections and does not.
    pub(crate) missing: bool,
    /// It is missing by an operator's wish.
    pub(crate) paused: bool,
    /// It should serve, does not, and may soon: a command may wait for it.
    pub(crate) unsettled: bool,
    /// It should serve and never has.
    pub(crate) unbooted: bool,
    /// It should have no process and has one that will go.
    pub(crate) surplus: bool,
    /// It holds one of the pool's places for a replacement.
    pub(crate) surging: bool,
    /// A reload in progress, or its rollback, waits for it.
    pub(crate) behind: bool,
    /// Processes that were told to drain and may still accept.
    pub(crate) shutting: u32,
    /// Processes of a generation that is not in force yet.
    pub(crate) newcomers: u32,
    /// Processes that will go or stay, but are worth waiting for.
    pub(crate) processes: u32,
}

/// Where in its slot a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is the current one.
    Current,
    /// It is to follow the current one.
    Successor,
    /// It was told to leave; its index among those.
    Leaving(usize),
}

impl Slot {
    /// How many death certificates are kept.
    pub(crate) const EXITS_KEPT: usize = 10;

    /// A slot that never had a process.
    pub(crate) fn new(id: SlotId) -> Self {
        Self {
            id,
            incarnations: 0,
            generation: 0,
            seat: Seat::Vacant,
            replacement: None,
            leaving: Vec::new(),
            backoff: Backoff::default(),
            grows_at_once: false,
            exits: VecDeque::new(),
            watches: Vec::new(),
            asking: None,
            been_ready: false,
            armed: None,
            counted: Standing::default(),
        }
    }

    /// The current process.
    pub(crate) fn current(&self) -> Option<&Process> {
        match &self.seat {
            Seat::Held(process) => Some(process),
            Seat::Vacant | Seat::Backoff { .. } => None,
        }
    }

    /// The current process, to be changed.
    pub(crate) fn current_mut(&mut self) -> Option<&mut Process> {
        match &mut self.seat {
            Seat::Held(process) => Some(process),
            Seat::Vacant | Seat::Backoff { .. } => None,
        }
    }

    /// Takes the current process, if there is one, out of its seat.
    pub(crate) fn take_current(&mut self) -> Option<Process> {
        match std::mem::replace(&mut self.seat, Seat::Vacant) {
            Seat::Held(process) => Some(process),
            other @ (Seat::Vacant | Seat::Backoff { .. }) => {
                self.seat = other;
                None
            }
        }
    }

    /// The process that is to follow the current one.
    pub(crate) fn successor(&self) -> Option<&Process> {
        match &self.replacement.as_ref()?.progress {
            Progress::Booting(process) => Some(process),
            Progress::Queued(_) | Progress::Asked | Progress::Waiting { .. } => None,
        }
    }

    /// Where the process with this number is; none if it has gone.
    pub(crate) fn place_of(&self, incarnation: u64) -> Option<Place> {
        let is = |process: &Process| process.worker.incarnation == incarnation;
        if self.current().is_some_and(is) {
            return Some(Place::Current);
        }
        if self.successor().is_some_and(is) {
            return Some(Place::Successor);
        }
        self.leaving
            .iter()
            .position(|leaving| is(&leaving.process))
            .map(Place::Leaving)
    }

    /// The process at a place.
    pub(crate) fn process_mut(&mut self, place: Place) -> Option<&mut Process> {
        match place {
            Place::Current => self.current_mut(),
            Place::Successor => match &mut self.replacement.as_mut()?.progress {
                Progress::Booting(process) => Some(process),
                Progress::Queued(_) | Progress::Asked | Progress::Waiting { .. } => None,
            },
            Place::Leaving(index) => self
                .leaving
                .get_mut(index)
                .map(|leaving| &mut leaving.process),
        }
    }

    /// What the slot is doing, in one word.
    pub(crate) fn state(&self) -> SlotState {
        match &self.seat {
            Seat::Held(process) => match process.stage {
                Stage::Starting | Stage::Probation { .. } => SlotState::Starting,
                Stage::Ready(_) => SlotState::Ready,
                Stage::Paused(_) => SlotState::Paused,
            },
            Seat::Backoff { .. } => SlotState::Backoff,
            Seat::Vacant if self.leaving.iter().any(|l| l.stage.is_draining()) => {
                SlotState::Draining
            }
            Seat::Vacant if !self.leaving.is_empty() => SlotState::Stopping,
            Seat::Vacant => SlotState::Empty,
        }
    }

    /// What the slot adds to the counters of a pool that wants it, or doesn't,
    /// while `in_force` is the generation in force and no reload in progress.
    pub(crate) fn standing(&self, wanted: bool, in_force: u64) -> Standing {
        let current = self.current();
        let ready = current.is_some_and(Process::is_ready);
        let settled =
            current.is_some_and(|process| process.serving().is_some()) || self.backoff.failing();
        let held = u32::from(current.is_some()) + u32::from(self.successor().is_some());
        let leaving = || self.leaving.iter().filter(|l| l.stage != Leave::Stuck);
        let processes = held + leaving().count() as u32;
        let newcomers = current
            .into_iter()
            .chain(self.successor())
            .chain(leaving().map(|leaving| &leaving.process))
            .filter(|process| process.generation > in_force);
        Standing {
            ready,
            missing: wanted && !ready,
            paused: wanted && current.is_some_and(Process::is_paused),
            unsettled: wanted && !settled,
            unbooted: wanted && !self.been_ready,
            surplus: !wanted && processes > 0,
            surging: self
                .replacement
                .as_ref()
                .is_some_and(|replacement| replacement.progress.holds_a_place()),
            behind: false,
            shutting: self.leaving.iter().filter(|l| l.accepts()).count() as u32,
            newcomers: newcomers.count() as u32,
            processes,
        }
    }

    /// When the slot has to be looked at again, if nothing is heard of it.
    /// `recycling` is whether age is a reason for a successor at all.
    pub(crate) fn deadline(&self, recycling: bool) -> Option<Time> {
        let seat = match &self.seat {
            Seat::Vacant => None,
            Seat::Backoff { until, .. } => Some(*until),
            Seat::Held(process) => process.deadline(),
        };
        let age = match &self.seat {
            Seat::Held(process)
                if recycling && process.is_ready() && self.replacement.is_none() =>
            {
                process.too_old_at()
            }
            _ => None,
        };
        let successor = match self.replacement.as_ref().map(|r| &r.progress) {
            Some(Progress::Booting(process)) => process.deadline(),
            Some(Progress::Waiting { until }) => Some(*until),
            Some(Progress::Queued(_) | Progress::Asked) | None => None,
        };
        let leaving = self.leaving.iter().filter_map(Leaving::deadline);
        leaving.chain(seat).chain(age).chain(successor).min()
    }

    /// Keeps a death certificate, and as many older ones as there is room for.
    pub(crate) fn keep(&mut self, exit: Exit) {
        self.exits.truncate(Self::EXITS_KEPT - 1);
        self.exits.push_front(exit);
    }
}
