//! The whole service and its pools: `GET /v1/status`.

use serde::{Deserialize, Serialize};

use crate::{ListenerStatus, WorkerStatus};

/// The whole process tree at one moment: `GET /v1/status`, `/status.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`](crate::SCHEMA).
    pub schema: u32,
    /// The supervisor's version.
    pub version: String,
    /// The supervisor's process id.
    pub pid: i32,
    /// Seconds since the supervisor started.
    pub uptime_seconds: f64,
    /// The generation that is in force.
    pub generation: u64,
    /// Whether [`Self::readiness`] is `ready`: no worker is missing.
    pub ready: bool,
    /// How far the service is ready, as every probe and exit code says it; absent
    /// from supervisors that know only `ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
    /// Whether the supervisor is on its way out.
    #[serde(default)]
    pub stopping: bool,
    /// Where it is, but serves as before (`stop_delay`): seconds until it drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drains_in_seconds: Option<f64>,
    /// How often another program has taken the supervisor's place in the same
    /// process.
    #[serde(default)]
    pub upgrades: u64,
    /// How the last reload went; absent before the first.
    pub last_reload: Option<LastReload>,
    /// The pools, in the order of the configuration.
    pub pools: Vec<PoolStatus>,
}

impl PoolStatus {
    /// Requests that its workers have in flight.
    pub fn in_flight(&self) -> u64 {
        let each = self.workers.iter().map(|worker| worker.in_flight);
        each.fold(0, u64::saturating_add)
    }

    /// Connections that wait to be accepted; none where the kernel says it of no listener.
    pub fn queue(&self) -> Option<u64> {
        let each = self.listeners.iter().filter_map(|it| it.backlog);
        each.reduce(u64::saturating_add)
    }
}

impl Status {
    /// How far the service is ready.
    pub fn readiness(&self) -> Readiness {
        let whole = match self.ready {
            true => Readiness::Ready,
            false => Readiness::NotReady,
        };
        self.readiness.unwrap_or(whole)
    }
}

/// How far a pool is ready, or the service, which is as ready as the least of its
/// pools. The order is from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Fewer workers accept connections than are needed, or the first start is not over.
    NotReady,
    /// Enough accept connections, and not all that should.
    Degraded,
    /// All accept connections that should.
    Ready,
}

impl Readiness {
    /// For people: `ready`, `degraded`, `not ready`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "not ready",
            Self::Degraded => "degraded",
            Self::Ready => "ready",
        }
    }

    /// Whether clients are to be sent here.
    pub fn serves(self) -> bool {
        self >= Self::Degraded
    }
}

/// How the last reload went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastReload {
    /// Whether it was committed.
    pub ok: bool,
    /// When it ended, in seconds since the Unix epoch.
    pub at: f64,
    /// The generation in force after it.
    pub generation: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// The pool's name.
    pub name: String,
    /// How many workers it should have.
    pub desired: u32,
    /// How many the configuration in force says, of which an operator may have scaled it
    /// away; absent from supervisors that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured: Option<u32>,
    /// How many are ready.
    pub ready: u32,
    /// How many of the others an operator has paused; they are not missed.
    #[serde(default)]
    pub paused: u32,
    /// How many have to be ready for the pool to serve, by its `ready` setting; absent
    /// from supervisors that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<u32>,
    /// What that comes to; absent from supervisors that do not tell. A pool that a
    /// reload adds is not missed before it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
    /// The sockets its workers accept from.
    pub listeners: Vec<ListenerStatus>,
    /// How the program's file on disk differs from what runs: `changed` or
    /// `removed`; absent where it doesn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_on_disk: Option<String>,
    /// What a reload would take from the disk, and a restart doesn't: a sentence for
    /// people; absent where nothing has changed since the generation began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disk: Option<String>,
    /// Its canary while it is judged; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStatus>,
    /// Its slots, by index.
    pub workers: Vec<WorkerStatus>,
}

/// A canary that is being judged: the first workers of a new generation, compared with
/// those of the one in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryStatus {
    /// The generation that it is of.
    pub generation: u64,
    /// How many workers it has.
    pub workers: u32,
    /// How long it is judged at most from now on.
    pub seconds_left: f64,
    /// What it has served since it is judged.
    pub new: GenerationCounts,
    /// What the workers of the generation in force have served meanwhile.
    pub old: GenerationCounts,
}

/// What the workers of a generation have served while its canary is judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GenerationCounts {
    /// Responses.
    pub requests: u64,
    /// Those of them that are 5xx.
    pub failed: u64,
    /// Requests whose handler panicked.
    pub panics: u64,
    /// The 99th percentile of how long they took; absent where nothing was served, or it
    /// lies beyond the last bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_seconds: Option<f64>,
}

impl GenerationCounts {
    /// The share of responses that are 5xx, in percent.
    pub fn failed_percent(&self) -> f64 {
        match self.requests {
            0 => 0.0,
            requests => self.failed as f64 * 100.0 / requests as f64,
        }
    }
}
