//! Making a worker process: channel, pipes, fork, pidfd, task. Each step that
//! can fail for want of something has its own clear error, and leaves nothing
//! behind.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use prefork_fleet::Worker;
use prefork_proto::channel::{self, ChannelError};
use prefork_proto::message::{OutputOffer, OutputStream, PROTOCOL, RejoinOffer, Welcome};
use prefork_proto::request_table::{RequestTableError, Table};
use prefork_proto::scoreboard::{self, ScoreboardError};
use prefork_proto::tls::TicketKey;
use tracing::warn;

use crate::config;
use crate::kernel::sys;
use crate::listener::ListenError;
use crate::metrics::SlotMetrics;
use crate::reactor::Spawn;
use crate::reactor::generation::directories::Gone;
use crate::reactor::generation::revision::{Edition, PoolError};
use crate::reactor::worker_process::handle::{Grip, OfferedTable, SlotName, Start, Ties};
use crate::reactor::worker_process::inherited::Inherited;
use crate::reactor::worker_process::private_address::{Allotment, UpstreamError};
use crate::reactor::worker_process::task::{self, Check};
use crate::tls::Material;

/// Why no process could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BirthError {
    /// Only the spare descriptors are left.
    #[error(
        "no descriptors left for another worker: {open} of RLIMIT_NOFILE {limit} are open, \
         the rest is kept for operators; raise the limit or run fewer workers"
    )]
    Descriptors {
        /// Open descriptors.
        open: u64,
        /// The soft limit.
        limit: u64,
    },
    /// The pool or the generation has been removed meanwhile.
    #[error("its generation is gone")]
    NoEdition,
    /// No channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// No socket of the slot's own.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No memory for it to count in.
    #[error(transparent)]
    Scoreboard(#[from] ScoreboardError),
    /// No pipe, duplicate, or place in the event loop.
    #[error("cannot {step}: {source}{}", io_advice(.source))]
    Io {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The pool could not be set up when its generation began, nor can it now.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// No directory that it is to serve, or to start in.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// No private address for a program behind a front.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// No process.
    #[error("cannot fork: {errno}{}", fork_advice(*.errno))]
    Fork {
        /// What the system said.
        errno: nix::Error,
    },
}

impl BirthError {
    /// The reserve is all that is left.
    pub(crate) fn descriptors() -> Self {
        use nix::sys::resource::{Resource, getrlimit};

        Self::Descriptors {
            open: crate::kernel::procfs::open_fds(Pid::this()).unwrap_or(0),
            limit: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
        }
    }
}

fn io_advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "; the supervisor has no descriptor left: raise its RLIMIT_NOFILE",
        Some(libc::ENFILE) => "; the system has no descriptor left: raise fs.file-max",
        _ => "",
    }
}

fn fork_advice(errno: nix::Error) -> &'static str {
    match errno {
        nix::Error::EAGAIN => {
            "; a process limit is reached: look at RLIMIT_NPROC, the cgroup's pids.max and kernel.pid_max"
        }
        nix::Error::ENOMEM => "; there is no memory for another process",
        nix::Error::EDEADLK => {
            "; this process has another thread, whose locks would stay locked in the worker"
        }
        _ => "",
    }
}

/// What a worker is told that is not its edition's.
pub(crate) struct Told {
    /// Where it reports when this supervisor is gone.
    pub(crate) rejoin: Option<RejoinOffer>,
    /// The keys of its session tickets.
    pub(crate) tickets: Vec<TicketKey>,
    /// What it is to note of its requests.
    pub(crate) requests: config::Requests,
}

/// Makes a process and starts its task.
pub(crate) fn spawn(
    edition: &Edition,
    spawn: Spawn,
    allotment: Option<Allotment>,
    metrics: Rc<SlotMetrics>,
    told: Told,
    ties: Ties,
) -> Result<Grip, BirthError> {
    let Told {
        rejoin,
        tickets,
        requests: noted,
    } = told;
    let io = |step| move |source| BirthError::Io { step, source };
    let errno = |step| {
        move |errno: nix::Error| BirthError::Io {
            step,
            source: errno.into(),
        }
    };
    let Spawn {
        worker,
        generation,
        paused,
    } = spawn;
    let config = &edition.config;
    let upstream = allotment
        .as_ref()
        .and_then(|it| it.socket.address().cloned());
    let app = app(edition, allotment)?;
    let start = edition.places.start()?;

    // Everything that takes a descriptor comes before the fork, so that its
    // failure leaves no process; `place` keeps room for the pidfd.
    let (ours, theirs) = channel::pair()?;
    let scoreboard = scoreboard::create()?;
    // It is no reason to serve nobody (RLIMIT_FSIZE is for memory files as well).
    let requests = request_table(noted).unwrap_or_else(|error| {
        let slot = worker.slot;
        warn!(pool = %edition.name, slot, "what it serves will not be shown: {error}");
        None
    });
    let (stdout, stdout_writer) = pipe().map_err(errno("make a pipe for stdout"))?;
    let (stderr, stderr_writer) = pipe().map_err(errno("make a pipe for stderr"))?;
    let prints_to = [&stdout_writer, &stderr_writer].map(named);
    let outputs = output_ends([&stdout, &stderr]).map_err(io("duplicate a pipe"))?;
    let mut listeners = Vec::new();
    for (listen, sockets) in config.listen.iter().zip(&edition.sockets) {
        for listener in sockets.of_slot(worker.slot)? {
            let duplicate = listener.duplicate().map_err(io("duplicate a listener"))?;
            listeners.push((listener.offer(listen), duplicate));
        }
    }
    let certificates = edition.tls.as_ref().map(Material::copy).transpose();
    let certificates = certificates.map_err(io("hand over the certificates"))?;
    let place = edition
        .null
        .try_clone()
        .map_err(io("keep a place for the pidfd"))?;

    let access_log = edition
        .access_log
        .as_ref()
        .map(|log| log.copy())
        .transpose();
    let access_log = access_log.map_err(io("duplicate the access log"))?;
    let (inherited, handed_down) = if channel::has_room_in_flight() {
        Default::default()
    } else {
        let sent_later = [
            Some(&scoreboard.1),
            requests.as_ref().map(|it| &it.theirs),
            certificates.as_ref().map(|it| &it.memory),
        ];
        let outputs = outputs.iter().map(|(_, fd)| fd);
        let listeners = listeners.iter().map(|(_, fd)| fd);
        let fds = sent_later
            .into_iter()
            .flatten()
            .chain(outputs)
            .chain(listeners);
        Inherited::of(fds, access_log.as_ref())
    };

    let standard = [
        edition.null.as_fd(),
        stdout_writer.as_fd(),
        stderr_writer.as_fd(),
        theirs.as_fd(),
    ];
    let pid = edition
        .program
        .spawn(worker.slot, start, standard, &handed_down)
        .map_err(|errno| BirthError::Fork { errno })?;
    drop(place);
    let pidfd = sys::pidfd_open(pid).map_err(|errno| {
        abandon(pid);
        BirthError::Io {
            step: "open a pidfd",
            source: errno.into(),
        }
    })?;

    let start = Start {
        worker,
        slot: SlotName {
            pool: Rc::clone(&edition.name),
            slot: worker.slot,
        },
        pid: pid.as_raw(),
        pidfd,
        channel: ours,
        stdout,
        stderr,
        prints_to,
        welcome: welcome(edition, app, worker, generation, paused, rejoin),
        check: Check::of(config, upstream.clone()),
        upstream,
        scoreboard,
        requests,
        certificates,
        tickets,
        listeners,
        outputs,
        access_log: edition.access_log.clone(),
        inherited,
        metrics,
        heartbeat_timeout: config.policy.heartbeat_timeout,
    };
    task::watch(start, ties).map_err(|source| {
        abandon(pid);
        BirthError::Io {
            step: "watch the process",
            source,
        }
    })
}

/// Where a worker notes its requests, if it is to.
fn request_table(noted: config::Requests) -> Result<Option<OfferedTable>, RequestTableError> {
    if noted.table == 0 {
        return Ok(None);
    }
    let table = Table::create(noted.table)?;
    Ok(Some(OfferedTable {
        offer: table.offer(noted.query),
        theirs: table.duplicate()?,
        table,
    }))
}

/// The settings that a worker of this edition is told: the application's, or the
/// adapter's where its program does not speak the channel.
fn app(edition: &Edition, allotment: Option<Allotment>) -> Result<serde_json::Value, BirthError> {
    let (Some(allotment), Some(adapter)) = (allotment, &edition.config.adapter) else {
        return Ok(edition.places.app(&edition.config)?);
    };
    let brief = edition.program.brief(&edition.config, adapter, allotment);
    serde_json::to_value(brief).map_err(|error| BirthError::Io {
        step: "write down what the adapter is to do",
        source: error.into(),
    })
}

/// What a worker of this edition is told.
pub(crate) fn welcome(
    edition: &Edition,
    app: serde_json::Value,
    worker: Worker,
    generation: u64,
    paused: bool,
    rejoin: Option<RejoinOffer>,
) -> Welcome {
    let config = &edition.config;
    Welcome {
        protocol: PROTOCOL,
        pool: edition.name.to_string(),
        slot: worker.slot,
        generation,
        incarnation: worker.incarnation,
        heartbeat_ms: millis(config.heartbeat_interval),
        idle_grace_ms: millis(config.idle_grace),
        http: Box::new(config.http.clone()),
        app,
        paused,
        rejoin,
    }
}

/// Duplicates of the reading ends of stdout and stderr for the worker to keep.
pub(in crate::reactor) fn output_ends(
    [stdout, stderr]: [&OwnedFd; 2],
) -> io::Result<Vec<(OutputOffer, OwnedFd)>> {
    let ends = [
        (OutputStream::Stdout, stdout),
        (OutputStream::Stderr, stderr),
    ];
    let offers = ends.into_iter().map(|(stream, pipe)| {
        let offer = OutputOffer { stream, fds: 1 };
        Ok((offer, pipe.try_clone()?))
    });
    offers.collect()
}

/// A descriptor as `/proc` names it.
fn named(fd: &OwnedFd) -> Option<String> {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    target.to_str().map(str::to_owned)
}

fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Ends and reaps a child that can't be watched. It is ours and not reaped, so
/// the number is right; and SIGKILL before its exec is done at once.
fn abandon(pid: Pid) {
    let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    let _ = nix::sys::wait::waitpid(pid, None);
}
