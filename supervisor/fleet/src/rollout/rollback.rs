//! How a reload that has failed is undone: what is new leaves at once, what was
//! replaced is replaced again, successor first, by the generation that is in
//! force all the while.

use prefork_api::{Exit, ExitReason};

use crate::Fleet;
use crate::interface::{Action, PoolId, Refusal, Time};
use crate::state::failure::Failure;
use crate::state::job::Awaiting;
use crate::state::leave::How;
use crate::state::replacement::{Cause, Progress};
use crate::state::rollout::{Batch, Rollback, Stage};
use crate::state::slot::{Seat, SlotId};

/// How many successors of the old generation may fail in a slot before the new
/// one has to leave it all the same: a rollback ends.
const RESTORE_ATTEMPTS: u32 = 3;

impl Fleet {
    /// Turns the reload around because of a failure in the slot.
    pub(crate) fn roll_back(&mut self, now: Time, id: SlotId, failure: &Failure) {
        self.tell_watchers(id, &format!("{}; rolling back", failure.why));
        let mut why = format!("{}: {}", self.name(id), failure.why);
        if let Some(canary) = self.canary_failed_with(id, &why) {
            why = format!("{why}; {canary}");
        }
        self.turn_around(now, why.clone());
        self.boot_failed(now, id, failure);
        let incarnation = failure.worker.incarnation;
        let exit = failure.exit.as_ref();
        self.tell_failure(id, incarnation, Awaiting::Reload, why, exit);
    }

    pub(super) fn turn_around(&mut self, now: Time, why: String) {
        let Some(rollout) = &mut self.rollout else {
            return;
        };
        rollout.stage = Stage::Back(Rollback {
            why,
            stderr: None,
            setback: None,
        });
        for pool in rollout.pools.clone() {
            let part = self.pools[pool].part.as_ref();
            match part.map(|part| part.before) {
                Some(Some(before)) => self.take_back(now, pool, before),
                Some(None) => self.dissolve(now, pool),
                None => {}
            }
        }
        self.recount_all();
    }

    /// Has a pool return to the generation in force, with `before` slots.
    fn take_back(&mut self, now: Time, pool: PoolId, before: u32) {
        if let Some(part) = &mut self.pool_mut(pool).part {
            part.batch = Batch::Proven;
            part.canary = None;
        }
        self.resize(now, pool, before, ExitReason::Reload);
        for index in 0..before {
            self.take_back_slot(now, SlotId { pool, index });
        }
    }

    fn take_back_slot(&mut self, now: Time, id: SlotId) {
        self.doubt_settings(id);
        if let Some(successor) = self.drop_replacement(id) {
            self.dismiss(now, id, successor, ExitReason::Reload, How::Drain, None);
        }
        let in_force = self.generation;
        let slot = self.slot_mut(id);
        slot.generation = in_force;
        let Some(process) = slot.current().filter(|it| it.generation > in_force) else {
            return;
        };
        if process.serving().is_some() {
            self.enqueue(id, Cause::Reload { failures: 0 });
        } else if let Some(process) = self.vacate(id) {
            self.dismiss(now, id, process, ExitReason::Reload, How::Stop, None);
        }
    }

    /// A process that has been asked to take new settings and has not answered
    /// may have taken them.
    fn doubt_settings(&mut self, id: SlotId) {
        let replacement = self.slot_mut(id).replacement.as_ref();
        if replacement.is_some_and(|it| matches!(it.progress, Progress::Asked)) {
            self.count_as_new(id);
        }
    }

    /// A successor of the old generation failed. Returns the cause with which
    /// it is tried again; none if the new generation leaves the slot first.
    pub(crate) fn restore_again(
        &mut self,
        now: Time,
        id: SlotId,
        failures: u32,
        until: Time,
        failure: &Failure,
    ) -> Option<Cause> {
        let failures = failures + 1;
        if failures < RESTORE_ATTEMPTS {
            return Some(Cause::Reload { failures });
        }
        if let Some(process) = self.vacate(id) {
            self.dismiss(now, id, process, ExitReason::Reload, How::Drain, None);
            self.slot_mut(id).seat = Seat::Backoff {
                until,
                why: failure.why.clone(),
            };
        }
        None
    }

    /// Remembers what goes wrong with the generation that is to be restored.
    pub(crate) fn note_setback(&mut self, id: SlotId, failure: &Failure) {
        let why = format!("{}: {}", self.name(id), failure.why);
        if let Some(rollout) = &mut self.rollout
            && failure.generation < rollout.generation
            && failure.ready_for.is_none()
            && let Stage::Back(back) = &mut rollout.stage
        {
            back.setback = Some(why);
        }
    }

    /// Whatever can be known of the process that broke the reload is known.
    pub(crate) fn culprit_known(&mut self, exit: Option<&Exit>) {
        if let Some(rollout) = &mut self.rollout
            && let Stage::Back(back) = &mut rollout.stage
        {
            back.stderr = Some(exit.map_or_else(String::new, |exit| exit.stderr.clone()));
        }
    }

    /// Tells the reload's asker why it failed, and how the old generation is.
    pub(crate) fn tell_rollback(&mut self) {
        let whole = self.is_whole();
        let in_force = self.generation;
        let Some(rollout) = &mut self.rollout else {
            return;
        };
        let (Some(job), Stage::Back(back)) = (rollout.job.take(), &mut rollout.stage) else {
            return;
        };
        let now = match &back.setback {
            Some(setback) if !whole => format!(
                "generation {in_force} stays in force, but not all of it has come back, \
                 and it is tried again: {setback}"
            ),
            _ => format!("generation {in_force} stays in force"),
        };
        let message = format!("{}; {now}", back.why);
        let stderr = back.stderr.take().unwrap_or_default();
        self.actions.push(Action::Reloaded {
            generation: in_force,
            committed: false,
            why: std::mem::take(&mut back.why),
        });
        let aborters = std::mem::take(&mut rollout.aborters);
        let promoters = std::mem::take(&mut rollout.promoters);
        for job in aborters {
            self.finish(job, Ok(message.clone()));
        }
        for job in promoters.into_iter().chain([job]) {
            let (message, stderr) = (message.clone(), stderr.clone());
            self.finish(job, Err(Refusal::Failed { message, stderr }));
        }
    }

    /// Whether every slot is served by the generation in force.
    fn is_whole(&self) -> bool {
        let slots = self
            .pools
            .iter()
            .flat_map(|pool| pool.slots.iter().take(pool.desired as usize));
        slots
            .filter_map(|slot| slot.current())
            .all(|process| process.serving().is_some() && process.generation == self.generation)
            && self.total.missing == 0
    }

    /// No process of the new generation is left: the reload is over.
    pub(crate) fn end_rollback(&mut self) {
        self.rollout = None;
        for pool in self.pools.iter_mut() {
            pool.part = None;
        }
        self.recount_all();
        self.actions.push(Action::RollbackEnded);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::driver::{Driver, code, plan, policy, signal, worker};
    use crate::{Command, Event, Worker};

    /// Three workers, of which the first has been replaced.
    fn one_replaced() -> (Driver, crate::JobId) {
        let mut driver = Driver::ready(policy("web", 3));
        let job = driver.reload(plan(2, vec![policy("web", 3)]));
        driver.say_ready(worker(0, 2));
        driver.exit(worker(0, 1), code(0));
        (driver, job)
    }

    #[test]
    fn a_first_failure_changes_nothing_and_says_why() {
        let mut driver = Driver::ready(policy("web", 2));
        let job = driver.reload(plan(2, vec![policy("web", 2)]));
        driver.exit(worker(0, 2), code(7));
        let (why, stderr) = driver.failure(job);
        assert_eq!(
            why,
            "web/0: pid 1002 exited with code 7 before it was ready; generation 1 stays in force"
        );
        assert_eq!(stderr, "stderr of the exit with 7");
        let reason = "web/0: pid 1002 exited with code 7 before it was ready";
        assert_eq!(driver.reloaded(), [(1, false, reason)]);
        assert_eq!(driver.fleet.generation(), 1);
        assert!(!driver.drains(worker(0, 1)) && driver.fleet.is_ready());
        assert_eq!(
            (driver.current(0), driver.current(1)),
            (worker(0, 1), worker(1, 1))
        );
        let again = driver.reload(plan(3, vec![policy("web", 2)]));
        driver.say_ready(worker(0, 3));
        driver.say_ready(worker(1, 2));
        assert!(driver.is_done(again));
    }

    #[test]
    fn what_was_replaced_is_restored_successor_first() {
        let (mut driver, job) = one_replaced();
        driver.exit(worker(1, 2), code(7));
        let restoring = driver.slot(0).successor().unwrap();
        assert_eq!(
            (restoring.worker(), restoring.generation()),
            (worker(0, 3), 1)
        );
        assert!(!driver.drains(worker(0, 2)) && driver.fleet.is_ready());
        assert_eq!(driver.result(job), None);
        driver.say_ready(worker(0, 3));
        assert!(driver.drains(worker(0, 2)));
        assert!(driver.failure(job).0.starts_with("web/1: pid 1102 exited"));
        // Whoever has been told finds it said everywhere, also while others still drain.
        assert_eq!(driver.reloaded().len(), 1);
        assert!(!driver.has_done(&Action::RollbackEnded));
        driver.exit(worker(0, 2), code(0));
        assert!(driver.has_done(&Action::RollbackEnded));
        assert_eq!(driver.reloaded().len(), 1);
        assert_eq!(driver.last_reason(0), ExitReason::Reload);
    }

    #[test]
    fn a_successor_that_is_late_is_killed_and_its_stderr_is_awaited() {
        let (mut driver, job) = one_replaced();
        driver.pass(30.0);
        assert!(driver.has_done(&Action::Kill {
            worker: worker(1, 2)
        }));
        driver.say_ready(worker(0, 3));
        assert_eq!(driver.result(job), None);
        let mut killed = signal(9);
        killed.stderr = "waiting for the database".to_owned();
        driver.exit(worker(1, 2), killed);
        let (why, stderr) = driver.failure(job);
        assert!(
            why.starts_with("web/1: pid 1102 was not ready within 30s"),
            "{why}"
        );
        assert_eq!(stderr, "waiting for the database");
    }

    #[test]
    fn a_new_worker_that_fails_after_it_was_ready_takes_the_reload_with_it() {
        let (mut driver, job) = one_replaced();
        driver.exit(worker(0, 2), signal(11));
        assert_eq!((driver.current(0), driver.generation(0)), (worker(0, 3), 1));
        assert!(driver.has_done(&Action::Stop {
            worker: worker(1, 2)
        }));
        assert_eq!(driver.result(job), None, "the slot is not back yet");
        driver.say_ready(worker(0, 3));
        assert!(driver.failure(job).0.contains("ended by signal 11"));
        driver.exit(worker(1, 2), code(0));
        assert_eq!(driver.reloaded().len(), 1);
    }

    #[test]
    fn new_pools_and_new_slots_go() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.reload(plan(2, vec![policy("web", 2), policy("api", 1)]));
        let api = Worker {
            pool: PoolId(1),
            ..worker(0, 1)
        };
        driver.say_ready(api);
        driver.say_ready(worker(0, 2));
        driver.exit(worker(1, 1), code(1));
        assert!(driver.drains(api));
        assert_eq!(driver.fleet.pool(PoolId(0)).unwrap().desired(), 1);
        driver.exit(api, code(0));
        assert_eq!(driver.fleet.pools().len(), 1);
        driver.say_ready(worker(0, 3));
        driver.exit(worker(0, 2), code(0));
        assert_eq!(driver.reloaded().len(), 1);
    }

    #[test]
    fn a_generation_that_does_not_come_back_is_tried_again_and_that_is_said() {
        let (mut driver, job) = one_replaced();
        driver.exit(worker(1, 2), code(7));
        driver.exit(worker(0, 3), code(8));
        let why = driver.failure(job).0;
        assert!(why.contains("not all of it has come back"), "{why}");
        assert!(why.contains("web/0: pid 1003 exited with code 8"), "{why}");
        assert!(!driver.drains(worker(0, 2)));
        driver.pass(0.1);
        driver.say_ready(worker(0, 4));
        driver.exit(worker(0, 2), code(0));
        assert_eq!(driver.reloaded().len(), 1);
    }

    #[test]
    fn a_rollback_ends_even_if_the_old_generation_never_comes_back() {
        let (mut driver, _) = one_replaced();
        driver.exit(worker(1, 2), code(7));
        for incarnation in 3..6 {
            assert!(!driver.drains(worker(0, 2)));
            driver.exit(worker(0, incarnation), code(8));
            driver.pass(0.5);
        }
        assert!(driver.drains(worker(0, 2)));
        assert_eq!(driver.generation(0), 1);
        driver.exit(worker(0, 2), code(0));
        assert_eq!(driver.reloaded().len(), 1);
    }

    #[test]
    fn commands_wait_until_a_rollback_has_ended() {
        let (mut driver, _) = one_replaced();
        driver.exit(worker(1, 2), code(7));
        let job = driver.command(Command::ScaleBy { pool: None, by: 1 });
        let why = driver.failure(job).0;
        assert_eq!(
            why,
            "a reload is being rolled back; try again when it has ended"
        );
    }

    #[test]
    fn a_spawn_that_fails_and_a_broken_protocol_end_a_reload() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.spawns_fail = true;
        let job = driver.reload(plan(2, vec![policy("web", 1)]));
        assert!(
            driver
                .failure(job)
                .0
                .contains("no process could be made: EMFILE")
        );
        driver.spawns_fail = false;
        let job = driver.reload(plan(3, vec![policy("web", 1)]));
        driver.step(Event::Misbehaved {
            worker: worker(0, 3),
            rule: "garbage".to_owned(),
        });
        driver.exit(worker(0, 3), signal(9));
        assert!(
            driver
                .failure(job)
                .0
                .contains("broke the protocol: garbage")
        );
        assert_eq!(driver.reloaded().len(), 2);
        driver.pass(5.0);
        let within = Duration::from_secs(30);
        assert!(!driver.has_done(&Action::Drain {
            worker: worker(0, 1),
            within
        }));
    }
}
