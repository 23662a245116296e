//! A worker's first message: to its own supervisor, or to the next one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::is_false;
#[cfg(doc)]
use super::{PROTOCOL, RejoinOffer};

/// The worker's first message: what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hello {
    /// The protocol version the worker speaks, [`PROTOCOL`].
    pub protocol: u32,
    /// Its process id; must be the one the supervisor forked.
    pub pid: i32,
    /// The program's name, for people to read.
    pub program: String,
    /// The program's version, for people to read.
    pub version: String,
    /// What it can do beyond the mandatory: `tell`, `reload`, `pause`, `http_counts`,
    /// `rescue`, `scoreboard`, `rejoin`, `output`, `tls`,
    /// `access_log`, `forward`, `requests`.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// Who a worker was to a supervisor that has gone, said to the next one. The
/// scoreboard, the request table, every listener and what it prints to follow, and then the worker waits
/// for `welcome`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rejoin {
    /// The protocol version the worker speaks, [`PROTOCOL`].
    pub protocol: u32,
    /// What [`RejoinOffer`] gave it.
    pub secret: String,
    /// Its process id.
    pub pid: i32,
    /// Its pool's name.
    pub pool: String,
    /// Its slot's index in the pool.
    pub slot: u32,
    /// Its generation.
    pub generation: u64,
    /// Which of its slot's processes it is.
    pub incarnation: u64,
    /// As in [`Hello`].
    pub program: String,
    /// As in [`Hello`].
    pub version: String,
    /// As in [`Hello`].
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// How many `listener` lines follow: none once it has stopped accepting for good.
    pub listeners: u32,
    /// Whether a `scoreboard` line follows, before the listeners.
    #[serde(default)]
    pub scoreboard: bool,
    /// Whether a `requests` line follows, before the listeners.
    #[serde(default, skip_serializing_if = "is_false")]
    pub requests: bool,
    /// How many `output` lines follow, after the listeners: at most one for each
    /// stream.
    #[serde(default)]
    pub outputs: u32,
    /// What it is doing.
    pub state: RejoinState,
}

/// Leaves the secret out, so that no log has it by accident.
impl fmt::Debug for Rejoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejoin")
            .field("protocol", &self.protocol)
            .field("pid", &self.pid)
            .field("pool", &self.pool)
            .field("slot", &self.slot)
            .field("generation", &self.generation)
            .field("incarnation", &self.incarnation)
            .field("program", &self.program)
            .field("version", &self.version)
            .field("capabilities", &self.capabilities)
            .field("listeners", &self.listeners)
            .field("scoreboard", &self.scoreboard)
            .field("requests", &self.requests)
            .field("outputs", &self.outputs)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What a worker that rejoins is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RejoinState {
    /// It accepts connections.
    Ready,
    /// It was told to accept none until `resume`.
    Paused,
    /// It finishes what is in flight and leaves.
    Draining,
}
