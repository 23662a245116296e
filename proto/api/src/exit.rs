//! Death certificates: how a process ended, and by whose doing.

use serde::{Deserialize, Serialize};

use crate::{RunningRequest, ThreadDump, is_zero};

/// Who or what caused an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// Replaced by a newer generation.
    Reload,
    /// The pool was made smaller.
    ScaleDown,
    /// It had served its number of requests.
    MaxRequests,
    /// It had grown over its memory limit.
    MaxRss,
    /// It had reached its age limit.
    MaxAge,
    /// An operator asked for it: restart, drain, kill or stop.
    Operator,
    /// It left by itself with exit code 0.
    Clean,
    /// It left by itself with another exit code, or could not be executed.
    Crash,
    /// A signal ended it that the supervisor did not send.
    Signal,
    /// The kernel ended it for want of memory.
    Oom,
    /// It was not ready in time.
    BootTimeout,
    /// It did not answer the check of new workers as it should.
    CheckFailed,
    /// It stopped reporting.
    HeartbeatTimeout,
    /// It did not finish draining in time.
    DrainTimeout,
    /// It broke the channel protocol.
    ProtocolError,
}

impl ExitReason {
    /// Whether it is a failure of the process: nothing that anybody asked for, or that
    /// its pool's limits say.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Crash
                | Self::Signal
                | Self::Oom
                | Self::BootTimeout
                | Self::CheckFailed
                | Self::HeartbeatTimeout
                | Self::ProtocolError
        )
    }

    /// Every reason, in the order in which they are documented.
    pub const ALL: [Self; 15] = [
        Self::Reload,
        Self::ScaleDown,
        Self::MaxRequests,
        Self::MaxRss,
        Self::MaxAge,
        Self::Operator,
        Self::Clean,
        Self::Crash,
        Self::Signal,
        Self::Oom,
        Self::BootTimeout,
        Self::CheckFailed,
        Self::HeartbeatTimeout,
        Self::DrainTimeout,
        Self::ProtocolError,
    ];

    /// The name used in JSON, metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::ScaleDown => "scale_down",
            Self::MaxRequests => "max_requests",
            Self::MaxRss => "max_rss",
            Self::MaxAge => "max_age",
            Self::Operator => "operator",
            Self::Clean => "clean",
            Self::Crash => "crash",
            Self::Signal => "signal",
            Self::Oom => "oom",
            Self::BootTimeout => "boot_timeout",
            Self::CheckFailed => "check_failed",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::DrainTimeout => "drain_timeout",
            Self::ProtocolError => "protocol_error",
        }
    }
}

/// A death certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Who or what caused it.
    pub reason: ExitReason,
    /// The exit code, where it exited.
    pub code: Option<i32>,
    /// The signal, where one ended it.
    pub signal: Option<i32>,
    /// The process id it had.
    pub pid: i32,
    /// Its generation.
    pub generation: u64,
    /// Its number in its slot.
    pub incarnation: u64,
    /// When it ended, in seconds since the Unix epoch.
    pub at: f64,
    /// How long it lived.
    pub uptime_seconds: f64,
    /// Requests it served, by its last report.
    pub requests: u64,
    /// Whether it counted no requests, so that `requests` says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncounted: bool,
    /// The most resident memory it had.
    pub peak_memory_bytes: u64,
    /// One sentence more: the broken rule, the errno, what `bye` said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The last of what it wrote to stderr, 8 KiB at most.
    pub stderr: String,
    /// The requests that it was serving when it ended, the oldest first, 16 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_flight: Vec<RunningRequest>,
    /// Further requests that it was serving.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub in_flight_unlisted: u64,
    /// Where its threads were when the supervisor lost patience with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_dump: Option<Box<ThreadDump>>,
}

impl Exit {
    /// Requests it served; none where it counted none.
    #[must_use]
    pub fn served(&self) -> Option<u64> {
        (!self.uncounted).then_some(self.requests)
    }
}
