//! How much memory a process may hold. Recycling mends a leak; it does not mend a
//! limit that is less than the program needs, and would only start one process after
//! the other. So one that is over `max_rss` when it becomes ready, or soon after where
//! its predecessor was as well, is said to be once and measured by itself.

use prefork_api::ExitReason;

use crate::Fleet;
use crate::interface::{Action, Report, Time, Worker};
use crate::state::slot::{Place, SlotId};

/// One that is over the limit from the beginning may hold this many times as much as
/// it did then.
const ROOM: u64 = 2;

impl Fleet {
    /// The memory that a process holds was looked up.
    pub(crate) fn memory(&mut self, now: Time, worker: Worker, holds: u64) {
        let Some((id, Place::Current)) = self.find(worker) else {
            return;
        };
        let slot = self.slot_mut(id);
        let grows_at_once = slot.grows_at_once;
        let Some(process) = slot.current() else {
            return;
        };
        let Some(limit) = process.policy.max_rss else {
            return;
        };
        if holds <= process.limits.memory.unwrap_or(limit).max(limit) {
            return;
        }
        let Some(serving) = process.serving() else {
            return;
        };
        let is_young = now < serving.since.after(process.policy.backoff_reset);
        if is_young && grows_at_once {
            self.is_born_large(id, Place::Current, holds, limit);
        } else if self.is_judged(id) {
            self.canary_grew(now, id, holds, limit);
        } else if self.recycle(now, id, ExitReason::MaxRss) {
            self.slot_mut(id).grows_at_once = is_young;
        }
    }

    /// The memory that a process holds was looked up when it became ready.
    pub(crate) fn birth_memory(&mut self, worker: Worker, holds: u64) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        let process = self.slot_mut(id).process_mut(place);
        let limit = process.and_then(|process| process.policy.max_rss);
        if let Some(limit) = limit.filter(|limit| holds > *limit) {
            self.is_born_large(id, place, holds, limit);
        }
    }

    fn is_born_large(&mut self, id: SlotId, place: Place, holds: u64, limit: u64) {
        let Some(process) = self.slot_mut(id).process_mut(place) else {
            return;
        };
        let worker = process.worker;
        let most = holds.saturating_mul(ROOM);
        if process.limits.memory.replace(most).is_none() {
            self.actions.push(Action::Report(Report::TooLarge {
                worker,
                holds,
                limit,
                most,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;
    use crate::driver::{Driver, policy, worker};

    const GIB: u64 = 1 << 30;

    fn limited() -> Driver {
        let mut limited = policy("web", 1);
        limited.max_rss = Some(GIB);
        Driver::start(limited)
    }

    /// A worker is ready and holds this much.
    fn born(driver: &mut Driver, worker: Worker, resident: u64) {
        driver.say_ready(worker);
        driver.step(Event::BirthMemory { worker, resident });
    }

    fn holds(driver: &mut Driver, worker: Worker, resident: u64) {
        driver.step(Event::Memory { worker, resident });
    }

    fn times_said(driver: &Driver) -> usize {
        let said = |action: &&Action| matches!(action, Action::Report(Report::TooLarge { .. }));
        driver.log.iter().filter(said).count()
    }

    #[test]
    fn one_that_is_over_the_limit_at_its_birth_is_said_once_and_stays() {
        let mut driver = limited();
        let first = worker(0, 1);
        born(&mut driver, first, 3 * GIB);
        for _ in 0..100 {
            driver.pass(1.0);
            holds(&mut driver, first, 4 * GIB);
        }
        assert_eq!(driver.slot(0).incarnations(), 1);
        assert_eq!(times_said(&driver), 1);
    }

    #[test]
    fn if_it_leaks_it_is_recycled_all_the_same() {
        let mut driver = limited();
        let first = worker(0, 1);
        born(&mut driver, first, 3 * GIB);
        driver.pass(2.0);
        holds(&mut driver, first, 6 * GIB + 1);
        assert!(driver.slot(0).successor().is_some());
    }

    #[test]
    fn one_that_grows_over_it_is_recycled_and_its_successor_as_often_as_it_takes_to_leak() {
        let mut driver = limited();
        for incarnation in 1..=5 {
            let current = worker(0, incarnation);
            born(&mut driver, current, GIB / 2);
            driver.pass(60.0);
            holds(&mut driver, current, 2 * GIB);
            assert!(driver.slot(0).successor().is_some());
        }
        assert_eq!(times_said(&driver), 0);
    }

    #[test]
    fn one_that_grows_over_it_as_soon_as_it_serves_is_not_recycled_in_a_loop() {
        let mut driver = limited();
        born(&mut driver, worker(0, 1), GIB / 2);
        driver.pass(3.0);
        holds(&mut driver, worker(0, 1), 2 * GIB);
        born(&mut driver, worker(0, 2), GIB / 2);
        for _ in 0..100 {
            driver.pass(1.0);
            holds(&mut driver, worker(0, 2), 2 * GIB);
        }
        assert_eq!(driver.slot(0).incarnations(), 2);
        assert_eq!(times_said(&driver), 1);
    }
}
