//! Events: lines of `GET /v1/events`.

use serde::{Deserialize, Serialize};

use crate::Exit;

/// Something that happened: a line of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with each event.
    pub seq: u64,
    /// Seconds since the Unix epoch.
    pub at: f64,
    /// What happened: `starting`, `ready`, `exit`, `backoff`, `drain`, `scale`, `command`, …
    pub kind: String,
    /// The pool it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The slot it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The process it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// One sentence for people.
    pub message: String,
    /// The death certificate, for an `exit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

impl Event {
    /// Whom it happened to: `web/0`, or `web` for a whole pool.
    pub fn whom(&self) -> Option<String> {
        crate::whom(self.pool.as_deref(), self.slot)
    }
}
