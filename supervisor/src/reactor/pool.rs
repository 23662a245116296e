//! A pool as the reactor has it: what its workers run and accept from.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tracing::info;

use super::program::{PinnedProgram, ProgramError};
use crate::config;
use crate::listener::{ListenError, Listener};

/// Why a pool could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Its program can't be pinned.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A listener can't be bound.
    #[error("pool {pool}: {source}")]
    Listen {
        /// The pool's name.
        pool: String,
        /// Which listener, and why.
        source: ListenError,
    },
    /// `/dev/null` can't be opened.
    #[error("cannot open /dev/null for the workers' stdin: {0}")]
    Null(std::io::Error),
}

/// One pool's configuration, pinned program and bound listeners.
#[derive(Debug)]
pub struct Pool {
    pub(crate) name: Rc<str>,
    pub(crate) config: config::Pool,
    pub(crate) program: PinnedProgram,
    pub(crate) listeners: Vec<Listener>,
    /// The workers' stdin.
    pub(crate) null: OwnedFd,
}

impl Pool {
    /// Pins the program and binds the listeners. `nofile` is the soft limit of
    /// descriptors that the workers get.
    pub fn set_up(config: config::Pool, nofile: u64) -> Result<Self, PoolError> {
        let program = PinnedProgram::pin(&config, nofile)?;
        let listen = |listen| {
            Listener::bind(listen).map_err(|source| PoolError::Listen {
                pool: config.policy.name.clone(),
                source,
            })
        };
        let listeners: Vec<_> = config.listen.iter().map(listen).collect::<Result<_, _>>()?;
        let policy = &config.policy;
        info!(
            pool = policy.name,
            "{} workers of {}",
            policy.workers,
            program.command_line().join(" ")
        );
        for listener in &listeners {
            info!(pool = policy.name, "listening on {}", listener.address());
        }
        Ok(Self {
            name: config.policy.name.as_str().into(),
            program,
            listeners,
            null: File::open("/dev/null").map_err(PoolError::Null)?.into(),
            config,
        })
    }
}
