//! Pause and resume: the worker is asked, and its answer ends the job.

use std::time::Duration;

use crate::Fleet;
use crate::interface::{Action, Ask, AskError, JobId, Refusal, Report, Time, Worker};
use crate::state::job::Asking;
use crate::state::process::Stage;
use crate::state::slot::{Place, SlotId};

/// How long a worker may take to answer.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

impl Ask {
    /// As an infinitive: `pause`.
    fn verb(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reload { .. } => "reload",
        }
    }

    /// As a participle: `paused`.
    fn participle(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Reload { .. } => "reloaded",
        }
    }
}

impl Fleet {
    /// Asks the slot's worker to pause or to resume.
    pub(crate) fn ask(&mut self, job: JobId, id: SlotId, ask: Ask) -> Result<(), Refusal> {
        let name = self.name(id);
        let slot = self.slot_mut(id);
        if let Some(asking) = &mut slot.asking {
            if asking.ask != ask {
                let verb = asking.ask.verb();
                return Err(Refusal::failed(format!(
                    "{name} has not answered to {verb} yet"
                )));
            }
            asking.jobs.push(job);
            return Ok(());
        }
        let state = slot.state();
        let stage = slot
            .current()
            .map(|process| (process.worker, &process.stage));
        let worker = match (stage, ask) {
            (Some((worker, Stage::Ready(_))), Ask::Pause)
            | (Some((worker, Stage::Paused(_))), Ask::Resume) => worker,
            (Some((_, Stage::Paused(_))), Ask::Pause)
            | (Some((_, Stage::Ready(_))), Ask::Resume) => {
                let already = match ask {
                    Ask::Resume => "is not paused",
                    _ => "is paused already",
                };
                self.finish(job, Ok(format!("{name} {already}")));
                return Ok(());
            }
            _ => {
                let (state, verb) = (state.as_str(), ask.verb());
                return Err(Refusal::failed(format!(
                    "{name} is {state}: there is nothing to {verb}"
                )));
            }
        };
        let jobs = vec![job];
        slot.asking = Some(Asking { jobs, ask });
        let within = ANSWER_WITHIN;
        self.actions.push(Action::Ask {
            worker,
            ask,
            within,
        });
        Ok(())
    }

    /// A worker answered, or the asking came to nothing.
    pub(crate) fn answered(
        &mut self,
        now: Time,
        worker: Worker,
        ask: Ask,
        result: Result<(), AskError>,
    ) {
        match (self.find(worker), ask) {
            (Some((id, Place::Current)), Ask::Reload { generation }) => {
                self.answered_reload(now, id, generation, result);
            }
            (Some((id, Place::Current)), Ask::Pause | Ask::Resume) => {
                self.answered_operator(id, worker, ask, result);
            }
            (Some((id, Place::Successor)), Ask::Resume) => {
                self.answered_probation(now, id, result);
            }
            _ => {}
        }
    }

    fn answered_operator(
        &mut self,
        id: SlotId,
        worker: Worker,
        ask: Ask,
        result: Result<(), AskError>,
    ) {
        let name = self.name(id);
        let slot = self.slot_mut(id);
        let Some(asking) = slot.asking.take_if(|asking| asking.ask == ask) else {
            return;
        };
        let result = match result {
            Ok(()) => {
                self.obey(id, worker, ask);
                Ok(format!("{name} {}", ask.participle()))
            }
            Err(AskError::TimedOut) => Err(Refusal::TimedOut(format!(
                "{name} did not answer to {} within {ANSWER_WITHIN:?}",
                ask.verb()
            ))),
            Err(error) => Err(Refusal::failed(format!(
                "{name} was asked to {}: {error}",
                ask.verb()
            ))),
        };
        for job in asking.jobs {
            self.finish(job, result.clone());
        }
    }

    /// The worker does what it was asked.
    fn obey(&mut self, id: SlotId, worker: Worker, ask: Ask) {
        let Some(process) = self.slot_mut(id).current_mut() else {
            return;
        };
        let Some(serving) = process.serving().copied() else {
            return;
        };
        let paused = ask == Ask::Pause;
        process.stage = if paused {
            Stage::Paused(serving)
        } else {
            Stage::Ready(serving)
        };
        self.actions
            .push(Action::Report(Report::Paused { worker, paused }));
        if paused {
            // A successor would not be paused: the operator's wish goes first.
            self.drop_idle_recycle(id);
        }
        self.touch(id);
    }

    /// Ends the jobs that wait for an answer of a process that has left its
    /// seat.
    pub(crate) fn give_up_asking(&mut self, id: SlotId, why: &str) {
        if let Some(asking) = self.slot_mut(id).asking.take() {
            let why = format!("{}: {why}", self.name(id));
            for job in asking.jobs {
                self.finish(job, Err(Refusal::failed(why.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prefork_api::SlotState;

    use super::*;
    use crate::driver::{Driver, code, policy, worker};
    use crate::{Command, Event};

    fn pause(driver: &mut Driver) -> JobId {
        let (pool, slot) = ("web".to_owned(), 0);
        driver.command(Command::Pause { pool, slot })
    }

    fn resume(driver: &mut Driver) -> JobId {
        let (pool, slot) = ("web".to_owned(), 0);
        driver.command(Command::Resume { pool, slot })
    }

    fn answer(driver: &mut Driver, ask: Ask, result: Result<(), AskError>) {
        driver.step(Event::Answered {
            worker: worker(0, 1),
            ask,
            result,
        });
    }

    #[test]
    fn a_paused_worker_is_not_ready_until_it_is_resumed() {
        let mut driver = Driver::ready(policy("web", 1));
        let job = pause(&mut driver);
        assert_eq!(driver.result(job), None);
        answer(&mut driver, Ask::Pause, Ok(()));
        assert!(driver.is_done(job));
        assert_eq!(driver.state(0), SlotState::Paused);
        assert!(!driver.fleet.is_ready());
        let job = resume(&mut driver);
        answer(&mut driver, Ask::Resume, Ok(()));
        assert!(driver.is_done(job) && driver.fleet.is_ready());
    }

    #[test]
    fn what_is_so_already_is_done_at_once() {
        let mut driver = Driver::ready(policy("web", 1));
        let job = resume(&mut driver);
        assert!(driver.is_done(job));
        pause(&mut driver);
        answer(&mut driver, Ask::Pause, Ok(()));
        let job = pause(&mut driver);
        assert!(driver.is_done(job));
    }

    #[test]
    fn the_same_question_is_asked_once_and_the_opposite_is_refused() {
        let mut driver = Driver::ready(policy("web", 1));
        let jobs = [pause(&mut driver), pause(&mut driver)];
        let opposite = resume(&mut driver);
        let why = driver.failure(opposite).0;
        assert_eq!(why, "web/0 has not answered to pause yet");
        let asked = |action: &&Action| matches!(action, Action::Ask { .. });
        assert_eq!(driver.log.iter().filter(asked).count(), 1);
        answer(&mut driver, Ask::Pause, Ok(()));
        assert!(jobs.iter().all(|job| driver.is_done(*job)));
    }

    #[test]
    fn silence_and_refusal_are_told_apart() {
        let mut driver = Driver::ready(policy("web", 1));
        let job = pause(&mut driver);
        answer(&mut driver, Ask::Pause, Err(AskError::TimedOut));
        assert!(
            matches!(driver.result(job), Some(Err(Refusal::TimedOut(why)))
            if why == "web/0 did not answer to pause within 5s")
        );
        let job = pause(&mut driver);
        let no = AskError::Refused("I am the last one".to_owned());
        answer(&mut driver, Ask::Pause, Err(no));
        let why = driver.failure(job).0;
        assert_eq!(
            why,
            "web/0 was asked to pause: it refused: I am the last one"
        );
        assert_eq!(driver.state(0), SlotState::Ready);
    }

    #[test]
    fn a_worker_that_dies_before_it_answers_ends_the_job_and_its_heir_is_not_paused() {
        let mut driver = Driver::ready(policy("web", 1));
        let job = pause(&mut driver);
        driver.exit(worker(0, 1), code(1));
        assert!(driver.failure(job).0.contains("left before it answered"));
        driver.say_ready(worker(0, 2));
        answer(&mut driver, Ask::Pause, Ok(()));
        assert_eq!(driver.state(0), SlotState::Ready);
    }

    #[test]
    fn a_paused_worker_still_has_to_report() {
        let mut driver = Driver::ready(policy("web", 1));
        pause(&mut driver);
        answer(&mut driver, Ask::Pause, Ok(()));
        driver.pass(30.0);
        assert_eq!(driver.state(0), SlotState::Paused);
        driver.pass_but(10.0, &[worker(0, 1)]);
        assert!(driver.has_done(&Action::Kill {
            worker: worker(0, 1)
        }));
    }

    #[test]
    fn what_is_not_ready_cannot_be_paused() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.exit(worker(0, 1), code(1));
        let job = pause(&mut driver);
        let why = driver.failure(job).0;
        assert_eq!(why, "web/0 is starting: there is nothing to pause");
    }
}
