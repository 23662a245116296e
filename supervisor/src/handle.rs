//! How the control and admin servers talk to the reactor: requests over a
//! queue, so that they know nothing of its insides.

use std::path::PathBuf;

use prefork_api::{
    ApiError, Channels, Describe, Event, JobLine, Requests, Status, TellBody, Traffic,
    WorkerRequest,
};
use prefork_fleet::Command;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::log::Memory;

/// Who asked, by `SO_PEERCRED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Process id.
    pub pid: i32,
}

/// A process that may give no orders: a worker. The number alone may be another's later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

/// Which of the requests that are being served somebody wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only this pool's.
    pub pool: Option<String>,
    /// Only this slot's of the pool.
    pub slot: Option<u32>,
    /// Only those that came at least so many milliseconds ago.
    pub older_than_ms: u64,
}

impl Wanted {
    /// Whether what this slot's processes serve is among it.
    pub fn concerns(&self, pool: &str, slot: u32) -> bool {
        self.pool.as_deref().is_none_or(|it| it == pool) && self.slot.is_none_or(|it| it == slot)
    }
}

/// Everything at one moment, and what came before it: what the page at the admin address
/// shows.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The status document.
    pub status: Status,
    /// What was served, now and in the last ten minutes.
    pub traffic: Traffic,
    /// The oldest requests that are being served, the oldest first.
    pub requests: Vec<WorkerRequest>,
    /// The last events, the newest first.
    pub events: Vec<Event>,
}

/// A question or a command for the reactor.
#[derive(Debug)]
pub enum Request {
    /// The status document.
    Status(oneshot::Sender<Status>),
    /// One slot in full.
    Describe {
        /// The pool's name.
        pool: String,
        /// The slot.
        slot: u32,
        /// The answer.
        reply: oneshot::Sender<Result<Describe, ApiError>>,
    },
    /// Every worker's process that is known.
    Workers(oneshot::Sender<Vec<Member>>),
    /// The requests that are being served.
    Requests {
        /// Which ones.
        wanted: Wanted,
        /// The answer.
        reply: oneshot::Sender<Result<Requests, ApiError>>,
    },
    /// What was served.
    Traffic(oneshot::Sender<Traffic>),
    /// What the page at the admin address shows.
    Overview(oneshot::Sender<Overview>),
    /// A row per channel.
    Channels(oneshot::Sender<Channels>),
    /// The exposition in text format 0.0.4.
    Metrics(oneshot::Sender<String>),
    /// The events kept from `since` on, and a subscription to those that follow.
    Events {
        /// The first sequence number wanted.
        since: u64,
        /// The answer.
        reply: oneshot::Sender<(Vec<Event>, broadcast::Receiver<Event>)>,
    },
    /// The last of the log.
    Log {
        /// The pool that somebody wants to know of.
        pool: Option<String>,
        /// The slot of it.
        slot: Option<u32>,
        /// The answer.
        reply: oneshot::Sender<Result<Memory, ApiError>>,
    },
    /// A command to the fleet: a job.
    Command {
        /// What is wanted.
        command: Command,
        /// Where its lines go; the last one is [`JobLine::Result`]. A
        /// receiver that is gone doesn't cancel the job.
        lines: mpsc::UnboundedSender<JobLine>,
    },
    /// Read the configuration again and put it in force: a job.
    Reload {
        /// The pools that are taken; all, where none is named.
        pools: Vec<String>,
        /// Whether workers are replaced also where nothing has changed.
        force: bool,
        /// Whether the first new workers are judged also where no setting says so.
        canary: bool,
        /// Whether to say what would change and change nothing.
        dry_run: bool,
        /// Where its lines go.
        lines: mpsc::UnboundedSender<JobLine>,
    },
    /// Put a generation in force again that was before: a job.
    Rollback {
        /// Its number; by default that of the last one.
        to: Option<u64>,
        /// Whether to say what would change and change nothing.
        dry_run: bool,
        /// Where its lines go.
        lines: mpsc::UnboundedSender<JobLine>,
    },
    /// Run another program in this one's place: a job that ends without a
    /// result where that is done.
    Upgrade {
        /// Where the program lies; by default where this one was found.
        program: Option<PathBuf>,
        /// Where its lines go.
        lines: mpsc::UnboundedSender<JobLine>,
    },
    /// An application command to one worker or all of a pool: a job.
    Tell {
        /// The pool's name.
        pool: String,
        /// One slot, or all.
        slot: Option<u32>,
        /// What to tell.
        body: TellBody,
        /// Where its lines go: a [`JobLine::Reply`] per worker, then the result.
        lines: mpsc::UnboundedSender<JobLine>,
    },
    /// Change what is logged.
    LogLevel {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: String,
        /// The answer.
        reply: oneshot::Sender<Result<(), ApiError>>,
    },
    /// Open the log files again.
    ReopenLogs(oneshot::Sender<Result<(), ApiError>>),
    /// A control command was asked for: audit line and counter.
    Audit {
        /// Who.
        peer: Peer,
        /// The command's name, as on the command line.
        command: &'static str,
        /// What exactly, for people.
        detail: String,
        /// Whether it was let through or refused at the door.
        allowed: bool,
    },
    /// A control command failed: counter.
    Failed {
        /// The command's name, as on the command line.
        command: &'static str,
    },
}

/// A cheap copyable way to reach the reactor. `send` fails only while the
/// supervisor ends.
#[derive(Debug, Clone)]
pub struct Handle(pub mpsc::Sender<Request>);
