//! Orders: a body becomes a request to the reactor, and what the reactor says
//! about it becomes the lines of the answer.

use std::fmt::Display;
use std::path::PathBuf;

use bytes::Bytes;
use prefork_api::{
    ApiError, ErrorCode, JobLine, JobResult, LogLevelBody, ReloadBody, RollbackBody, ScaleBody,
    StopBody, TellBody, UpgradeBody,
};
use prefork_fleet::Command;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use super::answer::{Answer, Rejection, json_line, lines};
use super::ask;
use super::route::Order;
use crate::handle::{Handle, Request};

/// Lines that wait for a slow reader before the relay waits with them.
const AHEAD: usize = 256;

/// The longest time that a worker may be given to answer a `tell`.
const LONGEST_TELL_MS: u64 = 3_600_000;

/// The body of an order that needs none; `{}` is as good.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoBody {}

/// An order with its body: complete, ready to be carried out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Job {
    /// For the fleet.
    Fleet(Command),
    /// For whoever reads the configuration.
    Reload(ReloadBody),
    /// For whoever keeps what was in force before.
    Rollback(RollbackBody),
    /// For whoever runs the program.
    Upgrade { program: Option<PathBuf> },
    /// For the application.
    Tell {
        pool: String,
        slot: Option<u32>,
        body: TellBody,
    },
    /// For the log.
    LogLevel(String),
    /// For the log.
    ReopenLogs,
}

impl Job {
    /// Reads an order's body.
    pub(super) fn parse(order: Order, body: &[u8]) -> Result<Self, Rejection> {
        let name = order.name();
        let job = match order {
            Order::Scale { pool } => {
                let example = r#"{"workers": 4}, {"by": -1} or {"file": true}"#;
                Self::Fleet(match required(name, body, example)? {
                    ScaleBody {
                        workers: Some(workers),
                        by: None,
                        file: false,
                    } => Command::Scale { pool, workers },
                    ScaleBody {
                        workers: None,
                        by: Some(by),
                        file: false,
                    } => {
                        let pool = Some(pool);
                        Command::ScaleBy { pool, by }
                    }
                    ScaleBody {
                        workers: None,
                        by: None,
                        file: true,
                    } => Command::ScaleAsConfigured { pool },
                    body => {
                        let problem = match body == ScaleBody::default() {
                            false => "`workers`, `by` and `file` exclude each other",
                            true => "missing field `workers`",
                        };
                        return Err(unexpected(name, &problem, example));
                    }
                })
            }
            Order::Tell { pool, slot } => {
                let example = r#"{"command": "cache.flush", "args": {}, "timeout_ms": 10000}"#;
                let body: TellBody = required(name, body, example)?;
                if !(1..=LONGEST_TELL_MS).contains(&body.timeout_ms) {
                    return Err(Rejection::new(
                        ErrorCode::Usage,
                        format!("tell: timeout_ms is from 1 to {LONGEST_TELL_MS}"),
                    ));
                }
                Self::Tell { pool, slot, body }
            }
            Order::LogLevel => {
                let LogLevelBody { level } = required(name, body, r#"{"level": "debug"}"#)?;
                Self::LogLevel(level)
            }
            Order::Reload => {
                let example =
                    r#"{"pools": ["web"], "force": true, "canary": true, "dry_run": true}"#;
                Self::Reload(optional(name, body, example)?)
            }
            Order::Rollback => {
                Self::Rollback(optional(name, body, r#"{"to": 3, "dry_run": true}"#)?)
            }
            Order::Upgrade => {
                let example = r#"{"program": "/usr/local/bin/prefork"}"#;
                let UpgradeBody { program } = optional(name, body, example)?;
                if program.as_ref().is_some_and(|path| !path.is_absolute()) {
                    return Err(Rejection::new(
                        ErrorCode::Usage,
                        "upgrade: program is an absolute path",
                    ));
                }
                Self::Upgrade { program }
            }
            Order::Stop => {
                let StopBody { now } = optional(name, body, r#"{"now": true}"#)?;
                Self::Fleet(Command::Stop { now })
            }
            Order::Promote => bodiless(name, body, Command::Promote)?,
            Order::Abort => bodiless(name, body, Command::Abort)?,
            Order::Restart { pool, slot } => bodiless(name, body, Command::Restart { pool, slot })?,
            Order::Pause { pool, slot } => bodiless(name, body, Command::Pause { pool, slot })?,
            Order::Resume { pool, slot } => bodiless(name, body, Command::Resume { pool, slot })?,
            Order::Drain { pool, slot } => bodiless(name, body, Command::Drain { pool, slot })?,
            Order::Kill { pool, slot } => bodiless(name, body, Command::Kill { pool, slot })?,
            Order::ReopenLogs => {
                let NoBody {} = optional(name, body, "no body")?;
                Self::ReopenLogs
            }
        };
        Ok(job)
    }

    /// What the audit adds to the order's name and target. Not a `tell`'s
    /// arguments: they may be secret.
    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Fleet(Command::Scale { workers, .. }) => Some(workers.to_string()),
            Self::Fleet(Command::ScaleAsConfigured { .. }) => Some("as configured".to_owned()),
            Self::Fleet(Command::ScaleBy { by, .. }) => Some(format!("{by:+}")),
            Self::Fleet(Command::Stop { now: true }) => Some("now".to_owned()),
            Self::Reload(body) => detail_of_reload(body),
            Self::Rollback(body) => detail_of_rollback(body),
            Self::Tell { body, .. } => Some(body.command.escape_debug().to_string()),
            Self::LogLevel(level) => Some(level.escape_debug().to_string()),
            Self::Upgrade { program } => {
                let program = program.as_ref()?;
                Some(program.to_string_lossy().escape_debug().to_string())
            }
            Self::Fleet(_) | Self::ReopenLogs => None,
        }
    }

    /// Has it done; the answer begins with the job's first line. `name` is
    /// what its failure counts as.
    pub(super) async fn run(
        self,
        handle: &Handle,
        name: &'static str,
    ) -> Result<Answer, Rejection> {
        let (sender, said) = mpsc::unbounded_channel();
        let request = match self {
            Self::Fleet(command) => Request::Command {
                command,
                lines: sender,
            },
            Self::Reload(ReloadBody {
                dry_run,
                pools,
                force,
                canary,
            }) => Request::Reload {
                pools,
                force,
                canary,
                dry_run,
                lines: sender,
            },
            Self::Rollback(RollbackBody { dry_run, to }) => Request::Rollback {
                to,
                dry_run,
                lines: sender,
            },
            Self::Upgrade { program } => Request::Upgrade {
                program,
                lines: sender,
            },
            Self::Tell { pool, slot, body } => Request::Tell {
                pool,
                slot,
                body,
                lines: sender,
            },
            Self::LogLevel(level) => {
                let message = format!("the log level is {level}");
                ask::ask(handle, |reply| Request::LogLevel { level, reply }).await??;
                return Ok(done(message));
            }
            Self::ReopenLogs => {
                ask::ask(handle, Request::ReopenLogs).await??;
                return Ok(done("the log files are open again".to_owned()));
            }
        };
        handle.0.send(request).await.map_err(|_| ask::ending())?;
        relayed(handle.clone(), name, said).await
    }
}

/// Which pools a reload is about, and how it is done, as far as it is not as ever.
fn detail_of_reload(body: &ReloadBody) -> Option<String> {
    let pools = body
        .pools
        .iter()
        .map(|pool| pool.escape_debug().to_string());
    let flags = [
        (body.force, "force"),
        (body.canary, "canary"),
        (body.dry_run, "dry-run"),
    ];
    let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
    let words: Vec<String> = pools
        .chain(flags.map(|(_, word)| word.to_owned()))
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Where a rollback goes to, and how, as far as it is not as ever.
fn detail_of_rollback(body: &RollbackBody) -> Option<String> {
    let to = body.to.map(|to| format!("to {to}"));
    let dry_run = body.dry_run.then(|| "dry-run".to_owned());
    let words: Vec<String> = to.into_iter().chain(dry_run).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The answer of a job that is done at once.
fn done(message: String) -> Answer {
    let line = JobLine::Result(JobResult {
        ok: true,
        message,
        generation: None,
        error: None,
    });
    let (out, body) = mpsc::channel(1);
    // There is room for one line, and the receiver is at hand.
    let _ = out.try_send(json_line(&line));
    lines(body)
}

/// Relays a job's lines. The relay lives as long as the job: the client may
/// leave, the end still counts.
async fn relayed(
    handle: Handle,
    name: &'static str,
    said: mpsc::UnboundedReceiver<JobLine>,
) -> Result<Answer, Rejection> {
    let (first_out, first) = oneshot::channel();
    let (out, body) = mpsc::channel(AHEAD);
    spawn_local(relay(handle, name, said, first_out, out));
    match first.await.map_err(|_| ask::ending())? {
        // Nothing was begun: HTTP can say so by its status.
        JobLine::Result(JobResult {
            ok: false,
            error: Some(error),
            ..
        }) => Err(error.into()),
        _ => Ok(lines(body)),
    }
}

/// Passes on every line until the result: the first one twice, since the
/// answer's status depends on it.
async fn relay(
    handle: Handle,
    name: &'static str,
    mut said: mpsc::UnboundedReceiver<JobLine>,
    first: oneshot::Sender<JobLine>,
    out: mpsc::Sender<Bytes>,
) {
    let mut first = Some(first);
    loop {
        let line = said.recv().await.unwrap_or_else(|| JobLine::Result(lost()));
        let failed = matches!(&line, JobLine::Result(result) if !result.ok);
        if failed {
            // Counted before it is told, so that whoever was told can read it.
            let _ = handle.0.send(Request::Failed { command: name }).await;
        }
        // A client that has gone doesn't cancel the job.
        let _ = out.send(json_line(&line)).await;
        let ended = matches!(line, JobLine::Result(_));
        if let Some(first) = first.take() {
            let _ = first.send(line);
        }
        if ended {
            return;
        }
    }
}

/// The result of a job whose supervisor went away.
fn lost() -> JobResult {
    JobResult {
        ok: false,
        message: String::new(),
        generation: None,
        error: Some(ApiError::new(
            ErrorCode::Failed,
            "the supervisor ended before the job did",
        )),
    }
}

/// A command to the fleet whose order says everything in its path.
fn bodiless(name: &str, body: &[u8], command: Command) -> Result<Job, Rejection> {
    let NoBody {} = optional(name, body, "no body")?;
    Ok(Job::Fleet(command))
}

fn required<T: DeserializeOwned>(name: &str, body: &[u8], example: &str) -> Result<T, Rejection> {
    let refuse = |problem: &dyn Display| unexpected(name, problem, example);
    // An array would be taken for the fields in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(refuse(&"an array is no object"));
    }
    serde_json::from_slice(body).map_err(|error| refuse(&error))
}

fn unexpected(name: &str, problem: &dyn Display, example: &str) -> Rejection {
    Rejection::new(
        ErrorCode::Usage,
        format!("the body of {name}: {problem}; expected {example}"),
    )
}

fn optional<T: DeserializeOwned + Default>(
    name: &str,
    body: &[u8],
    example: &str,
) -> Result<T, Rejection> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    required(name, body, example)
}
