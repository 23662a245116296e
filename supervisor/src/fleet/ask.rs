//! Pause and resume: the worker is asked, and its answer ends the job.

use std::time::Duration;

use super::Fleet;
use super::event::{Action, Ask, AskError, JobId, Refusal, Report, Worker};
use super::jobs::Asking;
use super::process::Stage;
use super::slot::{Place, SlotId};

/// How long a worker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

impl Ask {
    /// As an infinitive: `pause`.
    fn verb(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// As a participle: `paused`.
    fn participle(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "resumed",
        }
    }
}

impl Fleet {
    /// Asks the slot's worker to pause or to resume.
    pub(super) fn ask(&mut self, job: JobId, id: SlotId, ask: Ask) -> Result<(), Refusal> {
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
                let deed = ask.participle();
                self.finish(job, Ok(format!("{name} is {deed} already")));
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
    pub(super) fn answered(&mut self, worker: Worker, ask: Ask, result: Result<(), AskError>) {
        let Some((id, Place::Current)) = self.find(worker) else {
            return;
        };
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
    pub(super) fn give_up_asking(&mut self, id: SlotId, why: &str) {
        if let Some(asking) = self.slot_mut(id).asking.take() {
            let why = format!("{}: {why}", self.name(id));
            for job in asking.jobs {
                self.finish(job, Err(Refusal::failed(why.clone())));
            }
        }
    }
}
