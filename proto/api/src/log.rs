//! The supervisor's log: lines of `GET /v1/logs`, and of a log in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An entry of the log: a line of `GET /v1/logs`, and of the log where `log_format` is `json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When it was logged, by RFC 3339: `2026-11-27T10:00:00.250000Z`.
    pub time: String,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// The pool that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The slot that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The process that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// `stdout` or `stderr`, where a worker has written it. Without it the supervisor has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What was said; of several lines where they belong together.
    pub message: String,
    /// What else the supervisor says of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// Grows by one with each entry of one supervisor's.
    pub seq: u64,
    /// How many entries before this one were not kept for this reader, of whatever slot.
    #[serde(default, skip_serializing_if = "crate::is_zero")]
    pub lost: u64,
}

impl LogEntry {
    /// Whom it is about: `web/0`, or `web` for a whole pool.
    pub fn whom(&self) -> Option<String> {
        crate::whom(self.pool.as_deref(), self.slot)
    }
}
