//! Requests from the control socket and the admin address.

use std::rc::Rc;
use std::time::{Duration, Instant};

use prefork_api::{ApiError, ErrorCode, JobLine, JobResult, TellBody, TellOutcome, TellReply};
use prefork_fleet::Command;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::info;

use crate::handle::{Peer, Request};
use crate::log::Memory;
use crate::reactor::Reactor;
use crate::reactor::observe::events::About;
use crate::reactor::reload::scope::Scope;
use crate::reactor::worker_process::handle::{Call, Order};
use crate::reactor::worker_process::protocol::{Answer, CallError};

impl Reactor {
    pub(super) fn answer(&mut self, request: Request) {
        // Who asked may have left: then the answer goes nowhere.
        match request {
            Request::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Request::Describe { pool, slot, reply } => {
                let _ = reply.send(self.describe(&pool, slot));
            }
            Request::Requests { wanted, reply } => {
                let _ = reply.send(self.running_requests(&wanted));
            }
            Request::Workers(reply) => {
                let _ = reply.send(self.workers());
            }
            Request::Traffic(reply) => {
                let _ = reply.send(self.traffic());
            }
            Request::Overview(reply) => {
                let _ = reply.send(self.overview());
            }
            Request::Channels(reply) => {
                let _ = reply.send(self.channels());
            }
            Request::Metrics(reply) => {
                let _ = reply.send(self.exposition());
            }
            Request::Events { since, reply } => {
                let _ = reply.send(self.journal.read(since));
            }
            Request::Log { pool, slot, reply } => {
                let _ = reply.send(self.log_of(pool.as_deref(), slot));
            }
            Request::Command {
                command: Command::Stop { now },
                lines,
            } => self.order_stop(now, Some(lines)),
            Request::Command { command, lines } => self.command(command, vec![lines]),
            Request::Reload {
                pools,
                force,
                canary,
                dry_run,
                lines,
            } => match (Scope::of(pools, force).judged(canary), dry_run) {
                (scope, true) => self.rehearse(scope, lines),
                (scope, false) => self.reload(scope, Some(lines)),
            },
            Request::Rollback {
                to,
                dry_run: true,
                lines,
            } => self.rehearse_rollback(to, &lines),
            Request::Rollback { to, lines, .. } => self.roll_back(to, lines),
            Request::Upgrade { program, lines } => self.upgrade(program, Some(lines)),
            Request::Tell {
                pool,
                slot,
                body,
                lines,
            } => self.tell_workers(&pool, slot, body, lines),
            Request::LogLevel { level, reply } => {
                let changed = self.log.set_level(&level);
                let _ = reply.send(changed.map_err(|why| ApiError::new(ErrorCode::Usage, why)));
            }
            Request::ReopenLogs(reply) => {
                let reopened = self.reopen_logs();
                tokio::task::spawn_local(async move {
                    let failed = |why| ApiError::new(ErrorCode::Failed, why);
                    let done = match reopened {
                        Ok(reopened) => {
                            reopened.await;
                            Ok(())
                        }
                        Err(why) => Err(failed(why)),
                    };
                    let _ = reply.send(done);
                });
            }
            Request::Audit {
                peer,
                command,
                detail,
                allowed,
            } => self.audit(peer, command, &detail, allowed),
            Request::Failed { command } => self.metrics.supervisor().command_failed(command),
        }
    }

    /// The last of the log for whoever wants to know of this pool or slot: one that is
    /// gone may still be told of there.
    fn log_of(&self, pool: Option<&str>, slot: Option<u32>) -> Result<Memory, ApiError> {
        let memory = self.log.memory();
        if let Some(pool) = pool
            && !memory.knows(pool, slot)
        {
            self.slots_named(pool, slot)?;
        }
        Ok(memory)
    }

    fn audit(&mut self, peer: Peer, command: &'static str, detail: &str, allowed: bool) {
        self.metrics.supervisor().command(command);
        let verdict = if allowed { "allowed" } else { "refused" };
        let message = format!(
            "{detail}, asked for by uid {} pid {}: {verdict}",
            peer.uid, peer.pid
        );
        info!(target: "audit", "audit: {message}");
        self.journal.note("command", About::default(), message);
    }

    /// Tells each worker and gathers the answers in a task of its own.
    fn tell_workers(
        &self,
        pool: &str,
        slot: Option<u32>,
        body: TellBody,
        lines: mpsc::UnboundedSender<JobLine>,
    ) {
        let slots = match self.slots_named(pool, slot) {
            Ok(slots) => slots,
            Err(error) => {
                let _ = lines.send(failed(error));
                return;
            }
        };
        let within = Duration::from_millis(body.timeout_ms);
        let mut asked = JoinSet::new();
        for slot in slots {
            let (answer, answered) = oneshot::channel();
            let grip = self.current(pool, slot);
            let pid = grip.map(|grip| grip.pid);
            if let Some(grip) = grip {
                let call = Call::Tell {
                    command: body.command.clone(),
                    args: body.args.clone(),
                };
                grip.order(Order::Call(call, answer));
            }
            asked.spawn_local(one_reply(pool.to_owned(), slot, pid, answered, within));
        }
        let in_progress = Rc::clone(&self.upgrades.tells);
        tokio::task::spawn_local(async move {
            gather(asked, lines).await;
            drop(in_progress);
        });
    }
}

fn failed(error: ApiError) -> JobLine {
    JobLine::Result(JobResult {
        ok: false,
        message: String::new(),
        generation: None,
        error: Some(error),
    })
}

async fn one_reply(
    pool: String,
    slot: u32,
    pid: Option<i32>,
    answered: oneshot::Receiver<Answer>,
    within: Duration,
) -> TellReply {
    let asked = Instant::now();
    let (outcome, data, error) = match tokio::time::timeout(within, answered).await {
        Ok(Ok(Ok(data))) => (TellOutcome::Ok, data, None),
        Ok(Ok(Err(CallError::Refused { why, .. }))) => {
            (TellOutcome::Failed, Value::Null, Some(why))
        }
        Ok(Ok(Err(CallError::Unreachable(why)))) => (TellOutcome::Gone, Value::Null, Some(why)),
        Ok(Err(_)) => {
            let why = "there is no worker, or it left before it answered";
            (TellOutcome::Gone, Value::Null, Some(why.to_owned()))
        }
        Err(_) => {
            let why = format!("no answer within {within:?}");
            (TellOutcome::Timeout, Value::Null, Some(why))
        }
    };
    TellReply {
        pool,
        slot,
        pid,
        outcome,
        data,
        error,
        seconds: asked.elapsed().as_secs_f64(),
    }
}

/// Sends each answer as it comes and sums them up.
async fn gather(mut asked: JoinSet<TellReply>, lines: mpsc::UnboundedSender<JobLine>) {
    let (mut ok, mut silent, mut refused) = (0, 0, 0);
    while let Some(reply) = asked.join_next().await {
        let Ok(reply) = reply else { continue };
        match reply.outcome {
            TellOutcome::Ok => ok += 1,
            TellOutcome::Timeout => silent += 1,
            TellOutcome::Failed | TellOutcome::Gone => refused += 1,
        }
        let _ = lines.send(JobLine::Reply(reply));
    }
    let total = ok + silent + refused;
    let summary = format!("{ok} of {total} workers did it");
    let error = if silent > 0 {
        Some(ErrorCode::TimedOut)
    } else if refused > 0 {
        Some(ErrorCode::Failed)
    } else {
        None
    };
    let result = match error {
        None => JobLine::Result(JobResult {
            ok: true,
            message: summary,
            generation: None,
            error: None,
        }),
        Some(code) => {
            let message = format!("{summary}; {silent} did not answer, {refused} did not do it");
            failed(ApiError::new(code, message))
        }
    };
    let _ = lines.send(result);
}
