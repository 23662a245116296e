//! Reloading in place: a worker that can is asked to take the settings of
//! another generation, and goes on serving all the while.

use std::rc::Rc;

use crate::Fleet;
use crate::interface::{Action, Ask, AskError, Fate, Time};
use crate::state::failure::Failure;
use crate::state::process::Process;
use crate::state::replacement::{Cause, Progress};
use crate::state::slot::SlotId;

impl Fleet {
    /// Whether the slot, whose turn has come, is to take new settings rather
    /// than a new process.
    pub(crate) fn takes_in_place(&self, id: SlotId) -> bool {
        let part = self.pools[id.pool].part.as_ref();
        let Some(slot) = self.slot(id) else {
            return false;
        };
        let first_try = slot
            .replacement
            .as_ref()
            .is_some_and(|it| it.cause == Cause::Reload { failures: 0 });
        first_try
            && part.is_some_and(|part| part.fate == Fate::InPlace)
            && slot.asking.is_none()
            && slot.current().is_some_and(Process::is_ready)
    }

    /// Asks the current process to take the settings that its slot is to have.
    pub(crate) fn ask_to_reload(&mut self, id: SlotId) {
        let generation = self.aim(id.pool);
        let within = self.policy_in(id.pool, generation).boot_timeout;
        let slot = self.slot_mut(id);
        let Some(worker) = slot.current().map(|process| process.worker) else {
            return;
        };
        if let Some(replacement) = &mut slot.replacement {
            replacement.progress = Progress::Asked;
        }
        self.actions.push(Action::Ask {
            worker,
            ask: Ask::Reload { generation },
            within,
        });
        let step = format!("asked to take the settings of generation {generation}");
        self.recount(id);
        self.tell_watchers(id, &step);
        self.touch(id);
    }

    /// The current process answered whether it has taken the settings of
    /// `generation`.
    pub(crate) fn answered_reload(
        &mut self,
        now: Time,
        id: SlotId,
        generation: u64,
        result: Result<(), AskError>,
    ) {
        let aim = self.aim(id.pool);
        let policy = Rc::clone(&self.policy_in(id.pool, aim));
        let slot = self.slot_mut(id);
        let asked = slot.replacement.as_ref();
        if generation != aim || asked.is_none_or(|it| !matches!(it.progress, Progress::Asked)) {
            return;
        }
        self.touch(id);
        match result {
            Ok(()) => {
                let slot = self.slot_mut(id);
                slot.replacement = None;
                slot.generation = generation;
                if let Some(process) = slot.current_mut() {
                    process.take_settings(generation, policy);
                }
                let step = format!("has taken the settings of generation {generation}");
                self.tell_watchers(id, &step);
            }
            Err(AskError::NeedsRestart(_)) => self.start_successor(now, id),
            // Who does not take the old settings back is replaced.
            Err(_) if generation == self.generation => self.start_successor(now, id),
            Err(error) => self.refused_settings(now, id, &error),
        }
    }

    /// New settings were not taken: the reload has failed. Only who said no has
    /// the old ones for certain.
    fn refused_settings(&mut self, now: Time, id: SlotId, error: &AskError) {
        if !matches!(error, AskError::Refused(_)) {
            self.count_as_new(id);
        }
        let slot = self.slot_mut(id);
        slot.replacement = None;
        if let Some(process) = slot.current() {
            let phrase = format!("was asked to take the new settings: {error}");
            let failure = Failure::of(process, now, &phrase, None);
            self.roll_back(now, id, &failure);
        }
    }

    /// Counts the current process as one of the new generation.
    pub(crate) fn count_as_new(&mut self, id: SlotId) {
        let Some(generation) = self.reloading() else {
            return;
        };
        let policy = self.policy_in(id.pool, generation);
        if let Some(process) = self.slot_mut(id).current_mut() {
            process.take_settings(generation, policy);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::driver::{Driver, code, plan, policy, worker};
    use crate::{Command, Event, JobId, Worker};

    fn reload(driver: &mut Driver) -> JobId {
        let mut plan = plan(2, vec![policy("web", 2)]);
        plan.pools[0].fate = Fate::InPlace;
        driver.reload(plan)
    }

    fn answer(driver: &mut Driver, slot: u32, generation: u64, result: Result<(), AskError>) {
        driver.step(Event::Answered {
            worker: worker(slot, 1),
            ask: Ask::Reload { generation },
            result,
        });
    }

    fn asked(driver: &Driver, worker: Worker, generation: u64) -> bool {
        driver.has_done(&Action::Ask {
            worker,
            ask: Ask::Reload { generation },
            within: Duration::from_secs(30),
        })
    }

    #[test]
    fn workers_take_new_settings_one_after_the_other_and_stay() {
        let mut driver = Driver::ready(policy("web", 2));
        let job = reload(&mut driver);
        assert!(asked(&driver, worker(0, 1), 2) && !asked(&driver, worker(1, 1), 2));
        answer(&mut driver, 0, 2, Ok(()));
        assert!(asked(&driver, worker(1, 1), 2));
        assert_eq!((driver.generation(0), driver.generation(1)), (2, 1));
        answer(&mut driver, 1, 2, Ok(()));
        assert_eq!(
            driver.result(job),
            Some(&Ok("generation 2 is in force".to_owned()))
        );
        assert_eq!(
            (driver.current(0), driver.current(1)),
            (worker(0, 1), worker(1, 1))
        );
    }

    #[test]
    fn one_that_refuses_has_the_others_take_the_old_settings_back() {
        let mut driver = Driver::ready(policy("web", 2));
        let job = reload(&mut driver);
        answer(&mut driver, 0, 2, Ok(()));
        let no = AskError::Refused("no such theme".to_owned());
        answer(&mut driver, 1, 2, Err(no));
        assert!(asked(&driver, worker(0, 1), 1) && !asked(&driver, worker(1, 1), 1));
        assert_eq!(driver.result(job), None);
        answer(&mut driver, 0, 1, Ok(()));
        let why = driver.failure(job).0;
        assert!(why.starts_with("web/1: pid 1101 was asked to take the new settings: it refused"));
        assert_eq!((driver.generation(0), driver.generation(1)), (1, 1));
        assert_eq!(driver.reloaded().len(), 1);
        assert_eq!(driver.current(0), worker(0, 1));
    }

    #[test]
    fn one_that_keeps_the_new_settings_is_replaced() {
        let mut driver = Driver::ready(policy("web", 2));
        let job = reload(&mut driver);
        answer(&mut driver, 0, 2, Err(AskError::TimedOut));
        // It may have taken them: it is asked to take the old ones.
        assert!(asked(&driver, worker(0, 1), 1));
        answer(&mut driver, 0, 1, Err(AskError::TimedOut));
        assert!(!driver.drains(worker(0, 1)));
        driver.say_ready(worker(0, 2));
        assert!(driver.drains(worker(0, 1)));
        assert!(driver.failure(job).0.contains("did not answer in time"));
        driver.exit(worker(0, 1), code(0));
        assert_eq!(driver.reloaded().len(), 1);
    }

    #[test]
    fn one_that_needs_a_restart_is_replaced_and_the_others_take_the_settings() {
        let mut driver = Driver::ready(policy("web", 2));
        let job = reload(&mut driver);
        let no = AskError::NeedsRestart("it is confined".to_owned());
        answer(&mut driver, 0, 2, Err(no));
        let successor = driver.slot(0).successor().unwrap();
        assert_eq!(
            (successor.worker(), successor.generation()),
            (worker(0, 2), 2)
        );
        assert!(!driver.drains(worker(0, 1)) && !asked(&driver, worker(1, 1), 2));
        driver.say_ready(worker(0, 2));
        driver.pass(1.0);
        assert!(driver.drains(worker(0, 1)));
        answer(&mut driver, 1, 2, Ok(()));
        assert!(driver.is_done(job));
        assert_eq!(driver.current(1), worker(1, 1));
    }

    #[test]
    fn where_the_successor_of_one_that_needs_a_restart_fails_the_reload_has_failed() {
        let mut driver = Driver::ready(policy("web", 2));
        let job = reload(&mut driver);
        let no = AskError::NeedsRestart("it is confined".to_owned());
        answer(&mut driver, 0, 2, Err(no));
        driver.exit(worker(0, 2), code(1));
        assert!(driver.failure(job).0.contains("web/0"));
        assert_eq!(driver.current(0), worker(0, 1));
        assert_eq!((driver.generation(0), driver.generation(1)), (1, 1));
    }

    #[test]
    fn one_that_does_not_serve_is_replaced() {
        let mut driver = Driver::ready(policy("web", 2));
        driver.exit(worker(0, 1), code(1));
        let job = reload(&mut driver);
        let successor = driver.slot(0).successor().unwrap();
        assert_eq!(successor.generation(), 2);
        let successor = successor.worker();
        driver.say_ready(successor);
        answer(&mut driver, 1, 2, Ok(()));
        assert!(driver.is_done(job));
    }

    #[test]
    fn one_that_an_operator_pauses_meanwhile_is_replaced() {
        let mut driver = Driver::ready(policy("web", 2));
        let (pool, slot) = ("web".to_owned(), 0);
        driver.command(Command::Pause { pool, slot });
        let job = reload(&mut driver);
        assert!(!asked(&driver, worker(0, 1), 2));
        driver.step(Event::Answered {
            worker: worker(0, 1),
            ask: Ask::Pause,
            result: Ok(()),
        });
        driver.say_ready(worker(0, 2));
        answer(&mut driver, 1, 2, Ok(()));
        assert!(driver.is_done(job) && driver.fleet.is_ready());
    }

    #[test]
    fn one_that_dies_before_it_answers_is_replaced_and_takes_its_turn_again() {
        let mut driver = Driver::ready(policy("web", 2));
        let job = reload(&mut driver);
        driver.exit(worker(0, 1), code(1));
        assert_eq!(driver.generation(0), 1);
        answer(&mut driver, 0, 2, Ok(()));
        assert_eq!(driver.generation(0), 1);
        let successor = driver.slot(0).successor().unwrap();
        assert_eq!(successor.generation(), 2);
        let successor = successor.worker();
        driver.say_ready(successor);
        answer(&mut driver, 1, 2, Ok(()));
        assert!(driver.is_done(job));
    }
}
