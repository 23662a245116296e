//! `prefork check --boot`: whether a pool's worker comes up and answers, found
//! out with one that is thrown away.
//!
//! Each pool in turn gets a reactor of its own (`bench`), with one worker on
//! private listeners and no runtime directory: no supervisor is needed and none
//! is disturbed. A worker that is ready is asked something (`probe`).

mod bench;
mod probe;
mod trust;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::LocalSet;

use crate::cli::client::Deadline;
use crate::cli::units::seconds;
use crate::config;
use crate::log::Log;
use crate::reactor::PoolError;
use bench::Bench;

/// How much of the log a failure shows, in bytes.
const LOG_TAIL: u64 = 64 * 1024;

/// What became of one pool's throwaway worker.
#[derive(Debug)]
pub(crate) struct Check {
    /// The pool's name.
    pub(crate) pool: String,
    /// What it took to come up, or why it didn't.
    pub(crate) result: Result<Boot, BootError>,
    /// What a supervisor would have logged of it; empty where all went well.
    pub(crate) log: String,
}

/// What it took a worker to come up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Boot {
    /// From its start to `ready`, in seconds.
    pub(crate) seconds: f64,
    /// Its resident memory after the probe, in bytes.
    pub(crate) resident_bytes: Option<u64>,
    /// The HTTP status of its answer to the probe; `None` where the pool has no
    /// listener to ask it on, or is a front.
    pub(crate) status: Option<u16>,
}

/// Why a worker is no good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// It could not even be prepared.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// It was never ready.
    #[error("its worker did not come up: {why}")]
    NotReady {
        /// Why, for people.
        why: String,
        /// The last of its stderr.
        stderr: String,
    },
    /// It was ready, but nothing came that is HTTP.
    #[error("its worker came up but did not answer GET / on {address}: {why}")]
    NoAnswer {
        /// Where it was asked.
        address: String,
        /// What happened instead.
        why: String,
        /// The last of its stderr.
        stderr: String,
    },
    /// It was ready, and says itself that it fails.
    #[error(
        "its worker came up but answered GET / with {status}; where that is right, say in \
         `check` what it has to answer"
    )]
    Fails {
        /// The status of its answer.
        status: u16,
    },
    /// The time that was given is over.
    #[error("not done within {}", seconds(.after.as_secs_f64()))]
    TimedOut {
        /// The time that was given.
        after: Duration,
        /// The last of its stderr.
        stderr: String,
    },
    /// The events of the check could not be followed.
    #[error("its worker cannot be watched: {0}")]
    Blind(String),
    /// A signal ended the check.
    #[error("interrupted")]
    Interrupted,
}

impl BootError {
    /// The last that the worker wrote to stderr.
    pub(crate) fn stderr(&self) -> &str {
        match self {
            Self::NotReady { stderr, .. }
            | Self::NoAnswer { stderr, .. }
            | Self::TimedOut { stderr, .. } => stderr,
            Self::Pool(_) | Self::Fails { .. } | Self::Blind(_) | Self::Interrupted => "",
        }
    }
}

/// Why no check could be made at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {source}")]
pub(crate) struct SetUpError {
    /// What was tried.
    step: &'static str,
    /// What the system said.
    source: io::Error,
}

fn set_up(step: &'static str) -> impl FnOnce(io::Error) -> SetUpError {
    move |source| SetUpError { step, source }
}

/// Checks the pools one after another; where `within` is given, all of them
/// together take no longer. Must be called while the process has one thread: it
/// forks.
///
/// # Errors
///
/// Where this process lacks what it needs. What is wrong with a pool is in its
/// [`Check`].
pub(crate) fn run(
    config: &config::Config,
    pools: Vec<config::Pool>,
    within: Option<Duration>,
) -> Result<Vec<Check>, SetUpError> {
    let scratch = Scratch::new().map_err(set_up("make a temporary directory"))?;
    let log_path = scratch.0.join("log");
    let log = Log::start(Some(&log_path), None, None).map_err(set_up("open a temporary log"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(set_up("start the event loop"))?;
    LocalSet::new().block_on(&runtime, async {
        let bench = Bench {
            config,
            scratch: &scratch.0,
            log,
            deadline: within.map(Deadline::after),
        };
        let mut checks = Vec::new();
        for pool in pools {
            let name = pool.policy.name.clone();
            let begins_at = fs::metadata(&log_path).map_or(0, |log| log.len());
            let result = bench.try_out(pool).await?;
            let interrupted = matches!(result, Err(BootError::Interrupted));
            let log = match &result {
                Ok(_) => String::new(),
                Err(_) => read_from(&log_path, begins_at).map_err(set_up("read the log"))?,
            };
            checks.push(Check {
                pool: name,
                result,
                log,
            });
            if interrupted {
                break;
            }
        }
        Ok(checks)
    })
}

/// The last of what a log holds from an offset on.
fn read_from(log: &Path, offset: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let tail = file.metadata()?.len().saturating_sub(LOG_TAIL);
    file.seek(SeekFrom::Start(offset.max(tail)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A directory that nobody else may enter and that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let template = std::env::temp_dir().join("prefork-check-XXXXXX");
        Ok(Self(nix::unistd::mkdtemp(&template)?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is small, and the system's to clean up.
        let _ = fs::remove_dir_all(&self.0);
    }
}
