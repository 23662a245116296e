//! One process: what the fleet knows of it while it serves and while it leaves.

use std::rc::Rc;
use std::time::Duration;

use prefork_api::{Exit, ExitReason};
use serde::{Deserialize, Serialize};

use super::event::{Death, Time, Worker};
use super::jobs::Awaiting;
use super::patience::{Patience, Silence};
use super::policy::Policy;

/// A process that has not been told to leave.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Process {
    /// Its name.
    pub(super) worker: Worker,
    /// The generation whose program and settings it runs.
    pub(super) generation: u64,
    /// The numbers that its generation is run by.
    pub(super) policy: Rc<Policy>,
    /// Whether it was started to be tried before it serves.
    pub(super) probation: bool,
    /// Its process id; none until the spawn is answered.
    pub(super) pid: Option<i32>,
    /// When its spawn was asked for.
    pub(super) started: Time,
    /// Requests in flight, by its last report.
    pub(super) in_flight: u64,
    /// When it is due for a successor.
    pub(super) limits: Limits,
    /// What is known of its silence.
    #[serde(skip)]
    pub(super) patience: Patience,
    /// Whether it said `hello`; otherwise it speaks no protocol as far as is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) greeted: bool,
    /// Why what it is to be told could not be sent, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hindered: Option<Box<Hindrance>>,
    /// What it said in `bye`.
    pub(super) farewell: Option<Box<str>>,
    /// How far it has come.
    pub(super) stage: Stage,
}

/// Why what a process is to be told could not be sent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hindrance {
    /// With who is to blame.
    pub(super) why: String,
}

/// When a process is due for a successor, drawn once so that a pool that
/// started together is not recycled together.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Limits {
    /// Requests served in all.
    pub(super) requests: Option<u64>,
    /// The time at which it is too old.
    pub(super) age: Option<Time>,
    /// The memory that it may hold where `max_rss` is less than it was born with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<u64>,
}

impl Limits {
    /// The share of `max_age` by which a process may be recycled early.
    const AGE_SPREAD: f64 = 0.1;
    /// How long a process serves at least before it is recycled, so that a
    /// limit that is too low makes no storm of starts.
    const LEAST_SERVICE: Duration = Duration::from_secs(1);

    /// Draws the limits of a process that starts `now`.
    pub(super) fn draw(now: Time, policy: &Policy, rng: &mut fastrand::Rng) -> Self {
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
pub(super) enum Stage {
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
pub(super) struct Serving {
    /// When it said `ready`.
    pub(super) since: Time,
    /// When its last `health` came, or `ready` before the first.
    pub(super) last_health: Time,
}

impl Process {
    /// The heartbeat of a process that was ready once.
    pub(super) fn serving(&self) -> Option<&Serving> {
        match &self.stage {
            Stage::Starting => None,
            Stage::Probation { serving, .. } | Stage::Ready(serving) | Stage::Paused(serving) => {
                Some(serving)
            }
        }
    }

    /// The heartbeat, to be renewed.
    pub(super) fn serving_mut(&mut self) -> Option<&mut Serving> {
        match &mut self.stage {
            Stage::Starting => None,
            Stage::Probation { serving, .. } | Stage::Ready(serving) | Stage::Paused(serving) => {
                Some(serving)
            }
        }
    }

    /// Whether an operator has paused it.
    pub(super) fn is_paused(&self) -> bool {
        matches!(self.stage, Stage::Paused(_))
    }

    /// Whether it accepts connections.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready(_))
    }

    /// From when on it may be recycled; none if it is not ready yet.
    pub(super) fn recyclable_from(&self) -> Option<Time> {
        self.serving()
            .map(|serving| serving.since.after(Limits::LEAST_SERVICE))
    }

    /// When it is too old, if there is such a time.
    pub(super) fn too_old_at(&self) -> Option<Time> {
        let age = self.limits.age?;
        Some(age.max(self.recyclable_from()?))
    }

    /// Since when nothing is heard of it, and how long that may last: boot or
    /// heartbeat.
    pub(super) fn silence(&self) -> Silence {
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
    pub(super) fn fails_at(&self) -> Time {
        self.patience.ends_at(self.silence())
    }

    /// When it is to be looked at if nothing is heard of it; none while it is.
    pub(super) fn look_at(&self) -> Option<Time> {
        self.patience.look_at(self.silence())
    }

    /// When its probation is over; none if it has none, or it was asked to
    /// serve already.
    pub(super) fn proven_at(&self) -> Option<Time> {
        match &self.stage {
            Stage::Probation {
                serving,
                asked: false,
            } => Some(serving.since.after(self.policy.min_ready)),
            _ => None,
        }
    }

    /// When something has to be done if nothing is heard of it.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.look_at().into_iter().chain(self.proven_at()).min()
    }

    /// How people call it: its pid, or that it has none yet.
    pub(super) fn label(&self) -> String {
        match self.pid {
            Some(pid) => format!("pid {pid}"),
            None => format!("start {}", self.worker.incarnation),
        }
    }
}

/// A process that was told to leave and has not been reaped.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Leaving {
    /// The process.
    pub(super) process: Process,
    /// Who caused it.
    pub(super) cause: ExitReason,
    /// One sentence more for its certificate.
    pub(super) note: Option<String>,
    /// When it began to drain, if it did.
    pub(super) draining_since: Option<Time>,
    /// How it was asked.
    pub(super) stage: Leave,
    /// Until when it is waited for to say that it accepts nothing more; none once it
    /// has, and where it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) accepts_until: Option<Time>,
    /// Who wants its certificate to know why it failed, and what they are told.
    #[serde(skip)]
    pub(super) awaiting: Vec<(Awaiting, String)>,
}

/// How a process was asked to leave, and until when that may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Leave {
    /// It finishes what is in flight.
    Draining {
        /// Then it is told to stop.
        until: Time,
    },
    /// It said `drained` and is about to exit.
    Drained {
        /// Then it is told to stop.
        until: Time,
    },
    /// It was told to stop.
    Stopping {
        /// Then it is killed.
        until: Time,
    },
    /// It was sent SIGABRT and dumps its core.
    Aborting {
        /// Then it is killed.
        until: Time,
    },
    /// It was sent SIGKILL.
    Killed {
        /// Then nobody waits for it any more.
        until: Time,
    },
    /// The kernel does not let go of it; nobody waits for it.
    Stuck,
}

impl Leave {
    /// When the next thing happens to it by itself.
    pub(super) fn deadline(self) -> Option<Time> {
        match self {
            Self::Draining { until }
            | Self::Drained { until }
            | Self::Stopping { until }
            | Self::Aborting { until }
            | Self::Killed { until } => Some(until),
            Self::Stuck => None,
        }
    }

    /// Whether it still finishes what it had.
    pub(super) fn is_draining(self) -> bool {
        matches!(self, Self::Draining { .. } | Self::Drained { .. })
    }

    /// Whether SIGKILL is the last thing it was or will be sent.
    pub(super) fn is_killed(self) -> bool {
        matches!(self, Self::Killed { .. } | Self::Stuck)
    }
}

/// Signals by which programs are asked to leave; others are accidents.
const REQUESTS: [i32; 6] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

impl Leaving {
    /// Whether it may still accept, as far as is known.
    pub(super) fn accepts(&self) -> bool {
        self.stage.is_draining() && self.accepts_until.is_some()
    }

    /// When the next thing happens to it by itself.
    pub(super) fn deadline(&self) -> Option<Time> {
        let accepts_until = self.accepts_until.filter(|_| self.accepts());
        self.stage.deadline().into_iter().chain(accepts_until).min()
    }

    /// Who caused the death of a process that was leaving. The cause for
    /// which it had to leave, unless something else was quicker.
    pub(super) fn reason(&self, death: &Death) -> ExitReason {
        let ours = match self.stage {
            Leave::Draining { .. } => death.signal.is_none(),
            // A program behind an adapter was asked by a signal, and may end by that.
            Leave::Drained { .. } => death.signal.is_none_or(|it| REQUESTS.contains(&it)),
            Leave::Stopping { .. } => death.signal.is_none_or(|signal| signal == libc::SIGTERM),
            Leave::Aborting { .. } | Leave::Killed { .. } | Leave::Stuck => true,
        };
        if ours {
            self.cause
        } else {
            unasked_reason(death)
        }
    }
}

/// Who caused the death of a process that nobody had asked to leave.
pub(super) fn unasked_reason(death: &Death) -> ExitReason {
    if death.oom {
        ExitReason::Oom
    } else if death.signal.is_some() {
        ExitReason::Signal
    } else if death.code == Some(0) {
        ExitReason::Clean
    } else {
        ExitReason::Crash
    }
}

/// Writes a death certificate.
pub(super) fn certificate(
    process: &Process,
    reason: ExitReason,
    note: Option<&str>,
    death: Death,
    now: Time,
) -> Exit {
    let sentences: Vec<&str> = note
        .into_iter()
        .chain(process.farewell.as_deref())
        .filter(|sentence| !sentence.is_empty())
        .collect();
    Exit {
        reason,
        code: death.code,
        signal: death.signal,
        // The spawn is answered before the exit; 0 names no process.
        pid: process.pid.unwrap_or(0),
        generation: process.generation,
        incarnation: process.worker.incarnation,
        at: Duration::from_millis(death.at_unix_ms).as_secs_f64(),
        uptime_seconds: now.since(process.started).as_secs_f64(),
        requests: death.requests.unwrap_or(0),
        uncounted: death.requests.is_none(),
        peak_memory_bytes: death.peak_memory_bytes,
        detail: sentences.join("; "),
        stderr: death.stderr,
        in_flight: death.in_flight,
        in_flight_unlisted: death.in_flight_unlisted,
    }
}

/// How a process ended, as a phrase: `exited with code 3`.
pub(super) fn how_it_ended(exit: &Exit) -> String {
    match (exit.reason, exit.signal, exit.code) {
        (ExitReason::Oom, ..) => "was killed for want of memory".to_owned(),
        (_, Some(signal), _) => format!("was ended by signal {signal}"),
        (_, None, Some(code)) => format!("exited with code {code}"),
        (_, None, None) => "ended".to_owned(),
    }
}
