//! One process: what the fleet knows of it while it serves and while it leaves.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::interface::{Time, Worker};
use crate::policy::Policy;
use crate::state::timeouts::{Patience, Silence};

/// A process that has not been told to leave.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its name.
    pub(crate) worker: Worker,
    /// The generation whose program and settings it runs.
    pub(crate) generation: u64,
    /// The numbers that its generation is run by.
    pub(crate) policy: Rc<Policy>,
    /// Whether it was started to be tried before it serves.
    pub(crate) probation: bool,
    /// Its process id; none until the spawn is answered.
    pub(crate) pid: Option<i32>,
    /// When its spawn was asked for.
    pub(crate) started: Time,
    /// Requests in flight, by its last report.
    pub(crate) in_flight: u64,
    /// When it is due for a successor.
    pub(crate) limits: Limits,
    /// What is known of its silence.
    #[serde(skip)]
    pub(crate) patience: Patience,
    /// Whether it said `hello`; otherwise it speaks no protocol as far as is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) greeted: bool,
    /// Why what it is to be told could not be sent, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hindered: Option<Box<Hindrance>>,
    /// What it said in `bye`.
    pub(crate) farewell: Option<Box<str>>,
    /// How far it has come.
    pub(crate) stage: Stage,
}

/// Why what a process is to be told could not be sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hindrance {
    /// With who is to blame.
    pub(crate) why: String,
}

/// When a process is due for a successor, drawn once so that a pool that
/// started together is not recycled together.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Requests served in all.
    pub(crate) requests: Option<u64>,
    /// The time at which it is too old.
    pub(crate) age: Option<Time>,
    /// The memory that it may hold where `max_rss` is less than it was born with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<u64>,
}

impl Limits {
    /// The share of `max_age` by which a process may be recycled early.
    const AGE_SPREAD: f64 = 0.1;
    /// How long a process serves at least before it is recycled, so that a
    /// limit that is too low makes no storm of starts.
    const LEAST_SERVICE: Duration = Duration::from_secs(1);

    /// Draws the limits of a process that starts `now`.
    pub(crate) fn draw(now: Time, policy: &Policy, rng: &mut fastrand::Rng) -> Self {
        let requests = (policy.max_requests > 0).then(|| {
            let spread = policy.max_requests as f64 * policy.max_requests_jitter * rng.f64();
            policy.max_requests.saturating_sub(spread as u64).max(1)
        });
        let age = policy
            .max_age
            .map(|age| now.after(age.mul_f64(1.0 - Self::AGE_SPREAD * rng.f64())));
        Self {
            requests,
            age,
            memory: None,
        }
    }
}

/// How far a process has come. Only one that was ready once has a heartbeat.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// It has not said `ready` yet.
    Starting,
    /// It could accept connections and is kept from it for a while.
    Probation {
        /// Its heartbeat.
        serving: Serving,
        /// Whether it has been asked to serve.
        asked: bool,
    },
    /// It accepts connections.
    Ready(Serving),
    /// It accepts nothing, by an operator's wish.
    Paused(Serving),
}

/// The heartbeat of a process that was ready once.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Serving {
    /// When it said `ready`.
    pub(crate) since: Time,
    /// When its last `health` came, or `ready` before the first.
    pub(crate) last_health: Time,
}

impl Process {
    /// The heartbeat of a process that was ready once.
    pub(crate) fn serving(&self) -> Option<&Serving> {
        match &self.stage {
            Stage::Starting => None,
            Stage::Probation { serving, .. } | Stage::Ready(serving) | Stage::Paused(serving) => {
                Some(serving)
            }
        }
    }

    /// The heartbeat, to be renewed.
    pub(crate) fn serving_mut(&mut self) -> Option<&mut Serving> {
        match &mut self.stage {
            Stage::Starting => None,
            Stage::Probation { serving, .. } | Stage::Ready(serving) | Stage::Paused(serving) => {
                Some(serving)
            }
        }
    }

    /// Whether an operator has paused it.
    pub(crate) fn is_paused(&self) -> bool {
        matches!(self.stage, Stage::Paused(_))
    }

    /// Whether it accepts connections.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready(_))
    }

    /// From when on it may be recycled; none if it is not ready yet.
    pub(crate) fn recyclable_from(&self) -> Option<Time> {
        self.serving()
            .map(|serving| serving.since.after(Limits::LEAST_SERVICE))
    }

    /// When it is too old, if there is such a time.
    pub(crate) fn too_old_at(&self) -> Option<Time> {
        let age = self.limits.age?;
        Some(age.max(self.recyclable_from()?))
    }

    /// Since when nothing is heard of it, and how long that may last: boot or
    /// heartbeat.
    pub(crate) fn silence(&self) -> Silence {
        match self.serving() {
            None => Silence {
                since: self.started,
                timeout: self.policy.boot_timeout,
            },
            Some(serving) => Silence {
                since: serving.last_health,
                timeout: self.policy.heartbeat_timeout,
            },
        }
    }

    /// When it fails if nothing is heard of it.
    pub(crate) fn fails_at(&self) -> Time {
        self.patience.ends_at(self.silence())
    }

    /// When it is to be looked at if nothing is heard of it; none while it is.
    pub(crate) fn look_at(&self) -> Option<Time> {
        self.patience.look_at(self.silence())
    }

    /// When its probation is over; none if it has none, or it was asked to
    /// serve already.
    pub(crate) fn proven_at(&self) -> Option<Time> {
        match &self.stage {
            Stage::Probation {
                serving,
                asked: false,
            } => Some(serving.since.after(self.policy.min_ready)),
            _ => None,
        }
    }

    /// When something has to be done if nothing is heard of it.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.look_at().into_iter().chain(self.proven_at()).min()
    }

    /// How people call it: its pid, or that it has none yet.
    pub(crate) fn label(&self) -> String {
        match self.pid {
            Some(pid) => format!("pid {pid}"),
            None => format!("start {}", self.worker.incarnation),
        }
    }
}
