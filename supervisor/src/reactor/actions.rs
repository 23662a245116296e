//! Carrying out what the fleet decides.

use nix::sys::signal::Signal;
use prefork_proto::control::{ApiError, ErrorCode, JobLine, JobResult};
use prefork_proto::message::NEEDS_RESTART;
use tokio::sync::oneshot;
use tracing::error;

use super::births::{self, BirthError};
use super::conversation::CallError;
use super::grip::{Call, Order};
use super::{Outcome, Reactor, Spawn};
use crate::fleet::{Action, Ask, AskError, Event, JobId, Refusal, Worker};
use std::time::Duration;

impl Reactor {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Spawn {
                worker,
                generation,
                paused,
            } => {
                self.name(worker);
                self.spawns.push_back(Spawn {
                    worker,
                    generation,
                    paused,
                });
            }
            Action::Drain { worker, within } => {
                let sweep = self.is_last_to_accept(worker);
                self.order(worker, Order::Drain { within, sweep });
            }
            Action::Ask {
                worker,
                ask,
                within,
            } => self.ask(worker, ask, within),
            Action::Stop { worker } => self.order(worker, Order::Stop),
            Action::Abort { worker } => self.order(worker, Order::Signal(Signal::SIGABRT)),
            Action::Kill { worker } => self.order(worker, Order::Signal(Signal::SIGKILL)),
            Action::Report(report) => self.report(report),
            Action::Progress {
                job,
                pool,
                slot,
                message,
            } => self.job_line(
                job,
                JobLine::Progress {
                    pool,
                    slot,
                    message,
                },
            ),
            Action::Finish { job, result } => self.finish(job, result),
            Action::Reloaded {
                generation,
                committed,
                why,
            } => self.reloaded(generation, committed, &why),
            Action::BootFailed {
                pool,
                slot,
                why,
                exit,
            } => {
                let slot = format!("{pool}/{slot}");
                self.outcome = Some(Outcome::BootFailed { slot, why, exit });
            }
            Action::Ended => self.ended = true,
        }
    }

    fn order(&self, worker: Worker, order: Order) {
        if let Some(grip) = self.processes.get(&worker) {
            grip.order(order);
        }
    }

    /// Asks in a task of its own; the answer comes back as an event.
    fn ask(&self, worker: Worker, ask: Ask, within: Duration) {
        let call = match ask {
            Ask::Pause => Call::Pause,
            Ask::Resume => Call::Resume,
            Ask::Reload { generation } => {
                let edition = self.editions.of(&self.pool_name(worker), generation);
                let app = edition.map(|edition| edition.config.app.clone());
                Call::Reload {
                    app: app.unwrap_or_default(),
                }
            }
        };
        let (answer, answered) = oneshot::channel();
        self.order(worker, Order::Call(call, answer));
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let result = match tokio::time::timeout(within, answered).await {
                Ok(Ok(Ok(_))) => Ok(()),
                Ok(Ok(Err(CallError::Refused { code, why }))) if code == NEEDS_RESTART => {
                    Err(AskError::NeedsRestart(why))
                }
                Ok(Ok(Err(CallError::Refused { why, .. }))) => Err(AskError::Refused(why)),
                Ok(Ok(Err(CallError::Unreachable(why)))) => Err(AskError::Unreachable(why)),
                Ok(Err(_)) => Err(AskError::Unreachable("it has gone".to_owned())),
                Err(_) => Err(AskError::TimedOut),
            };
            let answered = Event::Answered {
                worker,
                ask,
                result,
            };
            // The reactor drops its end only when it ends itself.
            let _ = events.send(answered).await;
        });
    }

    /// Forks the next process that the fleet has asked for.
    pub(super) fn spawn_next(&mut self) {
        let Some(spawn) = self.spawns.pop_front() else {
            return;
        };
        let worker = spawn.worker;
        let event = match self.try_spawn(spawn) {
            Ok(pid) => Event::Spawned { worker, pid },
            Err(error) => {
                error!(slot = %self.slot_name(worker), "cannot start a worker: {error}");
                Event::SpawnFailed {
                    worker,
                    error: error.to_string(),
                }
            }
        };
        self.feed(event);
    }

    fn try_spawn(&mut self, spawn: Spawn) -> Result<i32, BirthError> {
        if !self.reserve.is_full() {
            return Err(BirthError::descriptors());
        }
        let metrics = self.slot_metrics(spawn.worker);
        let pool = self.pool_name(spawn.worker);
        let Some(edition) = self.editions.of(&pool, spawn.generation) else {
            return Err(BirthError::NoEdition);
        };
        let rejoin = self.keep.as_ref().map(|keep| keep.door.offer());
        let grip = births::spawn(edition, spawn, metrics, rejoin, self.events.clone())?;
        let pid = grip.pid;
        self.hold(spawn.worker, grip);
        Ok(pid)
    }

    pub(super) fn job_line(&self, job: JobId, line: JobLine) {
        let askers = self.jobs.get(&job).map(|job| &job.askers);
        for asker in askers.into_iter().flatten() {
            // A client that has left doesn't cancel its job.
            let _ = asker.send(line.clone());
        }
    }

    fn finish(&mut self, job: JobId, result: Result<String, Refusal>) {
        let result = match result {
            Ok(message) => JobResult {
                ok: true,
                message,
                generation: Some(self.fleet.generation()),
                error: None,
            },
            Err(refusal) => JobResult {
                ok: false,
                message: String::new(),
                generation: None,
                error: Some(api_error(refusal)),
            },
        };
        self.job_line(job, JobLine::Result(result));
        self.jobs.remove(&job);
    }
}

fn api_error(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::NotFound(message) => ApiError::new(ErrorCode::NotFound, message),
        Refusal::TimedOut(message) => ApiError::new(ErrorCode::TimedOut, message),
        Refusal::Failed { message, stderr } => ApiError {
            code: ErrorCode::Failed,
            message,
            stderr,
        },
    }
}
