//! `prefork run`: the supervisor in the foreground.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prefork_proto::control::Exit;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tracing::{info, warn};

use crate::admin;
use crate::config::{Config, Options};
use crate::control::{self, Allowed};
use crate::handle::Handle;
use crate::log::Log;
use crate::reactor::{Outcome, PoolError, Reactor, Setup, Signals};
use crate::reserve::{DEFAULT_SIZE, Reserve};
use crate::runtime_dir::{RuntimeDir, RuntimeDirError};
use crate::sys;

/// Requests from the servers that may wait for the reactor.
const REQUESTS: usize = 256;

/// How long the last answers may take to reach their clients at the end.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why the supervisor could not run, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runtime directory.
    #[error(transparent)]
    RuntimeDir(#[from] RuntimeDirError),
    /// A pool's program or listener.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The admin address.
    #[error(
        "cannot serve metrics on {address}: {source}; choose another with --admin or [supervisor] admin (\"\" for none)"
    )]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else that the system refused.
    #[error("cannot {step}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The first generation did not come up.
    #[error("{slot} did not come up: {why}{}", stderr_of(.exit.as_deref()))]
    BootFailed {
        /// `web/0`.
        slot: String,
        /// Why.
        why: String,
        /// The certificate, where there was a process.
        exit: Option<Box<Exit>>,
    },
}

fn stderr_of(exit: Option<&Exit>) -> String {
    match exit {
        Some(exit) if !exit.stderr.trim().is_empty() => {
            format!("\nits last words on stderr:\n{}", exit.stderr.trim_end())
        }
        _ => String::new(),
    }
}

/// Runs the supervisor until it is stopped.
pub fn run(options: Options, config: Config) -> Result<(), RunError> {
    let io = |step| move |source| RunError::Io { step, source };
    // Nothing that whoever started us left open may reach a worker.
    sys::close_on_exec_from(3).map_err(|errno| io("close inherited descriptors")(errno.into()))?;
    let nofile = raise_descriptor_limit().map_err(io("raise RLIMIT_NOFILE"))?;
    let log = Log::start(config.supervisor.log.as_deref()).map_err(io("open the log"))?;

    // One thread, so that a fork never inherits a lock that another one holds.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("start the event loop"))?;
    LocalSet::new().block_on(&runtime, supervise(options, config, log, nofile))
}

async fn supervise(
    options: Options,
    config: Config,
    log: Log,
    nofile: u64,
) -> Result<(), RunError> {
    let io = |step| move |source| RunError::Io { step, source };
    let signals = Signals::take().map_err(io("listen to signals"))?;
    let runtime_dir = RuntimeDir::take(&config.supervisor.runtime_dir)?;
    let reserve = Rc::new(Reserve::new(DEFAULT_SIZE).map_err(io("keep spare descriptors"))?);
    let control = runtime_dir.bind_control(config.supervisor.control_mode)?;
    let allowed = Allowed::of_socket(&runtime_dir.control_socket())
        .map_err(io("look up the control socket's group"))?;
    let admin = config.supervisor.admin.map(bind_admin).transpose()?;
    announce(&config.source, &runtime_dir);
    let (reactor, inbox) = Reactor::new(Setup {
        options,
        config,
        nofile,
        log,
        reserve: Rc::clone(&reserve),
    })?;

    let (requests, mut received) = mpsc::channel(REQUESTS);
    let control = tokio::net::UnixListener::from_std(control).map_err(io("watch control.sock"))?;
    let control = tokio::task::spawn_local(control::serve(
        control,
        Handle(requests.clone()),
        Rc::clone(&reserve),
        allowed,
    ));
    let admin = admin.map(|admin| {
        let serve = admin::serve(admin, Handle(requests.clone()), Rc::clone(&reserve));
        tokio::task::spawn_local(serve)
    });

    let outcome = reactor.run(inbox, &mut received, signals).await;
    control.abort();
    if let Some(admin) = admin {
        admin.abort();
    }
    drop(requests);
    // The job that asked for the stop gets its last line before we go: every
    // connection holds a handle until it is done.
    let farewell = async { while received.recv().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
    match outcome {
        Outcome::Stopped => {
            info!("stopped");
            Ok(())
        }
        Outcome::BootFailed { slot, why, exit } => Err(RunError::BootFailed {
            slot,
            why,
            exit: exit.map(Box::new),
        }),
    }
}

fn bind_admin(address: SocketAddr) -> Result<tokio::net::TcpListener, RunError> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        info!("admin listening on {}", listener.local_addr()?);
        tokio::net::TcpListener::from_std(listener)
    };
    bind().map_err(|source| RunError::Admin { address, source })
}

fn announce(source: &str, runtime_dir: &RuntimeDir) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        control = %runtime_dir.control_socket().display(),
        "prefork starts, configured by {source}"
    );
}

/// Raises the soft limit to the hard one: each worker costs five descriptors
/// here. Returns the old soft limit, which is what the workers get.
fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        warn!("RLIMIT_NOFILE stays at {soft}: {errno}");
    }
    Ok(soft)
}
