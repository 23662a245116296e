//! Carrying out what the fleet decides.

use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_api::{ApiError, ErrorCode, ExitReason, JobLine, JobResult};
use prefork_fleet::{Action, Ask, AskError, BootFailure, Event, JobId, Refusal, Worker};
use prefork_proto::adapter::UpstreamAddress;
use prefork_proto::message::NEEDS_RESTART;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::{Outcome, Reactor, Spawn};
use crate::reactor::generation::revision::{Edition, PoolError};
use crate::reactor::observe::starvation::Look;
use crate::reactor::worker_process::handle::{Call, Order};
use crate::reactor::worker_process::private_address::{self, Allotment, UpstreamError};
use crate::reactor::worker_process::protocol::CallError;
use crate::reactor::worker_process::spawn::{self, BirthError, Told};

/// With how many processes a birth is written down at once. With more of them that
/// takes longer, and waits as any other change does.
const FEW: usize = 64;

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
                self.trees.leaves(worker);
                self.drain(worker, within);
            }
            Action::Ask {
                worker,
                ask,
                within,
            } => self.ask(worker, ask, within),
            Action::Stop { worker } => self.stop(worker),
            Action::Abort { worker } => self.end_by(worker, Signal::SIGABRT),
            Action::Kill { worker } => self.end_by(worker, Signal::SIGKILL),
            Action::Count { pool } => self.counts.push_back(pool),
            Action::Look { worker, first } => self.looks.push_back(Look { worker, first }),
            Action::Report(report) => self.report(report),
            Action::Progress {
                job,
                pool,
                slot,
                message,
            } => {
                let (done, all) = self.fleet.progress_of(job).unzip();
                let step = JobLine::Progress {
                    pool,
                    slot,
                    message,
                    done,
                    all,
                };
                self.job_line(job, step);
            }
            Action::Finish { job, result } => self.finish(job, result),
            Action::Reloaded {
                generation,
                committed,
                why,
            } => self.reloaded(generation, committed, &why),
            Action::RollbackEnded => self.rollback_ended(),
            Action::BootFailed {
                pool,
                slot,
                why,
                exit,
                others,
            } => {
                let last = BootFailure {
                    pool,
                    slot,
                    why,
                    exit,
                };
                let failures = others.into_iter().chain([last]).collect();
                self.outcome = Some(Outcome::BootFailed(failures));
            }
            Action::Ended => self.ended = true,
        }
    }

    /// Has a process leave. The fleet may not have heard yet that it is ready.
    fn stop(&mut self, worker: Worker) {
        let process = self.fleet.process(worker);
        let is_ready = process.is_none_or(|process| process.ready_since().is_some());
        let policy = self.started_from(worker).map(|it| &it.config.policy);
        let order = match policy {
            Some(policy) if !is_ready => Order::Dismiss {
                // A little less than after which it is killed.
                within: policy.kill_timeout.mul_f64(0.9),
                sweep: self.is_last_to_accept(worker),
            },
            _ => Order::Stop,
        };
        self.send_away(worker, order);
    }

    /// Has a signal end a process. Where that is because nothing comes of it, where it is
    /// is looked at first.
    fn end_by(&mut self, worker: Worker, signal: Signal) {
        let leaves_for = self.fleet.process(worker).and_then(|it| it.leaves_for());
        let hangs = matches!(
            leaves_for,
            Some(ExitReason::HeartbeatTimeout | ExitReason::BootTimeout | ExitReason::DrainTimeout)
        );
        if hangs {
            self.order(worker, Order::Look);
        }
        self.send_away(worker, Order::Signal(signal));
    }

    fn send_away(&mut self, worker: Worker, order: Order) {
        self.trees.leaves(worker);
        self.order(worker, order);
    }

    fn order(&self, worker: Worker, order: Order) {
        if let Some(grip) = self.processes.get(&worker) {
            grip.order(order);
        }
    }

    /// Asks in a task of its own; the answer comes back as an event.
    fn ask(&self, worker: Worker, ask: Ask, within: Duration) {
        let calls = match ask {
            Ask::Pause => Ok(vec![Call::Pause]),
            Ask::Resume => Ok(vec![Call::Resume]),
            Ask::Reload { generation } => self.calls_for(worker, generation),
        };
        let grip = self.processes.get(&worker);
        let orders = grip.map(|grip| grip.orders.clone());
        let events = self.ties.events.clone();
        tokio::task::spawn_local(async move {
            let asked = async {
                let calls = calls.map_err(|error| AskError::Unreachable(error.to_string()))?;
                one_after_the_other(orders.as_ref(), calls).await
            };
            let result = tokio::time::timeout(within, asked).await;
            let result = result.unwrap_or(Err(AskError::TimedOut));
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
        let spawned = self.try_spawn(spawn);
        let is_there = spawned.is_ok();
        let event = match spawned {
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
        // Before anything is heard of it, so that nobody is served by a worker that
        // the next supervisor does not know. It becomes its program meanwhile.
        if is_there && self.spawns.is_empty() && self.processes.len() <= FEW {
            self.write_before_order();
        }
    }

    fn try_spawn(&mut self, spawn: Spawn) -> Result<i32, BirthError> {
        if !self.reserve.is_full() {
            return Err(BirthError::descriptors());
        }
        let metrics = self.slot_metrics(spawn.worker);
        let pool = self.pool_name(spawn.worker);
        self.catch_up(&pool, spawn.generation)?;
        let Some(edition) = self.editions.of(&pool, spawn.generation) else {
            return Err(BirthError::NoEdition);
        };
        let told = Told {
            rejoin: self.keep.as_ref().map(|keep| keep.door.offer()),
            tickets: self.tickets_of(edition),
            requests: self.config_of(spawn.generation).requests,
        };
        let ties = self.ties.clone();
        let allotment = self.allot(edition, spawn.worker)?;
        let grip = spawn::spawn(edition, spawn, allotment, metrics, told, ties)?;
        let pid = grip.pid;
        self.hold(spawn.worker, grip);
        Ok(pid)
    }

    /// What is the process's own where its program does not speak the channel.
    fn allot(&self, edition: &Edition, worker: Worker) -> Result<Option<Allotment>, UpstreamError> {
        let Some(adapter) = &edition.config.adapter else {
            return Ok(None);
        };
        let taken = self.processes.values().map(|grip| grip.upstream.as_ref());
        let taken = taken.filter_map(|it| match it {
            Some(UpstreamAddress::Tcp(address)) => Some(*address),
            _ => None,
        });
        let pools = self.editions.newest().map(|edition| &edition.config);
        let front = private_address::front_of(pools, &edition.name);
        let taken = taken.collect();
        self.upstreams
            .allot(&edition.config, adapter.socket, worker, front, &taken)
            .map(Some)
    }

    /// Sets up what could not be before.
    fn catch_up(&mut self, pool: &str, generation: u64) -> Result<(), PoolError> {
        let Some(config) = self.editions.deferred(pool, generation).cloned() else {
            return Ok(());
        };
        let bound = self.editions.bound().into_iter();
        let bound: Vec<_> = bound.map(|(_, sockets)| sockets).collect();
        let edition = Edition::set_up(config, &self.options.directory(), self.nofile, &bound)?;
        edition.announce();
        self.editions.add(generation, vec![Rc::new(edition)]);
        self.keep_listeners();
        Ok(())
    }

    pub(super) fn job_line(&self, job: JobId, line: JobLine) {
        let askers = self.jobs.get(&job).map(|job| &job.askers);
        for asker in askers.into_iter().flatten() {
            // A client that has left doesn't cancel its job.
            let _ = asker.send(line.clone());
        }
    }

    /// What whoever has workers started may have meant and did not get.
    fn left_on_disk(&self, job: JobId) -> Option<String> {
        let pool = self.jobs.get(&job)?.starts.as_ref()?;
        let edition = self.editions.of(pool, self.fleet.generation())?;
        edition.on_disk()
    }

    fn finish(&mut self, job: JobId, result: Result<String, Refusal>) {
        let result = match result {
            Ok(message) => JobResult {
                ok: true,
                message: match self.left_on_disk(job) {
                    Some(left) => format!("{message}; {left}"),
                    None => message,
                },
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
        if let Some(result) = self.hold_back(job, result) {
            self.job_line(job, JobLine::Result(result));
            self.jobs.remove(&job);
        }
    }
}

/// Makes calls until one fails. Only where that is the first, and the worker says
/// so itself, it is certain that nothing has changed.
async fn one_after_the_other(
    orders: Option<&mpsc::UnboundedSender<Order>>,
    calls: Vec<Call>,
) -> Result<(), AskError> {
    for (done, call) in calls.into_iter().enumerate() {
        let (answer, answered) = oneshot::channel();
        if let Some(orders) = orders {
            // A process that has ended answers nothing.
            let _ = orders.send(Order::Call(call, answer));
        } else {
            drop(answer);
        }
        match answered.await {
            Ok(Ok(_)) => {}
            Ok(Err(CallError::Refused { code, why })) if done == 0 => {
                return Err(match code.as_str() {
                    NEEDS_RESTART => AskError::NeedsRestart(why),
                    _ => AskError::Refused(why),
                });
            }
            Ok(Err(CallError::Refused { why, .. })) => {
                let why = format!("it took a part of them and refused the rest: {why}");
                return Err(AskError::Unreachable(why));
            }
            Ok(Err(CallError::Unreachable(why))) => return Err(AskError::Unreachable(why)),
            Err(_) => return Err(AskError::Unreachable("it has gone".to_owned())),
        }
    }
    Ok(())
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
