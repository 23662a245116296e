//! Jobs: the lines that the answer to a command is streamed in.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ApiError;

/// A line of a job's answer. A job streams these and ends with [`JobLine::Result`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum JobLine {
    /// A step was made.
    Progress {
        /// The pool it concerns.
        pool: String,
        /// The slot it concerns.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<u32>,
        /// One sentence for people.
        message: String,
        /// How many workers are done of those that the job is about, where it is about a
        /// number of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        done: Option<u32>,
        /// How many those are in all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        all: Option<u32>,
    },
    /// One worker's answer to `tell`.
    Reply(TellReply),
    /// Something that a reload would change: a line of `reload --dry-run`. Of an
    /// upgrade, that the program is the one that ran before.
    Change {
        /// `setting`, `listener`, `pool` or `workers`; `program` of an upgrade.
        what: String,
        /// One sentence for people.
        message: String,
    },
    /// The end.
    Result(JobResult),
}

impl JobLine {
    /// A step that concerns no number of workers: of a pool, or of no pool in particular
    /// where that is empty.
    pub fn step(pool: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Progress {
            pool: pool.into(),
            slot: None,
            message: message.into(),
            done: None,
            all: None,
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// Whether it was done.
    pub ok: bool,
    /// One sentence for people; what was done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The generation in force after a reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// One worker's answer to `tell`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TellReply {
    /// The pool's name.
    pub pool: String,
    /// The slot's index.
    pub slot: u32,
    /// The process that was asked; absent where the slot had none.
    pub pid: Option<i32>,
    /// `ok`, `failed` (the worker said no), `timeout` (it stayed silent) or `gone` (it is not there).
    pub outcome: TellOutcome,
    /// What the worker answered.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long the answer took.
    pub seconds: f64,
}

/// How one worker took a `tell`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TellOutcome {
    /// It did it.
    Ok,
    /// It said no.
    Failed,
    /// It stayed silent.
    Timeout,
    /// It was not there, or left before it answered.
    Gone,
}
