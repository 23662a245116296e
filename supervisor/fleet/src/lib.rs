#![doc = include_str!("../README.md")]

mod command;
#[cfg(test)]
mod driver;
mod interface;
mod policy;
mod rollout;
mod snapshot;
mod state;
#[cfg(test)]
mod state_table;
mod step;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

pub use interface::{
    Action, Ask, AskError, BootFailure, Command, Death, Event, Fate, JobId, Plan, PlannedPool,
    PoolId, Refusal, RejoinState, Report, Signal, Time, Worker,
};
pub use policy::Policy;
pub use snapshot::{Snapshot, SnapshotRef, Survivor};
pub use state::canary::{Canary, CanaryView, NoVerdict, Verdict};
pub use state::failure::SPEAK;
pub use state::readiness::{Quorum, Strength};
pub use state::trial::Traffic;
pub use view::{PoolView, ProcessView, SlotView};

use state::deadlines::Deadlines;
use state::job::Job;
use state::pool::{Pool, Tally};
use state::pools::Pools;
use state::rollout::{InForce, Rollout};
use state::slot::{Slot, SlotId};

/// The generation that a supervisor starts with.
const FIRST_GENERATION: u64 = 1;

/// The state machine of all pools.
#[derive(Debug)]
pub struct Fleet {
    rng: fastrand::Rng,
    generation: u64,
    phase: Phase,
    /// Whether the first boot is over: a pool has come up, and every other one has
    /// or has failed to.
    booted: bool,
    /// Whether one pool that fails to come up is the end.
    strict_boot: bool,
    pools: Pools,
    /// The reload in progress.
    rollout: Option<Rollout>,
    /// Reloads that are in force, of which those who asked are still to be told.
    in_force: Vec<InForce>,
    /// The sum of all pools' counters.
    total: Tally,
    deadlines: Deadlines,
    jobs: BTreeMap<JobId, Job>,
    /// Which number the next recycle in a queue gets.
    next_turn: u64,
    /// Slots that the present event has changed.
    touched: VecDeque<SlotId>,
    /// What the present event has led to.
    actions: Vec<Action>,
}

/// How far the fleet has come.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Not every pool has come up or failed to: where each fails, it is the end.
    Booting,
    /// Nothing that a worker does is the end.
    Running,
    /// The first generation did not come up. Whether that has been said yet:
    /// it is said with the certificate, which comes when the culprit is reaped.
    Failed {
        said: bool,
        jobs: Vec<JobId>,
        /// The pools that did not come up.
        down: Vec<PoolId>,
    },
    /// Everything leaves; these jobs end when it has left.
    Stopping { jobs: Vec<JobId> },
    /// Nothing is left.
    Ended,
}

impl Fleet {
    /// A fleet that has not been started. Pools are numbered in their order.
    /// Everything random is drawn from `seed`.
    pub fn new(seed: u64, pools: Vec<Policy>) -> Self {
        let mut all = Pools::default();
        for policy in pools {
            all.add(Rc::new(policy), FIRST_GENERATION);
        }
        Self {
            rng: fastrand::Rng::with_seed(seed),
            generation: FIRST_GENERATION,
            phase: Phase::Booting,
            booted: false,
            strict_boot: false,
            pools: all,
            rollout: None,
            in_force: Vec::new(),
            total: Tally::default(),
            deadlines: Deadlines::default(),
            jobs: BTreeMap::new(),
            next_turn: 0,
            touched: VecDeque::new(),
            actions: Vec::new(),
        }
    }

    /// Whether one pool that fails to come up ends the fleet, as it ends where all
    /// fail.
    #[must_use]
    pub fn strict(mut self, strict_boot: bool) -> Self {
        self.strict_boot = strict_boot;
        self
    }

    /// Starts a process in every slot. To be called once, before any `step`.
    pub fn start(&mut self, now: Time) -> Vec<Action> {
        self.touched.extend(self.pools.slot_ids());
        self.settle_all(now);
        std::mem::take(&mut self.actions)
    }

    /// Takes one event and answers with what is to be done, in that order.
    ///
    /// `now` must not run backwards. Events of workers that have gone, and
    /// events that a worker cannot cause in its state, change nothing.
    /// Deadlines are acted on by [`Event::Tick`] alone, so that a reactor that
    /// was held up can first hand over the reports that wait for it.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        match event {
            Event::Spawned { worker, pid } => self.spawned(now, worker, pid),
            Event::SpawnFailed { worker, error } => self.spawn_failed(now, worker, &error),
            Event::Greeted { worker } => self.greeted(worker),
            Event::Hindered { worker, why } => self.hindered(worker, why),
            Event::Ready { worker } => self.ready(now, worker),
            Event::Health {
                worker,
                requests,
                in_flight,
            } => self.health(now, worker, requests, in_flight),
            Event::Looked { worker, waited } => self.looked(now, worker, waited),
            Event::Memory { worker, resident } => self.memory(now, worker, resident),
            Event::BirthMemory { worker, resident } => self.birth_memory(worker, resident),
            Event::Answered {
                worker,
                ask,
                result,
            } => self.answered(now, worker, ask, result),
            Event::Shut { worker } => self.shut(worker),
            Event::Drained { worker } => self.drained(now, worker),
            Event::Bye { worker, reason } => self.bye(worker, reason),
            Event::Unfit { worker, why } => self.unfit(now, worker, &why),
            Event::Misbehaved { worker, rule } => self.misbehaved(now, worker, &rule),
            Event::Counted {
                pool,
                bounds,
                tallies,
            } => self.counted(now, pool, bounds, tallies),
            Event::Exited { worker, exit } => self.exited(now, worker, exit),
            Event::Tick => self.tick(now),
            Event::Command { job, command } => self.command(now, job, command),
        }
        self.settle_all(now);
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due. It may come early, never late: nothing may
    /// be due by then any more.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.next()
    }

    /// The slot with this name; none for a pool that has gone and for what
    /// never was.
    fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.pools.slot(id)
    }

    /// A slot that is known to exist: its name was made by its pool.
    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        &mut self.pools[id.pool].slots[id.index as usize]
    }

    /// The pool of a slot or job that is known to exist.
    fn pool_mut(&mut self, id: PoolId) -> &mut Pool {
        &mut self.pools[id]
    }

    /// Whether the end has begun because the first generation did not come up.
    pub fn has_failed(&self) -> bool {
        matches!(self.phase, Phase::Failed { .. })
    }

    /// The policy of a pool that is known to exist.
    fn policy(&self, id: PoolId) -> &Policy {
        &self.pools[id].policy
    }

    /// Whether the slot is to have a process.
    fn is_wanted(&self, id: SlotId) -> bool {
        self.starts_processes() && id.index < self.pools[id.pool].desired
    }

    /// Whether processes are started at all.
    fn starts_processes(&self) -> bool {
        matches!(self.phase, Phase::Booting | Phase::Running)
    }

    /// A slot's name as people know it: `web/0`.
    fn name(&self, id: SlotId) -> String {
        format!("{}/{}", self.policy(id.pool).name, id.index)
    }

    /// Has the slot brought to rest before the step ends.
    fn touch(&mut self, id: SlotId) {
        self.touched.push_back(id);
    }
}
