//! `prefork run`: the supervisor in the foreground.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prefork_api::Exit;
use prefork_fleet::{BootFailure, Snapshot};
use socket2::{Domain, Socket, Type};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tracing::{info, warn};

use crate::admin::{self, Hosts};
use crate::config::{self, Config, Options};
use crate::control::{self, Allowed, Gate};
use crate::handle::Handle;
use crate::kernel::fd_reserve::{DEFAULT_SIZE, Reserve};
use crate::kernel::sandbox::{self, SandboxError};
use crate::kernel::sys;
use crate::log::Log;
use crate::reactor::event_batching::Rest;
use crate::reactor::{Inbox, Outcome, PoolError, Reactor, Setup, Signals};
use crate::run::runtime_dir::{RuntimeDir, RuntimeDirError};
use crate::run::startup::{self, Beginning};
use crate::systemd::activation;
use crate::upgrade::Handover;

/// Requests from the servers that may wait for the reactor.
const REQUESTS: usize = 256;

/// Connections to the admin address that may wait.
const ADMIN_BACKLOG: i32 = 128;

/// How long the last answers may take to reach their clients at the end.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why the supervisor could not run, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runtime directory.
    #[error(transparent)]
    RuntimeDir(#[from] RuntimeDirError),
    /// A sandbox has taken what nothing works without.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
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
    /// No pool of the first generation came up; with `strict_boot`, one did not.
    #[error("{}", each(.0))]
    BootFailed(Vec<BootFailure>),
}

/// Why each of the pools did not come up.
fn each(failures: &[BootFailure]) -> String {
    let said = failures.iter().map(|it| {
        format!(
            "{}/{} did not come up: {}{}",
            it.pool,
            it.slot,
            it.why,
            stderr_of(it.exit.as_ref())
        )
    });
    said.collect::<Vec<_>>().join("\n")
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
pub fn run(mut options: Options, config: Config) -> Result<(), RunError> {
    let io = |step| move |source| RunError::Io { step, source };
    options.settle(&config);
    let lacking = sandbox::look()?;
    sys::signals::outlive_file_limit().map_err(|errno| io("handle SIGXFSZ")(errno.into()))?;
    // Nothing that whoever started us left open may reach a worker.
    sys::close_on_exec_from(3).map_err(|errno| io("close inherited descriptors")(errno.into()))?;
    activation::take().map_err(io("take the service manager's sockets"))?;
    let nofile = raise_descriptor_limit().map_err(io("raise RLIMIT_NOFILE"))?;
    let log = Log::start(
        config.supervisor.log.as_deref(),
        config.supervisor.log_level.as_deref(),
        config.supervisor.log_format,
    )
    .map_err(io("open the log"))?;
    for what in lacking {
        warn!("{what}");
    }

    block_on(|rest| supervise(options, config, log, nofile, rest))
}

/// Goes on in the place of the program before this one, in the same process.
pub(crate) fn go_on(handover: Handover<Snapshot>) -> Result<(), RunError> {
    let io = |step| move |source| RunError::Io { step, source };
    sys::close_on_exec_from(3).map_err(|errno| io("close inherited descriptors")(errno.into()))?;
    sys::signals::outlive_file_limit().map_err(|errno| io("handle SIGXFSZ")(errno.into()))?;
    let supervisor = &handover.state.config.supervisor;
    let log = Log::start(supervisor.log.as_deref(), None, supervisor.log_format)
        .map_err(io("open the log"))?;
    if let Err(why) = log.set_level(&handover.log_level) {
        warn!("{why}");
    }
    // Run by its descriptor, it would be called by its number.
    let _ = nix::sys::prctl::set_name(c"prefork");
    block_on(|rest| continue_with(handover, log, rest))
}

fn block_on<Work>(work: impl FnOnce(Rest) -> Work) -> Result<(), RunError>
where
    Work: Future<Output = Result<(), RunError>>,
{
    let io = |step| move |source| RunError::Io { step, source };
    // Exec has made it readable for processes of the same user, workers among them.
    if let Err(errno) = nix::sys::prctl::set_dumpable(false) {
        warn!("processes of the same user can read this one: {errno}");
    }
    let rest = Rest::default();
    let before_waiting = rest.clone();
    // One thread, so that a fork never inherits a lock that another one holds.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || before_waiting.before_waiting())
        .build()
        .map_err(io("start the event loop"))?;
    LocalSet::new().block_on(&runtime, work(rest))
}

async fn supervise(
    options: Options,
    config: Config,
    log: Log,
    nofile: u64,
    rest: Rest,
) -> Result<(), RunError> {
    let io = |step| move |source| RunError::Io { step, source };
    let signals = Signals::take().map_err(io("listen to signals"))?;
    // As long as it is there under its name.
    let program = config::own_program(&options.directory());
    let program = program.map_err(io("find this program's file"))?;
    let runtime_dir = match RuntimeDir::take(&config.supervisor.runtime_dir) {
        Err(error) if error.is_for_want_of_a_place() => {
            warn!("{error}. It goes on without the control socket, and leaves no state behind");
            None
        }
        taken => Some(taken?),
    };
    let reserve = Rc::new(Reserve::new(DEFAULT_SIZE).map_err(io("keep spare descriptors"))?);
    let control = match (&runtime_dir, config.supervisor.control_mode) {
        (Some(dir), Some(mode)) => Some((dir.bind_control(mode)?, allowed(dir)?)),
        (Some(dir), None) => {
            dir.unbind_control();
            None
        }
        (None, _) => None,
    };
    let ipv6_only = config.supervisor.admin_ipv6_only;
    let admin = config.supervisor.admin;
    let admin = admin.map(|at| bind_admin(at, ipv6_only)).transpose()?;
    let socket = runtime_dir.as_ref().filter(|_| control.is_some());
    announce(&config.source, socket);
    if Signals::ignores_reload() {
        info!("SIGHUP is ignored, as it was at the start (nohup): `prefork reload` reloads");
    }
    let admin_hosts = Hosts::new(&config.supervisor.admin_hosts);
    let setup = Setup {
        options,
        config,
        nofile,
        log,
        reserve: Rc::clone(&reserve),
        rest: rest.clone(),
        keep: None,
        tickets: None,
    };
    let gate = Gate::default();
    let begun = match &runtime_dir {
        Some(dir) => {
            let beginning = Beginning {
                program,
                control: control.as_ref().map(|(socket, _)| socket.as_raw_fd()),
                admin: admin.as_ref().map(AsRawFd::as_raw_fd),
                gate: gate.clone(),
            };
            startup::begin(setup, dir, beginning).await?
        }
        None => Reactor::new(setup)?,
    };
    let servers = Servers {
        control,
        admin,
        admin_hosts,
        reserve,
        rest,
        gate,
    };
    serve(begun, servers, signals).await
}

async fn continue_with(handover: Handover<Snapshot>, log: Log, rest: Rest) -> Result<(), RunError> {
    let io = |step| move |source| RunError::Io { step, source };
    let signals = Signals::take().map_err(io("listen to signals"))?;
    let fixtures = handover.fixtures;
    activation::go_on(&handover.passed);
    let config = handover.state.config.clone();
    let mut options = handover.options.clone();
    options.settle(&config);
    let runtime_dir = RuntimeDir::go_on(
        &config.supervisor.runtime_dir,
        sys::claim(fixtures.lock),
        fixtures.own.map(sys::claim),
    )?;
    let reserve = Rc::new(Reserve::new(DEFAULT_SIZE).map_err(io("keep spare descriptors"))?);
    let control = match fixtures.control {
        Some(control) => {
            let control = UnixListener::from(sys::claim(control));
            Some((control, allowed(&runtime_dir)?))
        }
        None => None,
    };
    let admin = fixtures.admin.map(|fd| TcpListener::from(sys::claim(fd)));
    let admin = admin.map(tokio::net::TcpListener::from_std).transpose();
    let admin = admin.map_err(io("watch the admin address"))?;
    let admin_hosts = Hosts::new(&config.supervisor.admin_hosts);
    let setup = Setup {
        options,
        config,
        nofile: handover.nofile,
        log,
        reserve: Rc::clone(&reserve),
        rest: rest.clone(),
        keep: None,
        tickets: None,
    };
    let gate = Gate::default();
    let begun = startup::take_over(setup, &runtime_dir, handover, gate.clone())?;
    let servers = Servers {
        control,
        admin,
        admin_hosts,
        reserve,
        rest,
        gate,
    };
    serve(begun, servers, signals).await
}

/// Who answers operators and Prometheus.
struct Servers {
    /// None where there is no runtime directory, or it is not wanted.
    control: Option<(UnixListener, Allowed)>,
    admin: Option<tokio::net::TcpListener>,
    admin_hosts: Hosts,
    reserve: Rc<Reserve>,
    rest: Rest,
    gate: Gate,
}

/// Runs the reactor and its servers to the end.
async fn serve(
    (reactor, inbox): (Reactor, Inbox),
    servers: Servers,
    signals: Signals,
) -> Result<(), RunError> {
    let io = |step| move |source| RunError::Io { step, source };
    let Servers {
        control,
        admin,
        admin_hosts,
        reserve,
        rest,
        gate,
    } = servers;
    let control_fd = control.as_ref().map(|(socket, _)| socket.as_fd());
    let doors = control_fd
        .into_iter()
        .chain(admin.as_ref().map(AsFd::as_fd));
    let doors: io::Result<_> = doors.map(|socket| socket.try_clone_to_owned()).collect();
    rest.watch(doors.map_err(io("watch the sockets"))?);
    let (requests, mut received) = mpsc::channel(REQUESTS);
    let control = match control {
        Some((socket, allowed)) => {
            let socket = tokio::net::UnixListener::from_std(socket);
            Some(tokio::task::spawn_local(control::serve(
                socket.map_err(io("watch control.sock"))?,
                Handle(requests.clone()),
                Rc::clone(&reserve),
                allowed,
                gate.clone(),
            )))
        }
        None => None,
    };
    let admin = admin.map(|admin| {
        let serve = admin::serve(
            admin,
            Handle(requests.clone()),
            Rc::clone(&reserve),
            gate,
            admin_hosts,
        );
        tokio::task::spawn_local(serve)
    });

    let outcome = reactor.run(inbox, &mut received, signals).await;
    rest.watch(Vec::new());
    for server in [control, admin].into_iter().flatten() {
        server.abort();
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
        Outcome::BootFailed(failures) => Err(RunError::BootFailed(failures)),
    }
}

fn bind_admin(address: SocketAddr, ipv6_only: bool) -> Result<tokio::net::TcpListener, RunError> {
    let bind = || {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // As pools' listeners, whatever net.ipv6.bindv6only says.
            socket.set_only_v6(ipv6_only)?;
        }
        socket.bind(&address.into())?;
        socket.listen(ADMIN_BACKLOG)?;
        let listener = TcpListener::from(socket);
        info!("admin listening on {}", listener.local_addr()?);
        tokio::net::TcpListener::from_std(listener)
    };
    bind().map_err(|source| RunError::Admin { address, source })
}

/// Who may give commands.
fn allowed(runtime_dir: &RuntimeDir) -> Result<Allowed, RunError> {
    Allowed::of_socket(&runtime_dir.control_socket()).map_err(|source| RunError::Io {
        step: "look up the control socket's group",
        source,
    })
}

fn announce(source: &str, runtime_dir: Option<&RuntimeDir>) {
    let control = runtime_dir.map(RuntimeDir::control_socket);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        control = %control.unwrap_or_else(|| "none".into()).display(),
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
