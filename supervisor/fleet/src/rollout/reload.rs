//! How a reload begins, and how it is put in force.

use std::rc::Rc;

use prefork_api::ExitReason;

use crate::command::pause::ANSWER_WITHIN;
use crate::interface::{Action, Fate, JobId, Plan, PlannedPool, PoolId, Refusal, Time};
use crate::policy::Policy;
use crate::state::canary::Candidate;
use crate::state::leave::How;
use crate::state::rollout::{Batch, InForce, Part, Rollout, Stage};
use crate::{Fleet, Phase};

/// The deed of the jobs that a reload overtakes.
const RESTARTED: &str = "restarted";

impl Fleet {
    /// Refuses a command that would interfere with a reload.
    pub(crate) fn refuse_during_reload(&self) -> Result<(), Refusal> {
        match &self.rollout {
            None => Ok(()),
            Some(rollout) => {
                let doing = match rollout.stage {
                    Stage::Back(_) => "being rolled back",
                    _ => "in progress",
                };
                let try_again = match self.has_canaries() {
                    true => "its canary is judged until `promote` or `abort`, or its time is over",
                    false => "try again when it has ended",
                };
                Err(Refusal::failed(format!("a reload is {doing}; {try_again}")))
            }
        }
    }

    /// Begins a reload: nothing is replaced until the pools that are new are up.
    pub(crate) fn reload(&mut self, now: Time, job: JobId, plan: Plan) -> Result<(), Refusal> {
        if self.phase == Phase::Booting {
            return Err(Refusal::failed(
                "the supervisor is still starting; reload once it is ready",
            ));
        }
        let generation = plan.generation;
        if generation <= self.generation {
            return Err(Refusal::failed(format!(
                "generation {generation} is not above {}, which is in force",
                self.generation
            )));
        }
        let mut pools = plan.pools;
        for pool in &mut pools {
            // Who asked for a restart is told that the reload replaces its slots.
            if pool.fate == Fate::Kept && self.is_restarted(&pool.policy.name) {
                pool.fate = Fate::Replaced;
            }
        }
        self.overtake(now, generation);
        let pools = pools.into_iter();
        let pools: Vec<PoolId> = pools.map(|pool| self.take_part(pool, generation)).collect();
        self.rollout = Some(Rollout {
            job: Some(job),
            promoters: Vec::new(),
            aborters: Vec::new(),
            generation,
            pools,
            stage: Stage::Opening,
        });
        self.recount_all();
        Ok(())
    }

    /// Ends what a reload does not wait for: scaling and restarts, whose slots
    /// it replaces itself, and successors of the generation before.
    fn overtake(&mut self, now: Time, generation: u64) {
        let refusal = Refusal::failed(format!(
            "overtaken by the reload to generation {generation}"
        ));
        for pool in self.pools.ids() {
            self.fail_scaling(pool, &refusal);
        }
        let jobs = self.jobs.iter();
        let restarts: Vec<JobId> = jobs
            .filter(|(_, job)| job.deed == RESTARTED)
            .map(|(job, _)| *job)
            .collect();
        for job in restarts {
            self.end(job, Err(refusal.clone()));
        }
        for id in self.pools.slot_ids() {
            if let Some(successor) = self.drop_replacement(id) {
                self.dismiss(now, id, successor, ExitReason::Reload, How::Drain, None);
            }
        }
    }

    /// Whether somebody waits for a restart of the pool, or of slots of it.
    fn is_restarted(&self, pool: &str) -> bool {
        let pool = self.pools.named(pool).map(|pool| pool.id);
        let mut jobs = self.jobs.values();
        jobs.any(|job| Some(job.pool) == pool && job.deed == RESTARTED)
    }

    /// Tells a pool its part in a reload; makes the pool if it is new.
    fn take_part(&mut self, planned: PlannedPool, generation: u64) -> PoolId {
        let policy = Rc::new(planned.policy);
        let known = self.pools.named(&policy.name);
        let before = known.map(|pool| pool.desired);
        let scaled = known.and_then(|pool| pool.scaled_by_hand());
        let is_news = known.is_some_and(|pool| pool.policy.workers != policy.workers);
        let id = match known {
            Some(pool) => pool.id,
            None => self.pools.add(Rc::clone(&policy), generation),
        };
        let mut part = Part {
            policy,
            scaled: scaled.filter(|_| !is_news),
            fate: planned.fate,
            before,
            batch: Batch::Waiting,
            canary: None,
        };
        let replaced = before.filter(|_| part.fate != Fate::Kept);
        let slots = replaced.map_or(0, |before| before.min(part.workers()));
        part.canary = planned.canary.and_then(|terms| Candidate::of(terms, slots));
        self.pool_mut(id).part = Some(part);
        id
    }

    /// Puts the new generation in force.
    pub(crate) fn commit(&mut self, now: Time) {
        let Some(rollout) = self.rollout.take() else {
            return;
        };
        self.generation = rollout.generation;
        for id in self.pools.ids() {
            let pool = self.pool_mut(id);
            let Some(part) = pool.part.take() else {
                self.dissolve(now, id);
                continue;
            };
            let workers = part.workers();
            if part.fate == Fate::Kept {
                pool.renumber(rollout.generation, &part.policy);
            }
            pool.policy = part.policy;
            self.resize(now, id, workers, ExitReason::ScaleDown);
        }
        self.pools.put_first(&rollout.pools);
        self.recount_all();
        let message = self.what_is_in_force();
        self.in_force.extend(rollout.jobs().map(|job| InForce {
            job,
            message: message.clone(),
            until: now.after(ANSWER_WITHIN),
        }));
        self.actions.push(Action::Reloaded {
            generation: rollout.generation,
            committed: true,
            why: String::new(),
        });
    }

    /// Tells those who asked for a reload that it is in force, once nobody accepts who
    /// has to leave: whoever connects from then on comes to the new generation.
    pub(crate) fn tell_in_force(&mut self, now: Time) {
        let nobody_accepts = self.total.shutting == 0;
        let due = |it: &mut InForce| nobody_accepts || it.until <= now;
        let told: Vec<InForce> = self.in_force.extract_if(.., due).collect();
        for InForce { job, message, .. } in told {
            self.finish(job, Ok(message));
        }
    }

    /// Tells all of them, whoever still accepts.
    pub(crate) fn tell_all_in_force(&mut self) {
        for InForce { job, message, .. } in std::mem::take(&mut self.in_force) {
            self.finish(job, Ok(message));
        }
    }

    fn what_is_in_force(&self) -> String {
        let mut message = format!("generation {} is in force", self.generation);
        match self.draining() {
            0 => {}
            1 => message += "; 1 worker still drains",
            draining => message += &format!("; {draining} workers still drain"),
        }
        for pool in self.pools.staying() {
            let Policy { name, workers, .. } = &*pool.policy;
            if let Some(scaled) = pool.scaled_by_hand() {
                message += &format!(
                    "; {name} keeps the {scaled} that it was scaled to (configured: {workers})"
                );
            }
        }
        message
    }

    /// Has a pool go: it disappears when its last process is gone.
    pub(crate) fn dissolve(&mut self, now: Time, pool: PoolId) {
        self.pool_mut(pool).desired = 0;
        self.pool_mut(pool).retired = true;
        for id in self.pools.slot_ids() {
            if id.pool == pool {
                self.empty(now, id, ExitReason::Reload, How::Drain);
                self.recount(id);
            }
        }
    }

    /// Ends a reload because the fleet itself ends.
    pub(crate) fn abandon_rollout(&mut self, why: &str) {
        let Some(rollout) = self.rollout.take() else {
            return;
        };
        for pool in self.pools.iter_mut() {
            pool.part = None;
        }
        if rollout.job.is_some() {
            self.actions.push(Action::Reloaded {
                generation: self.generation,
                committed: false,
                why: why.to_owned(),
            });
        }
        for job in rollout.jobs() {
            self.finish(job, Err(Refusal::failed(why)));
        }
        self.actions.push(Action::RollbackEnded);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prefork_api::SlotState;

    use super::*;
    use crate::driver::{Driver, code, plan, policy, worker};
    use crate::{Command, Event, Worker};

    fn of_pool(pool: u32, slot: u32) -> Worker {
        Worker {
            pool: PoolId(pool),
            ..worker(slot, 1)
        }
    }

    fn pools(driver: &Driver) -> Vec<(String, u32)> {
        let pools = driver.fleet.pools();
        pools
            .map(|pool| (pool.name().to_owned(), pool.desired()))
            .collect()
    }

    #[test]
    fn a_reload_replaces_slot_by_slot_successor_first() {
        let mut driver = Driver::ready(policy("web", 3));
        let job = driver.reload(plan(2, vec![policy("web", 3)]));
        assert_eq!(driver.fleet.reloading(), Some(2));
        for slot in 0..3 {
            let successor = driver.slot(slot).successor().unwrap();
            assert_eq!(
                (successor.worker(), successor.generation()),
                (worker(slot, 2), 2)
            );
            assert!(!driver.drains(worker(slot, 1)));
            assert_eq!(driver.fleet.generation(), 1);
            driver.say_ready(worker(slot, 2));
            assert!(driver.drains(worker(slot, 1)) && driver.fleet.is_ready());
        }
        let message = "generation 2 is in force; 3 workers still drain";
        assert_eq!(driver.result(job), Some(&Ok(message.to_owned())));
        assert_eq!(driver.reloaded(), [(2, true, "")]);
        assert_eq!(
            (driver.fleet.generation(), driver.fleet.reloading()),
            (2, None)
        );
        driver.exit(worker(0, 1), code(0));
        assert_eq!(driver.last_reason(0), ExitReason::Reload);
        driver.exit(worker(0, 2), code(1));
        assert_eq!(driver.generation(0), 2);
    }

    #[test]
    fn who_asked_is_told_once_nobody_of_the_old_generation_accepts() {
        let mut driver = Driver::ready(policy("web", 2));
        driver.deaf = true;
        let job = driver.reload(plan(2, vec![policy("web", 1)]));
        driver.say_ready(worker(0, 2));
        assert_eq!(driver.reloaded(), [(2, true, "")]);
        let old = [worker(0, 1), worker(1, 1)];
        assert!(old.into_iter().all(|worker| driver.drains(worker)));
        for worker in old {
            assert_eq!(driver.result(job), None);
            driver.step(Event::Shut { worker });
        }
        assert!(driver.is_done(job));
    }

    #[test]
    fn who_does_not_answer_to_a_drain_holds_no_reload_up_for_long() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.deaf = true;
        let job = driver.reload(plan(2, vec![policy("web", 1)]));
        driver.say_ready(worker(0, 2));
        driver.pass(4.9);
        assert_eq!(driver.result(job), None);
        driver.pass(0.1);
        assert!(driver.is_done(job));
        // One that leaves for good accepts nothing either.
        let job = driver.reload(plan(3, vec![policy("web", 1)]));
        driver.say_ready(worker(0, 3));
        assert_eq!(driver.result(job), None);
        driver.exit(worker(0, 2), code(0));
        assert!(driver.is_done(job));
    }

    #[test]
    fn no_more_than_the_new_max_surge_are_replaced_at_a_time() {
        let mut driver = Driver::ready(policy("web", 5));
        let mut two = policy("web", 5);
        two.max_surge = 2;
        driver.reload(plan(2, vec![two]));
        assert_eq!(driver.booting(), [0, 1]);
        driver.say_ready(worker(1, 2));
        // The first batch comes up as a whole before anything follows.
        assert_eq!(driver.booting(), [0]);
        driver.say_ready(worker(0, 2));
        assert_eq!(driver.booting(), [2, 3]);
        driver.say_ready(worker(3, 2));
        assert_eq!(driver.booting(), [2, 4]);
    }

    #[test]
    fn pools_come_and_go_and_the_new_ones_are_up_before_anything_is_replaced() {
        let pools_before = vec![policy("web", 1), policy("old", 2)];
        let mut driver = Driver::start_pools(1, pools_before);
        for ready in [of_pool(0, 0), of_pool(1, 0), of_pool(1, 1)] {
            driver.say_ready(ready);
        }
        driver.reload(plan(2, vec![policy("new", 2), policy("web", 1)]));
        assert!(driver.fleet.is_ready(), "what is new is not missed yet");
        assert_eq!(driver.booting(), [0; 0]);
        driver.say_ready(of_pool(2, 0));
        assert_eq!(driver.booting(), [0; 0]);
        driver.say_ready(of_pool(2, 1));
        assert_eq!(driver.booting(), [0]);
        driver.say_ready(worker(0, 2));
        assert_eq!(driver.reloaded(), [(2, true, "")]);
        let named = |name: &str, desired| (name.to_owned(), desired);
        assert_eq!(
            pools(&driver),
            [named("new", 2), named("web", 1), named("old", 0)]
        );
        for slot in 0..2 {
            assert!(driver.drains(of_pool(1, slot)));
            driver.exit(of_pool(1, slot), code(0));
        }
        assert_eq!(pools(&driver), [named("new", 2), named("web", 1)]);
        // Whatever is heard of it now concerns nobody.
        assert_eq!(driver.exit(of_pool(1, 0), code(0)), []);
        driver.reload(plan(3, vec![policy("web", 1), policy("old", 1)]));
        assert_eq!(driver.fleet.pools().last().unwrap().id(), PoolId(3));
    }

    #[test]
    fn a_pool_grows_within_the_reload_and_shrinks_after_it() {
        let mut driver = Driver::ready(policy("web", 2));
        let grown = driver.reload(plan(2, vec![policy("web", 4)]));
        driver.say_ready(worker(0, 2));
        assert_eq!(driver.state(3), SlotState::Starting);
        driver.say_ready(worker(1, 2));
        driver.say_ready(worker(2, 1));
        assert_eq!(driver.result(grown), None);
        driver.say_ready(worker(3, 1));
        assert!(driver.is_done(grown));
        let shrunk = driver.reload(plan(3, vec![policy("web", 1)]));
        assert_eq!(driver.state(3), SlotState::Ready);
        driver.say_ready(worker(0, 3));
        assert!(driver.is_done(shrunk));
        for (slot, incarnation) in [(1, 2), (2, 1), (3, 1)] {
            assert!(driver.drains(worker(slot, incarnation)));
        }
        driver.exit(worker(3, 1), code(0));
        assert_eq!(driver.last_reason(3), ExitReason::ScaleDown);
    }

    #[test]
    fn what_a_pool_was_scaled_to_stays_until_another_size_is_configured() {
        let mut driver = Driver::ready(policy("web", 2));
        driver.command(Command::Scale {
            pool: "web".to_owned(),
            workers: 3,
        });
        driver.say_ready(worker(2, 1));
        let same = driver.reload(plan(2, vec![policy("web", 2)]));
        for (slot, incarnation) in [(0, 2), (1, 2), (2, 2)] {
            driver.say_ready(worker(slot, incarnation));
        }
        let message = "generation 2 is in force; 3 workers still drain; \
             web keeps the 3 that it was scaled to (configured: 2)";
        assert_eq!(driver.result(same), Some(&Ok(message.to_owned())));
        // One that is undone leaves it as well.
        driver.reload(plan(3, vec![policy("web", 1)]));
        driver.exit(worker(0, 3), code(1));
        assert_eq!(pools(&driver), [("web".to_owned(), 3)]);
        driver.pass(60.0);
        let other = driver.reload(plan(4, vec![policy("web", 1)]));
        driver.say_ready(driver.slot(0).successor().unwrap().worker());
        assert!(driver.is_done(other));
        assert_eq!(pools(&driver), [("web".to_owned(), 1)]);
    }

    #[test]
    fn a_worker_is_held_to_the_deadlines_of_its_own_generation() {
        let mut driver = Driver::ready(policy("web", 1));
        let mut strict = policy("web", 1);
        strict.heartbeat_timeout = Duration::from_secs(1);
        strict.boot_timeout = Duration::from_secs(60);
        driver.reload(plan(2, vec![strict]));
        driver.pass_but(9.0, &[worker(0, 1)]);
        assert_eq!(driver.current(0), worker(0, 1));
        driver.exit(worker(0, 1), code(1));
        driver.say_ready(worker(0, 3));
        driver.pass_but(9.0, &[worker(0, 3)]);
        assert_eq!(driver.current(0), worker(0, 3));
        driver.pass(30.0);
        driver.say_ready(worker(0, 2));
        assert_eq!(driver.reloaded(), [(2, true, "")]);
        driver.pass_but(1.0, &[worker(0, 2)]);
        assert_eq!(driver.last_cause(), ExitReason::HeartbeatTimeout);
    }

    #[test]
    fn an_old_worker_that_crashes_before_its_turn_is_replaced_by_its_own_generation() {
        let mut driver = Driver::ready(policy("web", 2));
        driver.reload(plan(2, vec![policy("web", 2)]));
        driver.exit(worker(1, 1), code(1));
        assert_eq!(driver.generation(1), 1);
        driver.exit(worker(0, 1), code(1));
        assert_eq!(driver.generation(0), 1);
        driver.say_ready(worker(0, 2));
        driver.say_ready(worker(1, 3));
        assert_eq!(driver.reloaded(), [(2, true, "")]);
        assert_eq!((driver.generation(0), driver.generation(1)), (2, 2));
    }

    #[test]
    fn commands_wait_for_the_end_of_a_reload_but_kill_does_not() {
        let mut driver = Driver::ready(policy("web", 2));
        driver.reload(plan(2, vec![policy("web", 2)]));
        let pool = || "web".to_owned();
        let (workers, slot) = (3, 1);
        for command in [
            Command::Scale {
                pool: pool(),
                workers,
            },
            Command::ScaleBy { pool: None, by: 1 },
            Command::Restart {
                pool: pool(),
                slot: None,
            },
            Command::Pause { pool: pool(), slot },
            Command::Drain { pool: pool(), slot },
            Command::Reload(plan(3, vec![])),
        ] {
            let job = driver.command(command);
            let why = driver.failure(job).0;
            assert_eq!(why, "a reload is in progress; try again when it has ended");
        }
        driver.command(Command::Kill { pool: pool(), slot });
        assert!(driver.has_done(&Action::Kill {
            worker: worker(1, 1)
        }));
        driver.say_ready(worker(0, 2));
        driver.say_ready(worker(1, 3));
        assert_eq!(driver.reloaded(), [(2, true, "")]);
    }

    #[test]
    fn a_reload_overtakes_scaling_and_restarts() {
        let mut driver = Driver::ready(policy("web", 2));
        let (pool, slot) = ("web".to_owned(), None);
        let restart = driver.command(Command::Restart { pool, slot });
        let (pool, workers) = ("web".to_owned(), 3);
        let scale = driver.command(Command::Scale { pool, workers });
        driver.reload(plan(2, vec![policy("web", 2)]));
        for job in [restart, scale] {
            let why = driver.failure(job).0;
            assert_eq!(why, "overtaken by the reload to generation 2");
        }
        assert!(driver.has_done(&Action::Stop {
            worker: worker(0, 2)
        }));
        driver.say_ready(worker(0, 3));
        driver.say_ready(worker(1, 2));
        // The size that was wanted is still wanted.
        driver.say_ready(worker(2, 2));
        assert_eq!(driver.reloaded(), [(2, true, "")]);
        assert_eq!(pools(&driver), [("web".to_owned(), 3)]);
    }

    /// Two pools of two workers each, of which the first is all ready.
    fn two_pools() -> Driver {
        let mut driver = Driver::start_pools(1, vec![policy("web", 2), policy("api", 2)]);
        for pool in 0..2 {
            for slot in 0..2 {
                driver.say_ready(of_pool(pool, slot));
            }
        }
        driver
    }

    fn keeping(generation: u64, web: Policy, api: Policy) -> Plan {
        let mut plan = plan(generation, vec![web, api]);
        plan.pools[0].fate = Fate::Kept;
        plan
    }

    #[test]
    fn a_pool_that_is_kept_is_of_the_new_generation_and_has_its_processes() {
        let mut driver = two_pools();
        let job = driver.reload(keeping(2, policy("web", 2), policy("api", 2)));
        assert_eq!((driver.generation(0), driver.booting()), (1, vec![]));
        driver.exit(worker(1, 1), code(1));
        assert_eq!(driver.generation(1), 1, "nothing is in force yet");
        driver.say_ready(Worker {
            incarnation: 2,
            ..of_pool(1, 0)
        });
        driver.say_ready(Worker {
            incarnation: 2,
            ..of_pool(1, 1)
        });
        assert!(driver.is_done(job));
        assert_eq!(driver.current(0), worker(0, 1));
        assert_eq!((driver.generation(0), driver.generation(1)), (2, 2));
        driver.exit(worker(0, 1), code(1));
        assert_eq!(driver.generation(0), 2);
    }

    #[test]
    fn a_pool_that_is_kept_may_grow_and_what_that_breaks_is_undone() {
        let mut driver = two_pools();
        let job = driver.reload(keeping(2, policy("web", 3), policy("api", 2)));
        assert_eq!(driver.current(0), worker(0, 1));
        driver.exit(worker(2, 1), code(1));
        assert!(driver.failure(job).0.starts_with("web/2: "));
        assert_eq!(driver.generation(0), 1);
        assert_eq!(driver.current(0), worker(0, 1));
        driver.pass(60.0);
        let job = driver.reload(keeping(3, policy("web", 1), policy("api", 2)));
        driver.say_ready(Worker {
            incarnation: 3,
            ..of_pool(1, 0)
        });
        driver.say_ready(Worker {
            incarnation: 2,
            ..of_pool(1, 1)
        });
        assert!(driver.is_done(job));
        assert_eq!((driver.current(0), driver.generation(0)), (worker(0, 1), 3));
        assert!(driver.drains(worker(1, 1)));
    }

    #[test]
    fn nothing_is_kept_that_somebody_has_asked_to_restart() {
        let mut driver = two_pools();
        let (pool, slot) = ("web".to_owned(), Some(1));
        let restart = driver.command(Command::Restart { pool, slot });
        driver.reload(keeping(2, policy("web", 2), policy("api", 2)));
        let why = driver.failure(restart).0;
        assert_eq!(why, "overtaken by the reload to generation 2");
        assert_eq!(driver.booting(), [0]);
    }

    #[test]
    fn recycling_waits_for_the_end_of_a_reload() {
        let mut aging = policy("web", 2);
        aging.max_age = Some(Duration::from_secs(100));
        let mut driver = Driver::ready(aging.clone());
        driver.pass(80.0);
        // The slot that is to go after the reload has no part in it.
        aging.workers = 1;
        driver.reload(plan(2, vec![aging]));
        driver.pass(25.0);
        assert_eq!(driver.booting(), [0]);
        driver.exit(worker(0, 2), code(1));
        assert_eq!(driver.reloaded().len(), 1);
        driver.pass(0.1);
        let successor = driver.slot(0).successor().unwrap();
        assert_eq!(successor.generation(), 1);
        driver.say_ready(worker(0, 3));
        assert_eq!(driver.booting(), [1]);
    }

    #[test]
    fn a_fleet_that_is_starting_or_stopping_does_not_reload() {
        let mut driver = Driver::start(policy("web", 1));
        let job = driver.reload(plan(2, vec![policy("web", 1)]));
        assert!(driver.failure(job).0.contains("still starting"));
        driver.say_ready(worker(0, 1));
        driver.command(Command::Stop { now: false });
        let job = driver.reload(plan(3, vec![policy("web", 1)]));
        assert!(driver.failure(job).0.contains("stopping"));
        assert_eq!(driver.reloaded(), []);
    }

    #[test]
    fn a_stop_ends_a_reload() {
        let mut driver = Driver::ready(policy("web", 1));
        let job = driver.reload(plan(2, vec![policy("web", 1)]));
        driver.command(Command::Stop { now: false });
        assert_eq!(driver.failure(job).0, "the supervisor is stopping");
        assert_eq!(
            driver.reloaded(),
            [(1, false, "the supervisor is stopping")]
        );
        assert!(driver.drains(worker(0, 1)));
        driver.exit(worker(0, 1), code(0));
        driver.exit(worker(0, 2), code(0));
        assert_eq!(driver.log.last(), Some(&Action::Ended));
    }
}
