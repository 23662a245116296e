//! Commands that replace processes: restart (successor first), drain and kill
//! (successor at once).

use prefork_api::ExitReason;

use crate::Fleet;
use crate::interface::{JobId, PoolId, Refusal, Time};
use crate::state::job::{Job, Watch};
use crate::state::leave::How;
use crate::state::slot::{Seat, SlotId};

impl Fleet {
    /// Replaces one worker, or all of the pool's in the order of their slots.
    pub(crate) fn restart(
        &mut self,
        now: Time,
        job: JobId,
        pool: PoolId,
        slot: Option<u32>,
    ) -> Result<(), Refusal> {
        let slots = match slot {
            Some(index) => index..index + 1,
            None => 0..self.pool_mut(pool).desired,
        };
        let mut state = Job::whole_pool(pool, "restarted");
        state.slot = slot;
        state.remaining = slots.len() as u32;
        state.total = state.remaining;
        self.jobs.insert(job, state);
        for index in slots {
            self.restart_slot(now, job, SlotId { pool, index });
        }
        Ok(())
    }

    /// Replaces the slot's worker: after its successor is ready if it serves,
    /// at once if there is nothing to lose.
    fn restart_slot(&mut self, now: Time, job: JobId, id: SlotId) {
        let slot = self.slot_mut(id);
        let current = slot.current();
        let predecessor = current.map(|process| process.worker.incarnation);
        let serves = current.is_some_and(|process| process.serving().is_some());
        let newer_than = Some(predecessor.unwrap_or(slot.incarnations));
        if serves {
            self.replace_for_command(id);
        } else {
            slot.backoff.reset();
            if let Some(process) = self.vacate(id) {
                let cause = ExitReason::Operator;
                self.dismiss(now, id, process, cause, How::Stop, None);
            } else {
                self.slot_mut(id).seat = Seat::Vacant;
            }
        }
        let watch = Watch {
            job,
            predecessor,
            newer_than,
        };
        self.watch(id, watch);
    }

    /// Drains or kills the slot's worker; its successor starts at once.
    pub(crate) fn remove(
        &mut self,
        now: Time,
        job: JobId,
        id: SlotId,
        how: How,
    ) -> Result<(), Refusal> {
        let deed = if how == How::Kill {
            "killed"
        } else {
            "drained"
        };
        let watch = if let Some(process) = self.vacate(id) {
            let incarnation = process.worker.incarnation;
            self.dismiss(now, id, process, ExitReason::Operator, how, None);
            Watch {
                job,
                predecessor: Some(incarnation),
                newer_than: Some(incarnation),
            }
        } else {
            let predecessor = self.remove_leaving(now, id, how)?;
            Watch {
                job,
                predecessor: Some(predecessor),
                newer_than: None,
            }
        };
        let mut state = Job::whole_pool(id.pool, deed);
        state.slot = Some(id.index);
        state.remaining = 1;
        state.total = 1;
        self.jobs.insert(job, state);
        self.watch(id, watch);
        Ok(())
    }

    /// Kills what still leaves of a slot in which nobody sits. Returns the
    /// number of the process that this concerns last.
    fn remove_leaving(&mut self, now: Time, id: SlotId, how: How) -> Result<u64, Refusal> {
        let name = self.name(id);
        let slot = self.slot_mut(id);
        let gentle = slot.leaving.iter().rev().find(|l| !l.stage.is_killed());
        match (gentle, &slot.seat) {
            (Some(leaving), _) if how == How::Kill => {
                let incarnation = leaving.process.worker.incarnation;
                self.kill_leaving(now, id, ExitReason::Operator);
                Ok(incarnation)
            }
            (_, Seat::Backoff { until, why }) => {
                let wait = until.since(now);
                Err(Refusal::failed(format!(
                    "{name} has no process: it starts one in {wait:?}, because {why}"
                )))
            }
            (Some(_), _) => Err(Refusal::failed(format!("{name} is leaving already"))),
            (None, _) if slot.leaving.is_empty() => {
                Err(Refusal::failed(format!("{name} has no process")))
            }
            (None, _) => Err(Refusal::failed(format!("{name} has been killed already"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prefork_api::SlotState;

    use super::*;
    use crate::driver::{Driver, code, policy, signal, worker};
    use crate::{Action, Command};

    fn restart(driver: &mut Driver, slot: Option<u32>) -> JobId {
        let pool = "web".to_owned();
        driver.command(Command::Restart { pool, slot })
    }

    fn drain(driver: &mut Driver, slot: u32) -> JobId {
        let pool = "web".to_owned();
        driver.command(Command::Drain { pool, slot })
    }

    fn kill(driver: &mut Driver, slot: u32) -> JobId {
        let pool = "web".to_owned();
        driver.command(Command::Kill { pool, slot })
    }

    #[test]
    fn a_restart_replaces_slot_by_slot_and_never_has_fewer_ready() {
        let mut driver = Driver::ready(policy("web", 3));
        let job = restart(&mut driver, None);
        for slot in 0..3 {
            for other in 0..3 {
                let boots = driver.slot(other).successor().is_some();
                assert_eq!(boots, other == slot, "{other} while it is {slot}'s turn");
            }
            driver.say_ready(worker(slot, 2));
            assert!(driver.fleet.is_ready());
        }
        for slot in 0..3 {
            assert_eq!(driver.result(job), None);
            driver.exit(worker(slot, 1), code(0));
            assert_eq!(driver.last_reason(slot), ExitReason::Operator);
        }
        assert_eq!(
            driver.result(job),
            Some(&Ok("web: 3 workers restarted".to_owned()))
        );
        let steps = driver.log.iter().filter(|action| {
            matches!(action, Action::Progress { slot: Some(1), message, .. }
                if message.contains("pid"))
        });
        assert_eq!(steps.count(), 3);
    }

    #[test]
    fn a_successor_that_fails_ends_the_restart_with_its_stderr() {
        let mut driver = Driver::ready(policy("web", 3));
        let job = restart(&mut driver, None);
        driver.say_ready(worker(0, 2));
        driver.exit(worker(1, 2), code(5));
        let (message, stderr) = driver.failure(job);
        assert!(message.contains("web/1: pid 1102 exited with code 5"));
        assert_eq!(stderr, "stderr of the exit with 5");
        driver.pass(60.0);
        assert_eq!(driver.current(1), worker(1, 1));
        assert_eq!(driver.current(2), worker(2, 1));
        assert!(driver.fleet.is_ready());
    }

    #[test]
    fn a_successor_that_must_be_killed_ends_the_restart_when_it_is_reaped() {
        let mut driver = Driver::ready(policy("web", 1));
        let job = restart(&mut driver, Some(0));
        driver.pass(30.0);
        assert_eq!(driver.result(job), None);
        driver.exit(worker(0, 2), code(9));
        let (message, stderr) = driver.failure(job);
        assert!(message.contains("not ready within 30s"), "{message}");
        assert_eq!(stderr, "stderr of the exit with 9");
        assert_eq!(driver.state(0), SlotState::Ready);
    }

    #[test]
    fn a_slot_that_waits_is_restarted_at_once() {
        let mut driver = Driver::ready(policy("web", 1));
        for incarnation in 1..=8 {
            driver.exit(worker(0, incarnation), code(1));
            driver.pass(if incarnation < 8 { 31.0 } else { 0.0 });
        }
        assert_eq!(driver.state(0), SlotState::Backoff);
        let job = restart(&mut driver, None);
        assert_eq!(driver.current(0), worker(0, 9));
        driver.say_ready(worker(0, 9));
        assert!(driver.is_done(job));
    }

    #[test]
    fn a_worker_that_starts_is_restarted_at_once() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.exit(worker(0, 1), code(1));
        let job = restart(&mut driver, Some(0));
        assert!(driver.has_done(&Action::Stop {
            worker: worker(0, 2)
        }));
        driver.say_ready(worker(0, 3));
        assert_eq!(driver.result(job), None);
        driver.exit(worker(0, 2), signal(15));
        assert!(driver.is_done(job));
    }

    #[test]
    fn a_drain_starts_the_successor_at_once_and_ends_with_both() {
        let mut driver = Driver::ready(policy("web", 2));
        let job = drain(&mut driver, 0);
        let within = Duration::from_secs(30);
        assert!(driver.has_done(&Action::Drain {
            worker: worker(0, 1),
            within
        }));
        assert_eq!(driver.current(0), worker(0, 2));
        driver.exit(worker(0, 1), code(0));
        assert_eq!(driver.result(job), None);
        driver.say_ready(worker(0, 2));
        assert_eq!(driver.result(job), Some(&Ok("web/0 drained".to_owned())));
        assert_eq!(driver.last_reason(0), ExitReason::Operator);
    }

    #[test]
    fn a_kill_starts_the_successor_at_once_and_is_no_crash() {
        let mut driver = Driver::ready(policy("web", 1));
        for incarnation in 1..10 {
            let job = kill(&mut driver, 0);
            assert_eq!(driver.current(0), worker(0, incarnation + 1));
            driver.exit(worker(0, incarnation), signal(9));
            assert_eq!(driver.last_reason(0), ExitReason::Operator);
            driver.say_ready(worker(0, incarnation + 1));
            assert!(driver.is_done(job));
        }
    }

    #[test]
    fn a_drain_whose_successor_fails_has_failed() {
        let mut driver = Driver::ready(policy("web", 1));
        let job = drain(&mut driver, 0);
        driver.exit(worker(0, 2), code(1));
        assert!(driver.failure(job).0.contains("exited with code 1"));
    }

    #[test]
    fn a_slot_without_a_process_has_nothing_to_drain_or_kill() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.exit(worker(0, 1), code(1));
        driver.exit(worker(0, 2), code(1));
        for job in [drain(&mut driver, 0), kill(&mut driver, 0)] {
            let why = driver.failure(job).0;
            assert!(why.contains("web/0 has no process"), "{why}");
            assert!(why.contains("exited with code 1"), "{why}");
        }
        assert_eq!(driver.state(0), SlotState::Backoff);
    }

    #[test]
    fn a_worker_that_drains_too_slowly_can_be_killed() {
        let mut driver = Driver::ready(policy("web", 2));
        let pool = "web".to_owned();
        driver.command(Command::Scale { pool, workers: 1 });
        let job = kill(&mut driver, 1);
        assert!(driver.has_done(&Action::Kill {
            worker: worker(1, 1)
        }));
        driver.exit(worker(1, 1), signal(9));
        assert!(driver.is_done(job));
        assert_eq!(driver.state(1), SlotState::Empty);
    }
}
