//! What outlives the process that runs a fleet, so that the next one goes on
//! with it: slots, processes, backoff, certificates and deadlines. Jobs do not,
//! since who asked for them has lost the connection; and a reload that was in
//! progress is undone.
//!
//! A restored fleet is first told what has become of its processes
//! ([`Event::Exited`](crate::Event::Exited) and its kin, [`Fleet::rejoined`]),
//! repeats what it has told them to do ([`Fleet::repeat_orders`]), and acts by
//! itself again from [`Fleet::resume`] on.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use prefork_api::ExitReason;
use serde::{Deserialize, Serialize};

use crate::interface::{Action, PoolId, RejoinState, Time, Worker};
use crate::policy::Policy;
use crate::state::deadlines::Deadlines;
use crate::state::leave::{How, Leave};
use crate::state::pool::Pool;
use crate::state::pools::Pools;
use crate::state::process::{Process, Stage};
use crate::state::replacement::{Cause, Progress};
use crate::state::slot::{Place, Slot, SlotId};
use crate::{Fleet, Phase, Tally};

/// A fleet to be written down.
#[derive(Debug, Serialize)]
pub struct SnapshotRef<'a> {
    generation: u64,
    stopping: bool,
    pools_added: u32,
    pools: Vec<&'a Pool>,
}

/// A fleet as it was written down.
#[derive(Debug, Deserialize)]
pub struct Snapshot {
    generation: u64,
    stopping: bool,
    pools_added: u32,
    pools: Vec<Pool>,
}

/// A process of a [`Snapshot`] that may have outlived its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survivor {
    /// Its name.
    pub worker: Worker,
    /// The generation whose program and settings it runs.
    pub generation: u64,
    /// Its process id; none if its start was asked for and not answered.
    pub pid: Option<i32>,
    /// Whether it had not said `ready` yet.
    pub starting: bool,
}

impl Snapshot {
    /// The generation that was in force.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The pools with their names.
    pub fn pools(&self) -> impl Iterator<Item = (PoolId, &str)> {
        let pools = self.pools.iter();
        pools.map(|pool| (pool.id, pool.policy.name.as_str()))
    }

    /// Every process that had not been reaped.
    pub fn processes(&self) -> Vec<Survivor> {
        let slots = self.pools.iter().flat_map(|pool| &pool.slots);
        let processes = slots.flat_map(|slot| {
            let leaving = slot.leaving.iter().map(|leaving| &leaving.process);
            let staying = slot.current().into_iter().chain(slot.successor());
            staying.chain(leaving)
        });
        let survivor = |process: &Process| Survivor {
            worker: process.worker,
            generation: process.generation,
            pid: process.pid,
            starting: process.serving().is_none(),
        };
        processes.map(survivor).collect()
    }
}

impl Fleet {
    /// What the next supervisor has to know.
    pub fn snapshot(&self) -> SnapshotRef<'_> {
        SnapshotRef {
            generation: self.generation,
            stopping: self.stopping(),
            pools_added: self.pools.added(),
            pools: self.pools.iter().collect(),
        }
    }

    /// The fleet that was written down. `policies` has those of the generation
    /// in force by name; a pool that has none there goes, as after a reload
    /// that removed it.
    pub fn restore(
        now: Time,
        seed: u64,
        snapshot: Snapshot,
        policies: &BTreeMap<String, Policy>,
    ) -> Self {
        let phase = if snapshot.stopping {
            Phase::Stopping { jobs: Vec::new() }
        } else {
            // Where a worker has been ready, a failure is not the end.
            Phase::Running
        };
        let mut pools = snapshot.pools;
        for pool in &mut pools {
            pool.leave_reload();
            match policies.get(&pool.policy.name).filter(|_| !pool.retired) {
                Some(policy) => pool.policy = Rc::new(policy.clone()),
                None => (pool.desired, pool.retired) = (0, true),
            }
            for slot in &mut pool.slots {
                slot.generation = snapshot.generation;
                slot.forget_jobs();
                slot.hear_all(now);
            }
        }
        Self {
            rng: fastrand::Rng::with_seed(seed),
            generation: snapshot.generation,
            phase,
            booted: true,
            strict_boot: false,
            pools: Pools::of(pools, snapshot.pools_added),
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

    /// A process has come back and says what it does, which goes before what
    /// was written down.
    pub fn rejoined(&mut self, now: Time, worker: Worker, state: RejoinState) -> Vec<Action> {
        if let Some((id, place)) = self.find(worker)
            && !matches!(place, Place::Leaving(_))
        {
            self.believe(now, id, worker, state);
            self.touch(id);
        }
        self.settle_all(now);
        std::mem::take(&mut self.actions)
    }

    fn believe(&mut self, now: Time, id: SlotId, worker: Worker, state: RejoinState) {
        // It may have become ready since the fleet was written down, and then
        // a successor takes its seat.
        self.ready(now, worker);
        let Some((_, place)) = self.find(worker) else {
            return;
        };
        if let Some(process) = self.slot_mut(id).process_mut(place)
            && let Some(serving) = process.serving().copied()
        {
            process.stage = match state {
                RejoinState::Paused => Stage::Paused(serving),
                RejoinState::Ready | RejoinState::Draining => Stage::Ready(serving),
            };
        }
        if state == RejoinState::Draining {
            // It is on its way out, whoever sent it: the slot needs another.
            let process = match place {
                Place::Successor => self.take_successor(id).map(|(process, _)| process),
                _ => self.vacate(id),
            };
            if let Some(process) = process {
                let note = Some("it was draining when the supervisor came back".to_owned());
                self.dismiss(now, id, process, ExitReason::Clean, How::Drain, note);
            }
        }
    }

    /// Tells what was to leave so again: what it was told may never have come
    /// to it.
    pub fn repeat_orders(&mut self, now: Time) -> Vec<Action> {
        for id in self.pools.slot_ids() {
            for index in 0..self.slot_mut(id).leaving.len() {
                self.press(now, id, index);
            }
        }
        std::mem::take(&mut self.actions)
    }

    /// Goes on from where the fleet was: a reload that was in progress is undone,
    /// and vacant slots are filled.
    pub fn resume(&mut self, now: Time) -> Vec<Action> {
        for id in self.pools.slot_ids() {
            if self.stopping() {
                self.empty(now, id, ExitReason::Operator, How::Drain);
            } else if self.is_wanted(id) {
                self.bring_back(now, id);
            } else {
                self.empty(now, id, ExitReason::Reload, How::Drain);
            }
            self.touch(id);
        }
        self.settle_all(now);
        std::mem::take(&mut self.actions)
    }

    /// Has the slot serve by the generation in force again: a successor of
    /// another goes at once, and a current process when its successor is ready.
    fn bring_back(&mut self, now: Time, id: SlotId) {
        let generation = self.generation;
        let slot = self.slot_mut(id);
        // One of another generation may have become ready since the last write, and
        // have taken its seat.
        slot.generation = generation;
        if slot
            .successor()
            .is_some_and(|process| process.generation != generation)
            && let Some((process, cause)) = self.take_successor(id)
        {
            self.dismiss(now, id, process, cause.reason(), How::Drain, None);
        }
        let slot = self.slot_mut(id);
        if slot
            .current()
            .is_some_and(|process| process.generation != generation)
        {
            self.drop_replacement(id);
            self.enqueue(id, Cause::Reload { failures: 0 });
        }
    }

    /// Whether every process that stays is of the generation in force.
    pub fn is_uniform(&self) -> bool {
        let slots = self.pools.iter().flat_map(|pool| &pool.slots);
        let mut staying = slots.flat_map(|slot| slot.current().into_iter().chain(slot.successor()));
        staying.all(|process| process.generation == self.generation)
    }
}

impl Pool {
    /// Takes back what a reload in progress has changed of its size.
    fn leave_reload(&mut self) {
        if let Some(part) = self.part.take() {
            match part.before {
                Some(before) => self.desired = before,
                None => self.retired = true,
            }
        }
    }
}

impl Slot {
    /// Forgets a replacement whose place in a queue is gone; a recycle finds its reason
    /// again, and what a reload has left is brought back when the fleet goes on.
    fn forget_jobs(&mut self) {
        self.replacement
            .take_if(|it| !matches!(it.progress, Progress::Booting(_)));
    }

    /// Begins every heartbeat anew: nobody was there to hear it.
    fn hear_all(&mut self, now: Time) {
        for place in [Place::Current, Place::Successor] {
            let serving = self.process_mut(place).and_then(Process::serving_mut);
            if let Some(serving) = serving {
                serving.last_health = now;
            }
        }
        for leaving in &mut self.leaving {
            if leaving.stage == Leave::Stuck {
                // Another supervisor may have more luck with it.
                leaving.stage = Leave::Killed { until: now };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prefork_api::SlotState;

    use super::*;
    use crate::driver::{Driver, code, policy, signal, worker};
    use crate::{Command, Death, Event};

    const GOLDEN: &str = include_str!("golden/fleet-1.json");

    /// Writes a fleet down and has another supervisor read it.
    fn hand_over(driver: &mut Driver, policies: &[Policy]) {
        let text = serde_json::to_string(&driver.fleet.snapshot()).unwrap();
        let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
        let by_name = |policy: &Policy| (policy.name.clone(), policy.clone());
        let policies = policies.iter().map(by_name).collect();
        driver.fleet = Fleet::restore(driver.now, 7, snapshot, &policies);
    }

    fn resume(driver: &mut Driver) -> Vec<Action> {
        let actions = driver.fleet.resume(driver.now);
        driver.take(actions.clone());
        actions
    }

    #[test]
    fn a_fleet_at_rest_goes_on_as_if_nothing_had_happened() {
        let mut driver = Driver::ready(policy("web", 2));
        driver.exit(worker(1, 1), code(3));
        driver.say_ready(worker(1, 2));
        let before = serde_json::to_value(driver.fleet.snapshot()).unwrap();
        hand_over(&mut driver, &[policy("web", 2)]);
        assert_eq!(resume(&mut driver), []);
        assert_eq!(
            serde_json::to_value(driver.fleet.snapshot()).unwrap(),
            before
        );
        assert!(driver.fleet.is_ready() && driver.fleet.booted());
        assert_eq!(driver.last_exit(1).code, Some(3));
    }

    #[test]
    fn what_died_with_the_supervisor_is_replaced() {
        let mut driver = Driver::ready(policy("web", 2));
        hand_over(&mut driver, &[policy("web", 2)]);
        driver.exit(worker(0, 1), Death::default());
        resume(&mut driver);
        assert_eq!(driver.current(0), worker(0, 2));
        assert_eq!(driver.current(1), worker(1, 1));
        driver.say_ready(worker(0, 2));
        assert!(driver.fleet.is_ready());
    }

    #[test]
    fn a_worker_is_what_it_says_it_is() {
        let mut driver = Driver::ready(policy("web", 2));
        hand_over(&mut driver, &[policy("web", 2)]);
        let now = driver.now;
        driver
            .fleet
            .rejoined(now, worker(0, 1), RejoinState::Paused);
        let actions = driver
            .fleet
            .rejoined(now, worker(1, 1), RejoinState::Draining);
        driver.take(actions);
        resume(&mut driver);
        assert_eq!(driver.state(0), SlotState::Paused);
        assert_eq!(driver.current(1), worker(1, 2));
        assert_eq!(driver.slot(1).leaving().len(), 1);
    }

    #[test]
    fn a_drain_in_progress_goes_on_to_its_deadline() {
        let mut driver = Driver::ready(policy("web", 1));
        let (pool, slot) = ("web".to_owned(), 0);
        driver.command(Command::Drain { pool, slot });
        driver.say_ready(worker(0, 2));
        driver.pass(20.0);
        hand_over(&mut driver, &[policy("web", 1)]);
        let actions = driver.fleet.repeat_orders(driver.now);
        resume(&mut driver);
        let again = Action::Drain {
            worker: worker(0, 1),
            within: Duration::from_secs(10),
        };
        assert!(actions.contains(&again), "{actions:?}");
        driver.pass_but(10.0, &[]);
        assert!(driver.has_done(&Action::Stop {
            worker: worker(0, 1)
        }));
    }

    #[test]
    fn a_stop_in_progress_goes_on_to_the_end() {
        let mut driver = Driver::ready(policy("web", 2));
        driver.command(Command::Stop { now: false });
        driver.exit(worker(0, 1), code(0));
        hand_over(&mut driver, &[policy("web", 2)]);
        resume(&mut driver);
        assert!(driver.fleet.stopping());
        driver.exit(worker(1, 1), signal(15));
        assert_eq!(driver.log.last(), Some(&Action::Ended));
    }

    #[test]
    fn workers_of_a_generation_that_is_not_in_force_are_replaced_one_after_the_other() {
        let mut driver = Driver::ready(policy("web", 2));
        for slot in &mut driver.fleet.pool_mut(PoolId(0)).slots {
            slot.current_mut().unwrap().generation = 2;
        }
        hand_over(&mut driver, &[policy("web", 2)]);
        resume(&mut driver);
        assert!(driver.fleet.is_ready() && !driver.fleet.is_uniform());
        assert!(driver.slot(0).successor().is_some() && driver.slot(1).successor().is_none());
        driver.say_ready(worker(0, 2));
        driver.say_ready(worker(1, 2));
        assert!(driver.fleet.is_ready() && driver.fleet.is_uniform());
        for slot in [0, 1] {
            driver.exit(worker(slot, 1), code(0));
            assert_eq!(driver.last_reason(slot), ExitReason::Reload, "nobody asked");
        }
    }

    #[test]
    fn one_that_can_not_be_brought_back_is_tried_again() {
        let mut driver = Driver::ready(policy("web", 1));
        let slot = &mut driver.fleet.pool_mut(PoolId(0)).slots[0];
        slot.current_mut().unwrap().generation = 2;
        hand_over(&mut driver, &[policy("web", 1)]);
        resume(&mut driver);
        driver.exit(worker(0, 2), code(7));
        assert_eq!(driver.current(0), worker(0, 1), "it goes on serving");
        driver.pass(1.0);
        driver.say_ready(worker(0, 3));
        assert!(driver.fleet.is_ready() && driver.fleet.is_uniform());
    }

    #[test]
    fn one_that_became_ready_in_a_generation_that_is_not_in_force_is_replaced_by_one_that_is() {
        let mut driver = Driver::ready(policy("web", 1));
        let (pool, slot) = ("web".to_owned(), Some(0));
        driver.command(Command::Restart { pool, slot });
        let slot = &mut driver.fleet.pool_mut(PoolId(0)).slots[0];
        slot.process_mut(Place::Successor).unwrap().generation = 2;
        hand_over(&mut driver, &[policy("web", 1)]);
        let now = driver.now;
        let back = RejoinState::Ready;
        let actions = driver.fleet.rejoined(now, worker(0, 2), back);
        driver.take(actions);
        assert_eq!(driver.current(0), worker(0, 2));
        resume(&mut driver);
        driver.say_ready(worker(0, 3));
        assert!(driver.fleet.is_ready() && driver.fleet.is_uniform());
    }

    #[test]
    fn a_pool_that_is_not_in_force_goes() {
        let mut driver = Driver::start_pools(1, vec![policy("web", 1), policy("new", 1)]);
        driver.say_ready(worker(0, 1));
        let new = Worker {
            pool: PoolId(1),
            ..worker(0, 1)
        };
        driver.say_ready(new);
        hand_over(&mut driver, &[policy("web", 1)]);
        let actions = resume(&mut driver);
        assert!(
            actions
                .iter()
                .any(|action| matches!(action, Action::Drain { worker, .. } if *worker == new))
        );
        assert!(driver.fleet.is_ready());
    }

    #[test]
    fn a_heartbeat_that_nobody_could_hear_is_no_reason_to_kill() {
        let mut driver = Driver::ready(policy("web", 1));
        let now = driver.now.after(Duration::from_secs(25));
        hand_over(&mut driver, &[policy("web", 1)]);
        driver.now = now;
        hand_over(&mut driver, &[policy("web", 1)]);
        resume(&mut driver);
        assert_eq!(driver.step(Event::Tick), []);
        assert_eq!(driver.state(0), SlotState::Ready);
    }

    /// A fleet with something of everything.
    fn eventful() -> Driver {
        let mut limited = policy("web", 3);
        limited.max_rss = Some(1 << 30);
        limited.max_requests = 1000;
        let mut driver = Driver::ready(limited);
        let pool = || "web".to_owned();
        driver.command(Command::Drain {
            pool: pool(),
            slot: 0,
        });
        driver.say_ready(worker(0, 2));
        driver.step(Event::Memory {
            worker: worker(0, 2),
            resident: 2 << 30,
        });
        driver.pass(2.0);
        driver.step(Event::Memory {
            worker: worker(0, 2),
            resident: 2 << 30,
        });
        driver.command(Command::Pause {
            pool: pool(),
            slot: 1,
        });
        driver.step(Event::Answered {
            worker: worker(1, 1),
            ask: crate::Ask::Pause,
            result: Ok(()),
        });
        driver.exit(worker(2, 1), code(3));
        driver.exit(worker(2, 2), code(3));
        driver
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // The golden is a file, written anew where it grows.
    fn what_is_written_is_version_1() {
        let written = serde_json::to_value(eventful().fleet.snapshot()).unwrap();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden/fleet-1.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let text = serde_json::to_string_pretty(&written).unwrap();
            std::fs::write(file, text + "\n").unwrap();
        }
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(
            written, golden,
            "a supervisor of the old version must still be able to read this; \
             if the change only adds, run\n    UPDATE_GOLDEN=1 cargo test -p prefork-fleet version_1"
        );
    }

    #[test]
    fn the_first_version_is_still_understood() {
        let snapshot: Snapshot = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(snapshot.pools().collect::<Vec<_>>(), [(PoolId(0), "web")]);
        let processes = snapshot.processes();
        assert_eq!(processes.len(), 4);
        let starting = processes.iter().filter(|process| process.starting);
        assert_eq!(starting.count(), 1);
        let mut driver = eventful();
        let policies = BTreeMap::from([("web".to_owned(), policy("web", 3))]);
        driver.fleet = Fleet::restore(driver.now, 7, snapshot, &policies);
        assert_eq!(driver.state(0), SlotState::Ready);
        assert_eq!(driver.state(1), SlotState::Paused);
        assert_eq!(driver.state(2), SlotState::Backoff);
        assert_eq!(driver.slot(2).exits().len(), 2);
        assert_eq!(driver.slot(0).leaving().len(), 1);
    }
}
