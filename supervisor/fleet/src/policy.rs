//! The numbers that decide how a pool is run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::state::readiness::Quorum;

/// One pool's policy: what the fleet needs to know of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// The pool's name.
    pub name: String,
    /// How many workers it should have.
    pub workers: u32,
    /// From start to `ready`.
    pub boot_timeout: Duration,
    /// From one `health` to the next.
    pub heartbeat_timeout: Duration,
    /// From `drain` to the end.
    pub drain_timeout: Duration,
    /// From `stop` and SIGTERM to SIGKILL, and from SIGABRT to SIGKILL.
    pub kill_timeout: Duration,
    /// The first wait of a crash loop.
    pub backoff_initial: Duration,
    /// The longest wait of a crash loop.
    pub backoff_max: Duration,
    /// A worker that was ready this long ends the crash loop.
    pub backoff_reset: Duration,
    /// Recycle after this many requests; 0 for never.
    pub max_requests: u64,
    /// How far below `max_requests` a worker's own limit may be drawn, as a ratio of it.
    pub max_requests_jitter: f64,
    /// Recycle when resident memory exceeds this many bytes.
    pub max_rss: Option<u64>,
    /// Recycle at this age.
    pub max_age: Option<Duration>,
    /// How long the first new workers of a reload must have been ready before
    /// anything is replaced; they accept nothing until then. Zero for no probation.
    pub min_ready: Duration,
    /// How many slots may be replaced at a time.
    pub max_surge: u32,
    /// Whether a worker that hangs gets SIGABRT before SIGKILL.
    pub dump_on_hang: bool,
    /// How many of the workers it takes for the pool to serve.
    #[serde(default)]
    pub ready: Quorum,
}
