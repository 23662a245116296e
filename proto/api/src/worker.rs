//! Slots and the processes in them: in the status document, and one in full.

use serde::{Deserialize, Serialize};

#[expect(unused_imports, reason = "for the documentation")]
use crate::PoolStatus;
use crate::is_zero;
use crate::{ChannelStatus, Exit, WorkerRequest};

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Its process has been started and is not ready yet.
    Starting,
    /// It accepts connections.
    Ready,
    /// It finishes what is in flight, then leaves.
    Draining,
    /// It has been told to leave at once.
    Stopping,
    /// It has no process: it waits before the next start.
    Backoff,
    /// It is alive and accepts nothing, by an operator's wish.
    Paused,
    /// It should have no process and has none.
    Empty,
}

impl SlotState {
    /// Every state, in the order in which they are documented.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Ready,
        Self::Draining,
        Self::Stopping,
        Self::Backoff,
        Self::Paused,
        Self::Empty,
    ];

    /// The name used in JSON, metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Paused => "paused",
            Self::Empty => "empty",
        }
    }
}

/// One slot and the process in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The slot's index.
    pub slot: u32,
    /// What it is doing.
    pub state: SlotState,
    /// Its process; absent in `backoff` and `empty`.
    pub pid: Option<i32>,
    /// The generation of its process.
    pub generation: Option<u64>,
    /// How many processes the slot has had.
    pub incarnation: u64,
    /// Seconds since the process started.
    pub uptime_seconds: Option<f64>,
    /// Starts beyond the first, whatever was the reason.
    pub restarts: u64,
    /// How many of the slot's processes ended by themselves, by no fault of an operator or
    /// a limit: crashes, signals, hangs, boots that came to nothing.
    #[serde(default)]
    pub crashes: u64,
    /// Requests in flight, by its last report.
    pub in_flight: u64,
    /// Open connections, by its last report.
    pub connections: u64,
    /// Requests served by all of the slot's processes; absent where its worker counts none.
    pub requests: Option<u64>,
    /// Resident memory of the process.
    pub resident_bytes: Option<u64>,
    /// What the application says of itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Where its process takes what a front forwards, for a program behind one:
    /// `unix:/PATH` or `ADDRESS:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Seconds until the next start, in `backoff`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_seconds: Option<f64>,
    /// Predecessors that still finish what they had.
    pub draining: Vec<DrainingStatus>,
    /// How the slot's last process ended.
    pub last_exit: Option<Exit>,
}

/// A predecessor that still finishes what it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainingStatus {
    /// Its process id.
    pub pid: i32,
    /// Its generation.
    pub generation: u64,
    /// Requests in flight, by its last report.
    pub in_flight: u64,
}

/// One slot in full: `GET /v1/workers/{pool}/{slot}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Describe {
    /// The pool's name.
    pub pool: String,
    /// The slot as `status` has it.
    pub worker: WorkerStatus,
    /// What runs: the program and its arguments.
    pub program: Vec<String>,
    /// How the program's file on disk differs from what runs, as in [`PoolStatus`](crate::PoolStatus).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_on_disk: Option<String>,
    /// What a reload would take from the disk, as in [`PoolStatus`](crate::PoolStatus).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disk: Option<String>,
    /// What `hello` said: program name and version.
    pub hello: Option<String>,
    /// What `hello` said the worker can do.
    pub capabilities: Vec<String>,
    /// The slot's channel.
    pub channel: ChannelStatus,
    /// The last exits, newest first, 10 at most.
    pub exits: Vec<Exit>,
    /// The requests that the slot's processes are serving, the oldest first; absent where
    /// they note none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Vec<WorkerRequest>>,
    /// Requests beside them that there was no room to note.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests_unlisted: u64,
}
