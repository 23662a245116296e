//! Workers of a pool behind, for those who forward to it.

use serde::{Deserialize, Serialize};

use super::is_false;

/// The workers of a pool that requests are forwarded to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Upstreams {
    /// Chosen by the supervisor; the `reply` carries it back.
    pub id: u64,
    /// The pool's name.
    pub pool: String,
    /// Requests that one of its workers gets at a time, from all who forward to it
    /// together; 0: any number.
    pub concurrency: u32,
    /// Its workers. One that is not here gets nothing more.
    pub workers: Vec<Upstream>,
    /// Whether further lines for the same pool follow: their workers belong to the same
    /// table, which is in force with the last of them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// One process of a pool behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Upstream {
    /// Its slot's index in the pool.
    pub slot: u32,
    /// Which of its slot's processes it is.
    pub incarnation: u64,
    /// Where it listens: `unix:/PATH` or `127.0.0.1:8080`.
    pub address: String,
    /// Whether it is on its way out: it gets nothing more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leaving: bool,
    /// The cell of each row in which requests at it are counted; absent where there
    /// is none left: then each process counts by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u32>,
}

/// A process of a pool behind that is to be left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Vacate {
    /// Chosen by the supervisor; the `reply` carries it back.
    pub id: u64,
    /// The pool's name.
    pub pool: String,
    /// Its slot's index in the pool.
    pub slot: u32,
    /// Which of its slot's processes it is.
    pub incarnation: u64,
}
