//! What `status` and the metrics read: views that borrow the fleet.

use prefork_api::{Exit, ExitReason, SlotState};

use crate::interface::{JobId, PoolId, Time, Worker};
use crate::state::leave::Leaving;
use crate::state::pool::Pool;
use crate::state::process::{Process, Stage};
use crate::state::rollout::Part;
use crate::state::slot::{Seat, Slot, SlotId};
use crate::{Fleet, Strength};

impl Fleet {
    /// The generation that is in force.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether every slot of every pool has been ready once, as it started.
    pub fn booted(&self) -> bool {
        self.booted
    }

    /// Whether the fleet is on its way out, or out.
    pub fn stopping(&self) -> bool {
        !self.starts_processes()
    }

    /// How many workers a job has done of all that it has to; none where it is not about
    /// a number of them.
    pub fn progress_of(&self, job: JobId) -> Option<(u32, u32)> {
        // A scale waits for its pool, not for slots.
        if let Some(state) = self.jobs.get(&job).filter(|it| it.total > 0) {
            return Some((state.total - state.remaining, state.total));
        }
        let rollout = self.rollout.as_ref();
        if let Some(rollout) = rollout.filter(|it| it.jobs().any(|it| it == job)) {
            let parts = rollout.pools.iter().filter_map(|pool| {
                let pool = self.pools.get(*pool)?;
                pool.part.as_ref()
            });
            let all: u32 = parts.map(Part::renewed).sum();
            return Some((all.saturating_sub(self.total.behind), all));
        }
        let (pool, scaling) = self.pools.iter().find_map(|pool| {
            let scaling = pool.scaling.as_ref()?;
            scaling.jobs.contains(&job).then_some((pool, scaling))
        })?;
        let added = pool.desired.saturating_sub(scaling.added_from);
        let done = added.saturating_sub(pool.tally.missing);
        (added > 0).then_some((done, added))
    }

    /// The generation that the reload in progress brings, or takes back.
    pub fn reloading(&self) -> Option<u64> {
        self.rollout.as_ref().map(|rollout| rollout.generation)
    }

    /// The generation that the reload in progress brings, as long as it goes
    /// forward.
    pub fn coming(&self) -> Option<u64> {
        let rollout = self.rollout.as_ref().filter(|rollout| rollout.is_forward());
        rollout.map(|rollout| rollout.generation)
    }

    /// The pools, in the order of the configuration; then those that a reload
    /// adds, and those on their way out.
    pub fn pools(&self) -> impl ExactSizeIterator<Item = PoolView<'_>> {
        self.pools.iter().map(|pool| PoolView { pool })
    }

    /// The pool with this id.
    pub fn pool(&self, id: PoolId) -> Option<PoolView<'_>> {
        let pool = self.pools.get(id)?;
        Some(PoolView { pool })
    }

    /// The process with this name, until it is reaped.
    pub fn process(&self, worker: Worker) -> Option<ProcessView<'_>> {
        let slot = self.slot(SlotId::from(worker))?;
        SlotView { slot }
            .processes()
            .find(|process| process.worker() == worker)
    }
}

/// A pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolView<'a> {
    pool: &'a Pool,
}

impl<'a> PoolView<'a> {
    pub(super) fn part(self) -> Option<&'a Part> {
        self.pool.part.as_ref()
    }

    /// Its id.
    pub fn id(self) -> PoolId {
        self.pool.id
    }

    /// Its name.
    pub fn name(self) -> &'a str {
        &self.pool.policy.name
    }

    /// How many workers it should have.
    pub fn desired(self) -> u32 {
        self.pool.desired
    }

    /// How many the configuration in force says.
    pub fn configured(self) -> u32 {
        self.pool.policy.workers
    }

    /// How many it will have once the reload in progress is in force.
    pub fn coming(self) -> u32 {
        self.pool
            .part
            .as_ref()
            .map_or(self.pool.desired, Part::workers)
    }

    /// How many of its slots accept connections.
    pub fn ready(self) -> u32 {
        self.pool.tally.ready
    }

    /// What its readiness is made of.
    pub fn strength(self) -> Strength {
        Strength::new(self.pool.policy.ready, &self.pool.tally)
    }

    /// Every slot it ever had, by index; those from [`Self::desired`] on are
    /// on their way to `empty`.
    pub fn slots(self) -> impl ExactSizeIterator<Item = SlotView<'a>> {
        self.pool.slots.iter().map(|slot| SlotView { slot })
    }

    /// The slots that an operator sees: those that it should have, and those
    /// above that still have a process.
    pub fn shown(self) -> impl Iterator<Item = SlotView<'a>> {
        self.slots()
            .filter(move |slot| slot.index() < self.desired() || slot.processes().next().is_some())
    }

    /// The slot with this index.
    pub fn slot(self, index: u32) -> Option<SlotView<'a>> {
        let slot = self.pool.slots.get(index as usize)?;
        Some(SlotView { slot })
    }
}

/// A slot.
#[derive(Debug, Clone, Copy)]
pub struct SlotView<'a> {
    slot: &'a Slot,
}

impl<'a> SlotView<'a> {
    /// Its index in the pool.
    pub fn index(self) -> u32 {
        self.slot.id.index
    }

    /// What it is doing.
    pub fn state(self) -> SlotState {
        self.slot.state()
    }

    /// The current process; none in `backoff`, `empty`, `draining`, `stopping`.
    pub fn current(self) -> Option<ProcessView<'a>> {
        self.slot.current().map(ProcessView::staying)
    }

    /// The process that is to follow the current one while that one serves.
    pub fn successor(self) -> Option<ProcessView<'a>> {
        self.slot.successor().map(ProcessView::staying)
    }

    /// Predecessors that were told to leave and have not been reaped, oldest
    /// first: `draining` or `stopping`.
    pub fn leaving(self) -> impl ExactSizeIterator<Item = ProcessView<'a>> {
        self.slot.leaving.iter().map(ProcessView::leaving)
    }

    /// Every process of the slot: current, successor, leaving.
    pub fn processes(self) -> impl Iterator<Item = ProcessView<'a>> {
        self.current()
            .into_iter()
            .chain(self.successor())
            .chain(self.leaving())
    }

    /// How many processes it has had, with those that could not be made.
    pub fn incarnations(self) -> u64 {
        self.slot.incarnations
    }

    /// In `backoff`: when the next process starts, and why it waits.
    pub fn backoff(self) -> Option<(Time, &'a str)> {
        match &self.slot.seat {
            Seat::Backoff { until, why } => Some((*until, why)),
            Seat::Vacant | Seat::Held(_) => None,
        }
    }

    /// Its last death certificates, newest first, 10 at most.
    pub fn exits(self) -> impl ExactSizeIterator<Item = &'a Exit> {
        self.slot.exits.iter()
    }
}

/// A process that has not been reaped.
#[derive(Debug, Clone, Copy)]
pub struct ProcessView<'a> {
    process: &'a Process,
    state: SlotState,
    leaves_for: Option<ExitReason>,
}

impl<'a> ProcessView<'a> {
    fn staying(process: &'a Process) -> Self {
        let state = match process.stage {
            Stage::Starting | Stage::Probation { .. } => SlotState::Starting,
            Stage::Ready(_) => SlotState::Ready,
            Stage::Paused(_) => SlotState::Paused,
        };
        Self {
            process,
            state,
            leaves_for: None,
        }
    }

    fn leaving(leaving: &'a Leaving) -> Self {
        let state = if leaving.stage.is_draining() {
            SlotState::Draining
        } else {
            SlotState::Stopping
        };
        Self {
            process: &leaving.process,
            state,
            leaves_for: Some(leaving.cause),
        }
    }

    /// Its name.
    pub fn worker(self) -> Worker {
        self.process.worker
    }

    /// `starting` (also on probation), `ready`, `paused`, `draining` or
    /// `stopping`.
    pub fn state(self) -> SlotState {
        self.state
    }

    /// Why it was told to leave, if it was.
    pub fn leaves_for(self) -> Option<ExitReason> {
        self.leaves_for
    }

    /// Its process id; none until its spawn is answered.
    pub fn pid(self) -> Option<i32> {
        self.process.pid
    }

    /// The generation whose program and settings it runs.
    pub fn generation(self) -> u64 {
        self.process.generation
    }

    /// When its start was asked for.
    pub fn started(self) -> Time {
        self.process.started
    }

    /// When it said `ready`; none if it has not.
    pub fn ready_since(self) -> Option<Time> {
        self.process.serving().map(|serving| serving.since)
    }

    /// Requests in flight, by its last report.
    pub fn in_flight(self) -> u64 {
        self.process.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, pid, policy, worker};
    use crate::{Command, Event};

    #[test]
    fn a_slot_shows_its_worker_and_the_one_that_still_drains() {
        let mut driver = Driver::ready(policy("web", 1));
        let (pool, slot) = ("web".to_owned(), 0);
        driver.command(Command::Drain { pool, slot });
        driver.say_ready(worker(0, 2));
        driver.step(Event::Health {
            worker: worker(0, 1),
            requests: 9,
            in_flight: 4,
        });
        let slot = driver.slot(0);
        let current = slot.current().unwrap();
        assert_eq!(slot.state(), SlotState::Ready);
        assert_eq!(current.pid(), Some(pid(worker(0, 2))));
        assert_eq!(current.generation(), driver.fleet.generation());
        assert_eq!(current.ready_since(), Some(driver.now));
        assert_eq!(slot.incarnations(), 2);
        let leaving: Vec<ProcessView<'_>> = slot.leaving().collect();
        assert_eq!(leaving.len(), 1);
        assert_eq!(leaving[0].worker(), worker(0, 1));
        assert_eq!(leaving[0].state(), SlotState::Draining);
        assert_eq!(leaving[0].in_flight(), 4);
        assert_eq!(leaving[0].started(), Time::default());
        let pool = driver.fleet.pool(PoolId(0)).unwrap();
        assert_eq!((pool.name(), pool.desired(), pool.ready()), ("web", 1, 1));
    }
}
