//! Scaling: absolute and idempotent. New slots start, surplus slots drain from
//! the highest down; a later scale overtakes an earlier one.

use prefork_api::ExitReason;

use crate::Fleet;
use crate::interface::{Action, JobId, PoolId, Refusal, Report, Time};
use crate::state::job::{Job, counted};
use crate::state::leave::How;
use crate::state::pool::Scaling;
use crate::state::slot::{Seat, SlotId};

/// The most workers that a pool can have.
const MOST_WORKERS: u32 = 10_000;

impl Fleet {
    /// Gives the pool `workers` workers.
    pub(crate) fn scale(
        &mut self,
        now: Time,
        job: JobId,
        pool: PoolId,
        workers: u32,
    ) -> Result<(), Refusal> {
        if workers == 0 {
            return Err(Refusal::failed(
                "a pool keeps at least 1 worker; `stop` ends the service",
            ));
        }
        if workers > MOST_WORKERS {
            return Err(Refusal::failed(format!(
                "{workers} workers are too many; a pool has {MOST_WORKERS} at most"
            )));
        }
        self.jobs.insert(job, Job::whole_pool(pool, "scaled"));
        self.begin_scaling(job, pool, workers);
        self.resize(now, pool, workers, ExitReason::ScaleDown);
        self.touch(SlotId { pool, index: 0 });
        Ok(())
    }

    /// Adds `by` workers to the pool, or takes some away.
    pub(crate) fn scale_by(
        &mut self,
        now: Time,
        job: JobId,
        pool: PoolId,
        by: i32,
    ) -> Result<(), Refusal> {
        let (has, name) = (self.pools[pool].desired, &self.policy(pool).name);
        let workers = i64::from(has) + i64::from(by);
        if workers < 1 {
            return Err(Refusal::failed(format!(
                "{name} has {}, and a pool keeps at least 1; `stop` ends the service",
                counted(has)
            )));
        }
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        self.scale(now, job, pool, workers)
    }

    /// Adds `by` workers to the first pool, which keeps at least 1.
    pub(crate) fn scale_first_by(&mut self, now: Time, job: JobId, by: i32) -> Result<(), Refusal> {
        let Some(pool) = self.pools.staying().next() else {
            return Err(Refusal::NotFound("there is no pool".to_owned()));
        };
        let workers = pool.desired.saturating_add_signed(by);
        let id = pool.id;
        self.scale(now, job, id, workers.clamp(1, MOST_WORKERS))
    }

    /// Makes the job the one that the pool's size belongs to. The one before
    /// it, if it wanted another size, has been overtaken.
    fn begin_scaling(&mut self, job: JobId, pool: PoolId, workers: u32) {
        let state = self.pool_mut(pool);
        let desired = state.desired;
        let mut scaling = state.scaling.take().unwrap_or(Scaling {
            jobs: Vec::new(),
            added_from: desired,
        });
        let overtaken = if desired == workers {
            Vec::new()
        } else {
            std::mem::take(&mut scaling.jobs)
        };
        scaling.jobs.push(job);
        scaling.added_from = scaling.added_from.min(desired);
        state.scaling = Some(scaling);
        let why = format!("overtaken by a later scale to {workers}");
        for job in overtaken {
            self.end(job, Err(Refusal::failed(why.clone())));
        }
    }

    /// Starts or empties the slots between the pool's size and the new one.
    pub(crate) fn resize(&mut self, now: Time, pool: PoolId, to: u32, cause: ExitReason) {
        let from = self.pool_mut(pool).desired;
        if from == to {
            return;
        }
        let generation = self.aim(pool);
        self.pool_mut(pool).resize(to, generation);
        self.actions
            .push(Action::Report(Report::Scaled { pool, from, to }));
        for index in from..to {
            let id = SlotId { pool, index };
            self.slot_mut(id).backoff.reset();
            self.recount(id);
            self.touch(id);
        }
        for index in (to..from).rev() {
            let id = SlotId { pool, index };
            self.empty(now, id, cause, How::Drain);
            self.recount(id);
        }
    }

    /// Leaves nobody in the slot: who sits in it and who was to follow leave.
    pub(crate) fn empty(&mut self, now: Time, id: SlotId, cause: ExitReason, how: How) {
        // A successor sits down when its predecessor gets up.
        while let Some(process) = self.vacate(id) {
            self.dismiss(now, id, process, cause, how, None);
        }
        if let Some(successor) = self.drop_replacement(id) {
            self.dismiss(now, id, successor, cause, how, None);
        }
        self.slot_mut(id).seat = Seat::Vacant;
        self.touch(id);
    }

    /// Ends the scale command once the pool has its size.
    pub(crate) fn fulfil_scaling(&mut self, pool: PoolId) {
        let state = self.pool_mut(pool);
        if state.tally.unsettled > 0 || state.tally.surplus > 0 {
            return;
        }
        let Some(scaling) = state.scaling.take() else {
            return;
        };
        let (name, desired) = (&state.policy.name, state.desired);
        let workers = counted(desired);
        let message = match state.tally.missing {
            0 => format!("{name} has {workers}"),
            missing => format!("{name} has {workers}, {missing} not ready"),
        };
        for job in scaling.jobs {
            self.end(job, Ok(message.clone()));
        }
    }

    /// Ends the pool's scale command, if there is one, with a refusal.
    pub(crate) fn fail_scaling(&mut self, pool: PoolId, refusal: &Refusal) {
        if let Some(scaling) = self.pool_mut(pool).scaling.take() {
            for job in scaling.jobs {
                self.end(job, Err(refusal.clone()));
            }
        }
    }

    /// Takes the jobs of the scale command that added this slot.
    pub(crate) fn take_scaling_of(&mut self, id: SlotId) -> Vec<JobId> {
        self.pool_mut(id.pool)
            .scaling
            .take_if(|scaling| id.index >= scaling.added_from)
            .map_or_else(Vec::new, |scaling| scaling.jobs)
    }
}

#[cfg(test)]
mod tests {
    use prefork_api::SlotState;

    use super::*;
    use crate::Command;
    use crate::driver::{Driver, code, policy, worker};

    fn scale(driver: &mut Driver, workers: u32) -> JobId {
        let pool = "web".to_owned();
        driver.command(Command::Scale { pool, workers })
    }

    #[test]
    fn growing_ends_when_the_new_slots_are_ready() {
        let mut driver = Driver::ready(policy("web", 1));
        let job = scale(&mut driver, 3);
        driver.say_ready(worker(1, 1));
        assert_eq!(driver.result(job), None);
        driver.say_ready(worker(2, 1));
        assert_eq!(
            driver.result(job),
            Some(&Ok("web has 3 workers".to_owned()))
        );
    }

    #[test]
    fn shrinking_drains_the_highest_slots_and_ends_when_they_have_gone() {
        let mut driver = Driver::ready(policy("web", 3));
        let job = scale(&mut driver, 1);
        let states = |driver: &Driver| [0, 1, 2].map(|slot| driver.state(slot));
        let draining = SlotState::Draining;
        assert_eq!(states(&driver), [SlotState::Ready, draining, draining]);
        driver.exit(worker(2, 1), code(0));
        assert_eq!(driver.result(job), None);
        driver.exit(worker(1, 1), code(0));
        assert!(driver.is_done(job));
        assert_eq!(driver.last_reason(1), ExitReason::ScaleDown);
        let empty = SlotState::Empty;
        assert_eq!(states(&driver), [SlotState::Ready, empty, empty]);
    }

    #[test]
    fn growing_again_starts_beside_the_one_that_drains() {
        let mut driver = Driver::ready(policy("web", 2));
        scale(&mut driver, 1);
        let job = scale(&mut driver, 2);
        assert_eq!(driver.current(1), worker(1, 2));
        assert_eq!(driver.slot(1).leaving().len(), 1);
        driver.say_ready(worker(1, 2));
        assert!(driver.is_done(job));
    }

    #[test]
    fn the_same_size_is_done_at_once_or_joins_the_command_in_progress() {
        let mut driver = Driver::ready(policy("web", 1));
        let job = scale(&mut driver, 1);
        assert!(driver.is_done(job));
        let jobs = [scale(&mut driver, 2), scale(&mut driver, 2)];
        assert!(jobs.iter().all(|job| driver.result(*job).is_none()));
        driver.say_ready(worker(1, 1));
        assert!(jobs.iter().all(|job| driver.is_done(*job)));
    }

    #[test]
    fn a_later_scale_overtakes() {
        let mut driver = Driver::ready(policy("web", 1));
        let earlier = scale(&mut driver, 3);
        let later = scale(&mut driver, 2);
        let why = driver.failure(earlier).0;
        assert_eq!(why, "overtaken by a later scale to 2");
        driver.exit(worker(2, 1), code(0));
        driver.say_ready(worker(1, 1));
        assert!(driver.is_done(later));
    }

    #[test]
    fn a_size_out_of_range_is_refused() {
        let mut driver = Driver::ready(policy("web", 1));
        for (workers, why) in [(0, "`stop` ends the service"), (10_001, "10000 at most")] {
            let job = scale(&mut driver, workers);
            assert!(driver.failure(job).0.contains(why));
        }
        assert!(driver.fleet.is_ready());
    }

    #[test]
    fn one_fewer_than_one_is_one() {
        let mut driver = Driver::ready(policy("web", 2));
        let job = driver.command(Command::ScaleBy { pool: None, by: -1 });
        driver.exit(worker(1, 1), code(0));
        assert!(driver.is_done(job));
        let job = driver.command(Command::ScaleBy { pool: None, by: -1 });
        assert_eq!(driver.result(job), Some(&Ok("web has 1 worker".to_owned())));
    }

    #[test]
    fn a_size_may_be_told_by_what_is_to_be_added_or_taken_away() {
        let mut driver = Driver::ready(policy("web", 2));
        let by = |by| Command::ScaleBy {
            pool: Some("web".to_owned()),
            by,
        };
        let job = driver.command(by(2));
        driver.say_ready(worker(2, 1));
        driver.say_ready(worker(3, 1));
        let message = "web has 4 workers".to_owned();
        assert_eq!(driver.result(job), Some(&Ok(message)));
        driver.command(by(-3));
        assert_eq!(driver.fleet.pools().next().unwrap().desired(), 1);
        let job = driver.command(by(-1));
        let why = "web has 1 worker, and a pool keeps at least 1; `stop` ends the service";
        assert_eq!(driver.failure(job).0, why);
        let job = driver.command(by(i32::MAX));
        assert!(driver.failure(job).0.contains("10000 at most"));
    }

    #[test]
    fn a_new_slot_that_fails_ends_the_command_and_goes_on_trying() {
        let mut driver = Driver::ready(policy("web", 1));
        let job = scale(&mut driver, 2);
        driver.exit(worker(1, 1), code(6));
        let (message, stderr) = driver.failure(job);
        assert!(message.contains("web/1: pid 1101 exited with code 6"));
        assert_eq!(stderr, "stderr of the exit with 6");
        driver.say_ready(worker(1, 2));
        assert!(driver.fleet.is_ready());
    }

    #[test]
    fn a_crash_loop_elsewhere_does_not_hold_a_scale_up() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.exit(worker(0, 1), code(1));
        driver.exit(worker(0, 2), code(1));
        let job = scale(&mut driver, 2);
        driver.say_ready(worker(1, 1));
        let message = "web has 2 workers, 1 not ready";
        assert_eq!(driver.result(job), Some(&Ok(message.to_owned())));
    }

    #[test]
    fn a_command_for_a_slot_that_is_scaled_away_ends() {
        let mut driver = Driver::ready(policy("web", 2));
        let pool = || "web".to_owned();
        let one = driver.command(Command::Restart {
            pool: pool(),
            slot: Some(1),
        });
        let all = driver.command(Command::Restart {
            pool: pool(),
            slot: None,
        });
        scale(&mut driver, 1);
        assert!(driver.failure(one).0.contains("removed meanwhile"));
        driver.say_ready(worker(0, 2));
        driver.exit(worker(0, 1), code(0));
        assert!(driver.is_done(all));
    }
}
