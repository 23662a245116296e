//! The first new workers of a reload are tried before they serve: they start
//! paused, have to stay well for `min_ready`, and are then asked to resume.
//! Until then their predecessors serve, and one that fails has served nobody.

use prefork_api::ExitReason;

use crate::Fleet;
use crate::command::pause::ANSWER_WITHIN;
use crate::interface::{Action, Ask, AskError, Report, Time};
use crate::state::leave::How;
use crate::state::process::Stage;
use crate::state::slot::{Place, SlotId};

impl Fleet {
    /// The slot's successor has been ready for long enough: it may serve.
    pub(crate) fn end_probation(&mut self, id: SlotId) {
        let slot = self.slot_mut(id);
        let Some(process) = slot.process_mut(Place::Successor) else {
            return;
        };
        let worker = process.worker;
        if let Stage::Probation { asked, .. } = &mut process.stage {
            *asked = true;
            self.actions.push(Action::Ask {
                worker,
                ask: Ask::Resume,
                within: ANSWER_WITHIN,
            });
        }
    }

    /// The slot's successor answered whether it serves.
    pub(crate) fn answered_probation(
        &mut self,
        now: Time,
        id: SlotId,
        result: Result<(), AskError>,
    ) {
        let Some(process) = self.slot_mut(id).process_mut(Place::Successor) else {
            return;
        };
        let Stage::Probation {
            serving,
            asked: true,
        } = process.stage
        else {
            return;
        };
        if let Err(error) = result {
            let phrase = format!("was asked to serve after its probation: {error}");
            let place = Place::Successor;
            self.expel(now, id, place, ExitReason::Reload, How::Stop, &phrase);
            return;
        }
        process.stage = Stage::Ready(serving);
        let (worker, label) = (process.worker, process.label());
        let paused = false;
        self.actions
            .push(Action::Report(Report::Paused { worker, paused }));
        self.tell_watchers(id, &format!("{label} has passed its probation"));
        self.succeed(now, id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prefork_api::SlotState;

    use super::*;
    use crate::driver::{Driver, code, plan, policy, worker};
    use crate::{Event, JobId, Worker};

    /// A reload whose first successor is ready and on probation for 5 s.
    fn on_probation() -> (Driver, JobId) {
        let mut driver = Driver::ready(policy("web", 2));
        let mut tried = policy("web", 2);
        tried.min_ready = Duration::from_secs(5);
        let job = driver.reload(plan(2, vec![tried]));
        driver.say_ready(worker(0, 2));
        (driver, job)
    }

    fn answer(driver: &mut Driver, worker: Worker, result: Result<(), AskError>) {
        driver.step(Event::Answered {
            worker,
            ask: Ask::Resume,
            result,
        });
    }

    fn was_asked(driver: &Driver, worker: Worker) -> bool {
        driver.has_done(&Action::Ask {
            worker,
            ask: Ask::Resume,
            within: ANSWER_WITHIN,
        })
    }

    #[test]
    fn the_first_successor_serves_only_after_its_probation() {
        let (mut driver, job) = on_probation();
        assert!(driver.has_done(&Action::Spawn {
            worker: worker(0, 2),
            generation: 2,
            paused: true
        }));
        driver.pass(4.9);
        let successor = driver.slot(0).successor().unwrap();
        assert_eq!(successor.state(), SlotState::Starting);
        assert!(!was_asked(&driver, worker(0, 2)) && driver.booting() == [0]);
        driver.pass(0.1);
        assert!(was_asked(&driver, worker(0, 2)) && !driver.drains(worker(0, 1)));
        answer(&mut driver, worker(0, 2), Ok(()));
        assert!(driver.drains(worker(0, 1)));
        assert_eq!(driver.state(0), SlotState::Ready);
        assert!(driver.has_done(&Action::Spawn {
            worker: worker(1, 2),
            generation: 2,
            paused: false
        }));
        driver.say_ready(worker(1, 2));
        assert!(driver.is_done(job));
    }

    #[test]
    fn one_that_fails_on_probation_has_replaced_nobody() {
        let (mut driver, job) = on_probation();
        driver.exit(worker(0, 2), code(3));
        assert!(
            driver
                .failure(job)
                .0
                .starts_with("web/0: pid 1002 exited with code 3")
        );
        assert!(driver.fleet.is_ready() && !driver.drains(worker(0, 1)));
        assert_eq!(driver.reloaded().len(), 1);
    }

    #[test]
    fn one_that_falls_silent_on_probation_ends_the_reload() {
        let (mut driver, job) = on_probation();
        // The heartbeat's deadline lies beyond the probation.
        driver.pass_but(9.9, &[worker(0, 2)]);
        assert_eq!(driver.result(job), None);
        driver.pass_but(0.2, &[worker(0, 2)]);
        assert!(driver.has_done(&Action::Kill {
            worker: worker(0, 2)
        }));
        driver.exit(worker(0, 2), code(3));
        assert!(driver.failure(job).0.contains("was silent for 10s"));
    }

    #[test]
    fn one_that_will_not_serve_ends_the_reload() {
        let (mut driver, job) = on_probation();
        driver.pass(5.0);
        let no = AskError::Refused("no database".to_owned());
        answer(&mut driver, worker(0, 2), Err(no));
        assert!(driver.has_done(&Action::Stop {
            worker: worker(0, 2)
        }));
        driver.exit(worker(0, 2), code(0));
        let (why, stderr) = driver.failure(job);
        assert!(why.contains("asked to serve after its probation: it refused: no database"));
        assert_eq!(stderr, "stderr of the exit with 0");
    }

    #[test]
    fn while_one_is_tried_a_crash_is_mended_by_the_old_generation() {
        let (mut driver, job) = on_probation();
        driver.exit(worker(0, 1), code(1));
        assert_eq!((driver.current(0), driver.generation(0)), (worker(0, 3), 1));
        driver.say_ready(worker(0, 3));
        assert!(driver.fleet.is_ready());
        driver.pass(5.0);
        answer(&mut driver, worker(0, 2), Ok(()));
        assert_eq!(driver.current(0), worker(0, 2));
        assert!(driver.drains(worker(0, 3)));
        driver.say_ready(worker(1, 2));
        assert!(driver.is_done(job));
    }
}
