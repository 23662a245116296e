//! Successor first: a new process starts while the old one serves, and when it
//! is ready it takes the seat and the old one drains. Recycling and restarting
//! differ only in the cause and in what a failure means; whoever wants to
//! replace a whole pool puts every slot in the queue.

use prefork_api::ExitReason;

use crate::interface::{Action, PoolId, Report, Time};
use crate::state::failure::Failure;
use crate::state::leave::How;
use crate::state::process::Process;
use crate::state::replacement::{Cause, Progress, Replacement, Turn};
use crate::state::slot::{Place, Seat, SlotId};
use crate::{Fleet, Phase};

impl Fleet {
    /// Whether processes are recycled at all now: not in a boot, in a reload, at
    /// the end.
    pub(crate) fn recycles(&self) -> bool {
        self.phase == Phase::Running && self.rollout.is_none()
    }

    /// Wants a successor because the current process has reached a limit; whether
    /// that is news.
    pub(crate) fn recycle(&mut self, now: Time, id: SlotId, reason: ExitReason) -> bool {
        if !self.recycles() {
            return false;
        }
        let slot = self.slot_mut(id);
        let due = slot.current().is_some_and(|process| {
            process.is_ready() && process.recyclable_from().is_some_and(|from| from <= now)
        });
        if !due || slot.replacement.is_some() {
            return false;
        }
        let cause = Cause::Recycle(reason);
        let not_before = slot.backoff.not_before();
        if now < not_before {
            slot.replacement = Some(Replacement {
                cause,
                progress: Progress::Waiting { until: not_before },
            });
        } else {
            self.enqueue(id, cause);
        }
        self.touch(id);
        true
    }

    /// Wants a successor for a command's sake. One that is on its way for a
    /// recycle will do.
    pub(crate) fn replace_for_command(&mut self, id: SlotId) {
        let slot = self.slot_mut(id);
        if let Some(Replacement {
            cause,
            progress: Progress::Booting(_),
        }) = &mut slot.replacement
        {
            *cause = Cause::Restart;
        } else {
            self.drop_replacement(id);
            self.enqueue(id, Cause::Restart);
        }
        self.touch(id);
    }

    /// Queues the slot, which must have no replacement.
    pub(crate) fn enqueue(&mut self, id: SlotId, cause: Cause) {
        let turn = match cause {
            Cause::Restart | Cause::Reload { .. } => Turn::Rollout(id.index),
            Cause::Recycle(_) => {
                self.next_turn += 1;
                Turn::Recycle(self.next_turn)
            }
        };
        self.pool_mut(id.pool).queue.insert(turn, id.index);
        self.slot_mut(id).replacement = Some(Replacement {
            cause,
            progress: Progress::Queued(turn),
        });
    }

    /// Gives free places to those whose turn it is.
    pub(crate) fn admit(&mut self, now: Time, pool: PoolId) {
        while let Some(id) = self.next_in_turn(pool) {
            if self.takes_in_place(id) {
                self.ask_to_reload(id);
            } else {
                self.start_successor(now, id);
            }
        }
        self.prove(now, pool);
    }

    fn next_in_turn(&mut self, pool: PoolId) -> Option<SlotId> {
        if self.awaits_verdict(pool) {
            return None;
        }
        let pool = self.pool_mut(pool);
        if pool.is_on_trial() || pool.tally.surging >= pool.max_surge() {
            return None;
        }
        let (_, index) = pool.queue.pop_first()?;
        Some(SlotId {
            pool: pool.id,
            index,
        })
    }

    /// Starts the successor of a slot whose turn has come.
    pub(crate) fn start_successor(&mut self, now: Time, id: SlotId) {
        let slot = self.slot_mut(id);
        let cause = slot.replacement.as_ref().map(|it| it.cause);
        let reload = matches!(cause, Some(Cause::Reload { .. }));
        let mut generation = slot.generation;
        if reload {
            generation = self.aim(id.pool);
        }
        let process = self.spawn(now, id, generation, reload && self.probation(id.pool));
        let slot = self.slot_mut(id);
        if let Some(replacement) = &mut slot.replacement {
            replacement.progress = Progress::Booting(Box::new(process));
        }
        let step = match slot.current().map(Process::label) {
            Some(predecessor) => format!("starting the successor of {predecessor}"),
            None => "starting".to_owned(),
        };
        let step = if reload {
            format!("{step} in generation {generation}")
        } else {
            step
        };
        self.recount(id);
        self.tell_watchers(id, &step);
        self.touch(id);
    }

    /// The successor is ready: it takes the seat, and its predecessor drains.
    pub(crate) fn succeed(&mut self, now: Time, id: SlotId) {
        let Some((successor, cause)) = self.take_successor(id) else {
            return;
        };
        let slot = self.slot_mut(id);
        slot.generation = successor.generation;
        let seat = std::mem::replace(&mut slot.seat, Seat::Held(successor));
        self.give_up_asking(id, "the worker was replaced before it answered");
        if let Seat::Held(predecessor) = seat {
            self.dismiss(now, id, predecessor, cause.reason(), How::Drain, None);
        }
        self.touch(id);
    }

    /// The successor failed: its predecessor goes on serving.
    pub(crate) fn successor_failed(
        &mut self,
        now: Time,
        id: SlotId,
        cause: Cause,
        failure: &Failure,
    ) {
        self.touch(id);
        if self.breaks_reload(failure) {
            self.roll_back(now, id, failure);
            return;
        }
        self.note_setback(id, failure);
        let pool = &mut self.pools[id.pool];
        let slot = &mut pool.slots[id.index as usize];
        let delay = slot.backoff.failed(now, &pool.policy, &mut self.rng);
        let until = now.after(delay);
        let again = match cause {
            Cause::Recycle(_) => Some(cause),
            Cause::Restart => None,
            Cause::Reload { failures } => self.restore_again(now, id, failures, until, failure),
        };
        if let Some(cause) = again {
            let slot = self.slot_mut(id);
            slot.replacement = Some(Replacement {
                cause,
                progress: Progress::Waiting { until },
            });
        }
        if cause != Cause::Restart {
            self.actions.push(Action::Report(Report::BackingOff {
                worker: failure.worker,
                delay,
                why: failure.why.clone(),
            }));
        }
        self.boot_failed(now, id, failure);
    }

    /// Acts on the replacement's deadline, if it has come.
    pub(crate) fn replacement_due(&mut self, now: Time, id: SlotId) {
        let Some(replacement) = self.slot(id).and_then(|slot| slot.replacement.as_ref()) else {
            return;
        };
        let cause = replacement.cause;
        match &replacement.progress {
            Progress::Waiting { until } if *until <= now => {
                self.slot_mut(id).replacement = None;
                self.enqueue(id, cause);
            }
            Progress::Booting(process) => {
                let is_proven = process.proven_at().is_some_and(|at| at <= now);
                if !self.look(now, id, Place::Successor) && is_proven {
                    self.end_probation(id);
                }
            }
            _ => {}
        }
    }

    /// Takes the successor out of the slot, and the replacement with it.
    pub(crate) fn take_successor(&mut self, id: SlotId) -> Option<(Process, Cause)> {
        let slot = self.slot_mut(id);
        match slot.replacement.take()? {
            Replacement {
                cause,
                progress: Progress::Booting(process),
            } => Some((*process, cause)),
            other => {
                slot.replacement = Some(other);
                None
            }
        }
    }

    /// Gives the replacement up, wherever it is. Returns a successor that has
    /// been started, for the caller to seat.
    pub(crate) fn drop_replacement(&mut self, id: SlotId) -> Option<Process> {
        match self.slot_mut(id).replacement.take()?.progress {
            Progress::Queued(turn) => {
                self.pool_mut(id.pool).queue.remove(&turn);
                None
            }
            Progress::Asked | Progress::Waiting { .. } => None,
            Progress::Booting(process) => Some(*process),
        }
    }

    /// Gives up a recycle that has not started its successor.
    pub(crate) fn drop_idle_recycle(&mut self, id: SlotId) {
        let slot = self.slot_mut(id);
        if slot.successor().is_none()
            && slot
                .replacement
                .as_ref()
                .is_some_and(|replacement| matches!(replacement.cause, Cause::Recycle(_)))
        {
            self.drop_replacement(id);
        }
    }

    /// Gives up a restart that has not started its successor.
    pub(crate) fn drop_idle_restart(&mut self, id: SlotId) {
        let slot = self.slot_mut(id);
        if slot.successor().is_none()
            && slot
                .replacement
                .as_ref()
                .is_some_and(|replacement| replacement.cause == Cause::Restart)
        {
            self.drop_replacement(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prefork_api::SlotState;

    use super::*;
    use crate::driver::{Driver, code, policy, signal, worker};
    use crate::{Event, Worker};

    fn grow(driver: &mut Driver, worker: Worker) {
        driver.step(Event::Memory {
            worker,
            resident: 2 << 30,
        });
    }

    fn limited(workers: u32) -> Driver {
        let mut limited = policy("web", workers);
        limited.max_rss = Some(1 << 30);
        Driver::ready(limited)
    }

    fn drains(driver: &Driver, worker: Worker) -> bool {
        let within = Duration::from_secs(30);
        driver.has_done(&Action::Drain { worker, within })
    }

    #[test]
    fn a_worker_over_its_memory_limit_drains_once_its_successor_is_ready() {
        let mut driver = limited(1);
        grow(&mut driver, worker(0, 1));
        assert_eq!(driver.current(0), worker(0, 1));
        let successor = driver.slot(0).successor().unwrap();
        assert_eq!(successor.worker(), worker(0, 2));
        assert!(driver.fleet.is_ready() && !drains(&driver, worker(0, 1)));
        driver.say_ready(worker(0, 2));
        assert!(driver.fleet.is_ready() && drains(&driver, worker(0, 1)));
        assert_eq!(driver.current(0), worker(0, 2));
        driver.exit(worker(0, 1), code(0));
        assert_eq!(driver.last_reason(0), ExitReason::MaxRss);
    }

    #[test]
    fn a_worker_that_served_its_number_of_requests_is_recycled_within_the_jitter() {
        for seed in 0..50 {
            let mut limited = policy("web", 1);
            limited.max_requests = 1000;
            let mut driver = Driver::start_pools(seed, vec![limited]);
            driver.say_ready(worker(0, 1));
            driver.pass(2.0);
            let mut served = |requests| {
                driver.step(Event::Health {
                    worker: worker(0, 1),
                    requests,
                    in_flight: 0,
                });
                driver.slot(0).successor().is_some()
            };
            assert!(!served(899), "seed {seed}");
            assert!(served(1000), "seed {seed}");
        }
    }

    #[test]
    fn a_worker_is_recycled_at_its_age_or_up_to_a_tenth_earlier() {
        let mut aging = policy("web", 1);
        aging.max_age = Some(Duration::from_secs(1000));
        let mut driver = Driver::ready(aging);
        driver.pass(890.0);
        assert!(driver.slot(0).successor().is_none());
        while driver.slot(0).successor().is_none() {
            driver.pass(1.0);
            assert!(driver.now <= Time(Duration::from_secs(1000)));
        }
        driver.say_ready(worker(0, 2));
        driver.exit(worker(0, 1), code(0));
        assert_eq!(driver.last_reason(0), ExitReason::MaxAge);
    }

    #[test]
    fn no_more_than_max_surge_are_recycled_at_a_time() {
        let mut driver = limited(4);
        for slot in 0..4 {
            grow(&mut driver, worker(slot, 1));
        }
        let booting = |driver: &Driver| -> Vec<u32> {
            (0..4)
                .filter(|slot| driver.slot(*slot).successor().is_some())
                .collect()
        };
        assert_eq!(booting(&driver), [0]);
        driver.say_ready(worker(0, 2));
        assert_eq!(booting(&driver), [1]);
        // A worker in the queue that crashes has its successor without a turn.
        driver.exit(worker(2, 1), code(1));
        driver.say_ready(worker(1, 2));
        assert_eq!(booting(&driver), [3]);
    }

    #[test]
    fn a_recycle_whose_successor_fails_is_tried_again_later() {
        let mut driver = limited(1);
        grow(&mut driver, worker(0, 1));
        driver.exit(worker(0, 2), code(1));
        assert_eq!(driver.state(0), SlotState::Ready);
        assert!(driver.slot(0).successor().is_none());
        assert!(driver.has_reported(|report| matches!(report, Report::BackingOff { .. })));
        driver.pass(0.1);
        let again = driver.slot(0).successor().unwrap();
        assert_eq!(again.worker(), worker(0, 3));
        assert!(!drains(&driver, worker(0, 1)));
    }

    #[test]
    fn a_successor_that_is_on_its_way_takes_the_seat_of_one_that_dies() {
        let mut driver = limited(1);
        grow(&mut driver, worker(0, 1));
        driver.exit(worker(0, 1), signal(9));
        assert_eq!(driver.current(0), worker(0, 2));
        assert_eq!(driver.slot(0).incarnations(), 2);
        driver.say_ready(worker(0, 2));
        assert!(driver.fleet.is_ready());
    }

    #[test]
    fn a_limit_that_is_too_low_makes_no_storm_of_starts() {
        let mut driver = limited(1);
        for _ in 0..500 {
            let current = driver.current(0);
            grow(&mut driver, current);
            if let Some(successor) = driver.slot(0).successor() {
                let worker = successor.worker();
                driver.say_ready(worker);
            }
            driver.pass(0.01);
        }
        assert_eq!(driver.slot(0).incarnations(), 2);
    }
}
