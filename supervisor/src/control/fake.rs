//! A reactor that only pretends, behind a real control socket: what the tests
//! of both of its ends talk to.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use prefork_api::{
    ApiError, Channels, ErrorCode, Event, JobLine, JobResult, PoolStatus, Requests, SCHEMA,
    SlotState, Status, TellOutcome, TellReply, Traffic, WorkerStatus,
};
use prefork_fleet::Command;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_local};

use super::Allowed;
use crate::handle::{Handle, Member, Overview, Request};
use crate::kernel::fd_reserve::Reserve;
use crate::log::Memory;

/// What the fake knows, and what it was asked.
pub(crate) struct State {
    pub(crate) status: Status,
    pub(crate) history: Vec<Event>,
    pub(crate) audits: Vec<String>,
    pub(crate) failures: Vec<&'static str>,
    /// What the next reload says.
    pub(crate) reload: Vec<JobLine>,
    /// Jobs of `drain`, and of a `reload` that has not said its result: they
    /// end only when a test ends them.
    pub(crate) held: Vec<mpsc::UnboundedSender<JobLine>>,
    /// Who may give no orders.
    pub(crate) workers: Vec<Member>,
}

/// A control socket in a directory of its own.
pub(crate) struct Fake {
    pub(crate) dir: TempDir,
    pub(crate) state: Rc<RefCell<State>>,
    pub(crate) reserve: Rc<Reserve>,
    events: broadcast::Sender<Event>,
    server: JoinHandle<()>,
}

impl Fake {
    /// Starts to serve, on the current `LocalSet`.
    pub(crate) fn start() -> Self {
        Self::start_for(None)
    }

    /// The same for a socket that allows only `allowed`.
    pub(crate) fn start_for(allowed: Option<Allowed>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let allowed = allowed.unwrap_or_else(|| Allowed::of_socket(&path).unwrap());
        let state = Rc::new(RefCell::new(State {
            status: status(2, 2),
            history: vec![event(1), event(2), event(3)],
            audits: vec![],
            failures: vec![],
            reload: vec![],
            held: vec![],
            workers: vec![],
        }));
        let (requests, inbox) = mpsc::channel(64);
        let (events, _) = broadcast::channel(4);
        let reserve = Rc::new(Reserve::new(8).unwrap());
        spawn_local(react(inbox, Rc::clone(&state), events.clone()));
        let serving = super::serve(
            listener,
            Handle(requests),
            Rc::clone(&reserve),
            allowed,
            super::Gate::default(),
        );
        let server = spawn_local(async {
            serving.await;
        });
        Self {
            dir,
            state,
            reserve,
            events,
            server,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// Changes the status and tells an event about it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        let mut state = self.state.borrow_mut();
        change(&mut state.status);
        let event = event(state.history.len() as u64 + 1);
        state.history.push(event.clone());
        // Nobody has to listen.
        let _ = self.events.send(event);
    }

    /// Stops accepting, as a supervisor does at its end.
    pub(crate) fn end(&self) {
        self.server.abort();
    }
}

/// A status with one pool, `web`.
pub(crate) fn status(desired: u32, ready: u32) -> Status {
    let worker = |slot| WorkerStatus {
        slot,
        state: if slot < ready {
            SlotState::Ready
        } else {
            SlotState::Starting
        },
        pid: Some(1000 + slot as i32),
        generation: Some(1),
        incarnation: 1,
        uptime_seconds: Some(1.5),
        restarts: 0,
        crashes: 0,
        in_flight: 0,
        connections: 0,
        requests: Some(0),
        resident_bytes: None,
        status: String::new(),
        upstream: None,
        backoff_seconds: None,
        draining: vec![],
        last_exit: None,
    };
    Status {
        schema: SCHEMA,
        version: "0.1.0".to_owned(),
        pid: 1,
        uptime_seconds: 1.5,
        generation: 1,
        ready: ready == desired,
        readiness: None,
        stopping: false,
        drains_in_seconds: None,
        upgrades: 0,
        last_reload: None,
        pools: vec![PoolStatus {
            name: "web".to_owned(),
            desired,
            configured: None,
            ready,
            paused: 0,
            needed: None,
            readiness: None,
            listeners: vec![],
            program_on_disk: None,
            on_disk: None,
            canary: None,
            workers: (0..desired).map(worker).collect(),
        }],
    }
}

/// Traffic of nobody.
pub(crate) fn traffic() -> Traffic {
    Traffic {
        schema: SCHEMA,
        uptime_seconds: 1.5,
        bounds: vec![0.1, 1.0],
        pools: vec![],
    }
}

/// What the page shows of a service that has served nothing.
pub(crate) fn overview(status: Status) -> Overview {
    Overview {
        status,
        traffic: traffic(),
        requests: vec![],
        events: vec![],
    }
}

pub(crate) fn event(seq: u64) -> Event {
    Event {
        seq,
        at: 1000.0,
        kind: "ready".to_owned(),
        pool: Some("web".to_owned()),
        slot: Some(0),
        pid: None,
        message: format!("event {seq}"),
        exit: None,
    }
}

/// The end of a job that went well.
pub(crate) fn done(message: &str) -> JobLine {
    JobLine::Result(JobResult {
        ok: true,
        message: message.to_owned(),
        generation: None,
        error: None,
    })
}

/// The end of a job that went wrong.
pub(crate) fn failed(error: ApiError) -> JobLine {
    JobLine::Result(JobResult {
        ok: false,
        message: String::new(),
        generation: None,
        error: Some(error),
    })
}

/// A step of `web/0`.
pub(crate) fn progress(message: &str) -> JobLine {
    JobLine::Progress {
        pool: "web".to_owned(),
        slot: Some(0),
        message: message.to_owned(),
        done: None,
        all: None,
    }
}

async fn react(
    mut inbox: mpsc::Receiver<Request>,
    state: Rc<RefCell<State>>,
    events: broadcast::Sender<Event>,
) {
    while let Some(request) = inbox.recv().await {
        let mut state = state.borrow_mut();
        // An asker may have left.
        match request {
            Request::Status(reply) => drop(reply.send(state.status.clone())),
            Request::Workers(reply) => drop(reply.send(state.workers.clone())),
            Request::Channels(reply) => drop(reply.send(Channels {
                schema: SCHEMA,
                channels: vec![],
            })),
            Request::Traffic(reply) => drop(reply.send(traffic())),
            Request::Overview(reply) => drop(reply.send(overview(state.status.clone()))),
            Request::Metrics(reply) => drop(reply.send("fake_metric 1\n".to_owned())),
            Request::Requests { reply, .. } => drop(reply.send(Ok(Requests {
                schema: SCHEMA,
                requests: vec![],
                more: 0,
                unlisted: 0,
                silent_workers: 0,
            }))),
            Request::Describe { slot, reply, .. } => drop(reply.send(Err(ApiError::new(
                ErrorCode::NotFound,
                format!("there is no slot {slot}"),
            )))),
            Request::Events { since, reply } => {
                let kept = state.history.iter().filter(|event| event.seq >= since);
                drop(reply.send((kept.cloned().collect(), events.subscribe())));
            }
            Request::Log { reply, .. } => drop(reply.send(Ok(Memory::new()))),
            Request::LogLevel { reply, .. } | Request::ReopenLogs(reply) => reply_ok(reply),
            Request::Audit {
                detail, allowed, ..
            } => {
                let verdict = if allowed { "allowed" } else { "refused" };
                state.audits.push(format!("{verdict}: {detail}"));
            }
            Request::Failed { command } => state.failures.push(command),
            Request::Reload { lines, .. } | Request::Rollback { lines, .. } => {
                let said = std::mem::take(&mut state.reload);
                let ended = matches!(said.last(), Some(JobLine::Result(_)));
                for line in said {
                    // Whoever asked may have left.
                    let _ = lines.send(line);
                }
                if !ended {
                    state.held.push(lines);
                }
            }
            Request::Upgrade { lines, .. } => {
                let error = ApiError::new(ErrorCode::Failed, "upgrade refused: it is a fake");
                let _ = lines.send(JobLine::Result(JobResult {
                    ok: false,
                    message: String::new(),
                    generation: None,
                    error: Some(error),
                }));
            }
            Request::Tell { body, lines, .. } => tell(&body.command, &lines),
            Request::Command { command, lines } => {
                if let Some(lines) = carry_out(command, lines) {
                    state.held.push(lines);
                }
            }
        }
    }
}

fn reply_ok(reply: oneshot::Sender<Result<(), ApiError>>) {
    let _ = reply.send(Ok(()));
}

/// Ends the job, or gives it back for the test to end.
fn carry_out(
    command: Command,
    lines: mpsc::UnboundedSender<JobLine>,
) -> Option<mpsc::UnboundedSender<JobLine>> {
    let say = |line| drop(lines.send(line));
    match command {
        Command::Scale { pool, workers } if pool == "web" => {
            say(progress("starts"));
            say(done(&format!("web has {workers} workers")));
        }
        Command::Restart { .. } => {
            say(progress("starts"));
            say(failed(ApiError {
                stderr: "no database\n".to_owned(),
                ..ApiError::new(ErrorCode::Failed, "the successor crashed")
            }));
        }
        // Its sender is dropped without a result.
        Command::Pause { .. } => say(progress("asked")),
        Command::Resume { .. } => say(failed(ApiError::new(ErrorCode::Failed, "not paused"))),
        Command::Drain { .. } => {
            say(progress("drains"));
            return Some(lines);
        }
        Command::Stop { .. } => say(done("stopping")),
        _ => say(failed(ApiError::new(ErrorCode::NotFound, "no such pool"))),
    }
    None
}

/// Four workers: the command says how the last one takes it.
fn tell(command: &str, lines: &mpsc::UnboundedSender<JobLine>) {
    let last = match command {
        "silent" => TellOutcome::Timeout,
        "refused" => TellOutcome::Failed,
        _ => TellOutcome::Ok,
    };
    for slot in 0..4 {
        let outcome = if slot == 3 { last } else { TellOutcome::Ok };
        let _ = lines.send(JobLine::Reply(TellReply {
            pool: "web".to_owned(),
            slot,
            pid: Some(1000 + slot as i32),
            outcome,
            data: serde_json::json!({"slot": slot}),
            error: None,
            seconds: 0.001,
        }));
    }
    let _ = lines.send(match last {
        TellOutcome::Ok => done("4 workers did it"),
        _ => failed(ApiError::new(ErrorCode::TimedOut, "1 worker did not")),
    });
}
