//! What can go wrong for an operator, and the one place that decides exit codes.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use prefork_api::{ApiError, ErrorCode, Readiness, Status};

use super::units::seconds;
use crate::boot_check::SetUpError;
use crate::config::ConfigError;
use crate::run::supervise::RunError;

/// The exit code of `status --exit-code`. One that is on its way out is not ready.
pub(crate) fn readiness(status: &Status) -> u8 {
    match status.readiness() {
        _ if status.stopping => 7,
        Readiness::Ready => 0,
        Readiness::Degraded => 6,
        Readiness::NotReady => 7,
    }
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no socket.
    #[error(
        "no supervisor is running: there is no socket at {}\n\
         start one with `prefork run`, or say where it runs with --runtime-dir",
        socket.display()
    )]
    Absent { socket: PathBuf },
    /// There is a socket, and nobody behind it.
    #[error(
        "no supervisor is running: the socket at {} is stale, nobody listens on it\n\
         start one with `prefork run`, or say where it runs with --runtime-dir",
        socket.display()
    )]
    Stale { socket: PathBuf },
    /// The socket's permissions are in the way.
    #[error(
        "permission denied at {}: you must be root, the supervisor's user \
         or a member of the socket's group",
        socket.display()
    )]
    Denied { socket: PathBuf },
    /// Something else is in the way.
    #[error("cannot connect to {}: {error}", socket.display())]
    Unreachable { socket: PathBuf, error: io::Error },
    /// The supervisor answered by an error status.
    #[error("{0}")]
    Rejected(ApiError),
    /// A job was begun and failed.
    #[error("{0}")]
    JobFailed(ApiError),
    /// The answer broke off.
    #[error("the supervisor went away before it had answered: {0}")]
    Lost(String),
    /// The answer was not what this client understands.
    #[error("cannot understand the supervisor's answer: {0}; are both of one version?")]
    Malformed(String),
    /// The answer did not come in time.
    #[error("no answer within {}: the supervisor does not respond", seconds(after.as_secs_f64()))]
    NoAnswer { after: Duration },
    /// A job did not end in time.
    #[error(
        "not done within {}; the supervisor goes on with it: see `prefork status` and `prefork events`",
        seconds(after.as_secs_f64())
    )]
    Unfinished { after: Duration },
    /// What was waited for did not come.
    #[error("not {condition} within {}", seconds(after.as_secs_f64()))]
    NotReached { condition: String, after: Duration },
    /// A `health` probe's answer was no.
    #[error("{0}")]
    Unhealthy(String),
    /// Some of the workers that were told did not do it.
    #[error("{message}")]
    Told { message: String, timed_out: bool },
    /// A whole pool may have been meant, and nobody is there to be asked.
    #[error(
        "`{verb} {pool}` names a pool: say `{verb} --all {pool}` for every worker of it, \
         or name one worker as POOL/SLOT, for instance `{pool}/0`"
    )]
    NotSure { pool: String, verb: &'static str },
    /// Whoever was asked did not say yes.
    #[error("nothing was done")]
    Declined,
    /// There is nothing to draw on.
    #[error(
        "`prefork top` draws on a terminal, and here is none: \
         use `prefork top --once` for one picture, or `--output json` for figures"
    )]
    NoScreen,
    /// Nobody reads stdout any more, or it cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// A file could not be written.
    #[error("cannot write to {}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    /// There is something else where the SDK should be.
    #[error("{} is not the sources of the crate prefork-worker", path.display())]
    NotTheSdk { path: PathBuf },
    /// A crate has to say where the SDK is.
    #[error(
        "the crate prefork-worker is in no registry: say where its sources are, \
         the folder `worker` of prefork's, with --sdk DIR"
    )]
    NoSdk,
    /// The supervisor could not run, or its first generation did not come up.
    #[error(transparent)]
    Run(#[from] RunError),
    /// `check --pool` names a pool that the configuration doesn't have.
    #[error("there is no pool {pool} in the configuration; there is {known}")]
    NoSuchPool { pool: String, known: String },
    /// No worker could be tried out.
    #[error(transparent)]
    BootCheck(#[from] SetUpError),
    /// Workers that were tried out are no good.
    #[error("the check failed: {pools}")]
    NotBooted { pools: String, timed_out: bool },
    /// This process cannot have what it needs to work.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
}

impl Error {
    /// The command line's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Absent { .. } | Self::Stale { .. } => 3,
            Self::Denied { .. } => ErrorCode::Permission.exit_code(),
            Self::Run(RunError::RuntimeDir(error)) if error.is_permission() => {
                ErrorCode::Permission.exit_code()
            }
            Self::NoSuchPool { .. } => ErrorCode::NotFound.exit_code(),
            Self::Rejected(error) | Self::JobFailed(error) => error.code.exit_code(),
            Self::NoAnswer { .. }
            | Self::Unfinished { .. }
            | Self::NotReached { .. }
            | Self::Told {
                timed_out: true, ..
            }
            | Self::NotBooted {
                timed_out: true, ..
            } => ErrorCode::TimedOut.exit_code(),
            // `prefork metrics | head -1` is no failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::NoScreen | Self::NotSure { .. } | Self::NotTheSdk { .. } | Self::NoSdk => {
                ErrorCode::Usage.exit_code()
            }
            Self::Unreachable { .. }
            | Self::Declined
            | Self::Lost(_)
            | Self::Malformed(_)
            | Self::Unhealthy(_)
            | Self::Told { .. }
            | Self::Output(_)
            | Self::File { .. }
            | Self::Run(_)
            | Self::BootCheck(_)
            | Self::NotBooted { .. }
            | Self::Runtime(_) => ErrorCode::Failed.exit_code(),
            Self::Config(error) => error.exit_code(),
        }
    }

    /// Whether it says that no supervisor is there.
    pub(crate) fn is_not_running(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Stale { .. })
    }

    /// Whether there is nobody left to tell.
    pub(crate) fn is_quiet(&self) -> bool {
        self.exit_code() == 0
    }

    /// The last that a worker wrote, where a worker is the reason.
    pub(crate) fn stderr_tail(&self) -> Option<&str> {
        match self {
            Self::Rejected(error) | Self::JobFailed(error) if !error.stderr.is_empty() => {
                Some(&error.stderr)
            }
            _ => None,
        }
    }
}
