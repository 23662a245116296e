//! The runtime directory: one supervisor at a time owns it, by a lock, and
//! keeps its control socket in it.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Pid;
use prefork_proto::listening::SocketFile;
use socket2::{Domain, Socket, Type};

use crate::kernel::procfs;
use crate::kernel::trusted_path::{Directories, Place, Trusted};
use crate::listener::{bind_at, is_socket};
use crate::recovery::state;

/// The control socket's name in the runtime directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// The name of the socket for workers that come back.
const REJOIN_SOCKET: &str = "rejoin.sock";

/// How long a child of a dead supervisor may be on its way to exec, on a machine
/// that has much to do.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries to take the lock.
const LOCK_RETRY: Duration = Duration::from_millis(10);

const LOCK: &str = "lock";

/// As many connections as the kernel lets wait (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Permission to write for the group and for everybody.
const GROUP_WRITE: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Why the runtime directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// It belongs to somebody else, who could swap the control socket.
    #[error(
        "the runtime directory {path} belongs to user id {owner}; \
         choose another with --runtime-dir or [supervisor] runtime_dir",
        path = path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may write to it, and so put another socket in the control socket's place.
    #[error(
        "others may write to the runtime directory {path} (permissions {mode:04o}); \
         take that from them (chmod go-w), or choose another with --runtime-dir or \
         [supervisor] runtime_dir",
        path = path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another supervisor holds the lock.
    #[error(
        "another supervisor{holder} runs on {path}; \
         stop it with `prefork stop`, or choose another directory with --runtime-dir",
        path = path.display()
    )]
    Taken {
        /// The directory.
        path: PathBuf,
        /// ` (pid N)`, where the lock file says.
        holder: String,
    },
    /// The system refused.
    #[error(
        "cannot {step} {path}: {source}; \
         choose another directory with --runtime-dir or [supervisor] runtime_dir",
        path = path.display()
    )]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl RuntimeDirError {
    /// Whether there is no directory to be had where this runs, and nobody at a
    /// terminal to give another: on a read-only file system, and as a container's
    /// first process where its user may not write. Serving is worth more there
    /// than the control socket.
    pub(crate) fn is_for_want_of_a_place(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => true,
            io::ErrorKind::PermissionDenied => std::process::id() == 1,
            _ => false,
        }
    }

    /// Whether the reason is that this user may not, whatever state the
    /// directory is in.
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Foreign { .. } | Self::Open { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Taken { .. } => false,
        }
    }
}

/// A runtime directory that this process owns.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    /// Held until the supervisor ends, however it ends.
    lock: Flock<File>,
    /// The same on the directory itself, which outlives a lock file that a cleaner
    /// removes; none where the file system can't.
    own: Option<Flock<File>>,
    /// The sockets that were bound here.
    sockets: RefCell<Vec<SocketFile>>,
}

impl RuntimeDir {
    /// Makes the directory where there is none and takes its lock.
    pub fn take(path: &Path) -> Result<Self, RuntimeDirError> {
        let io = |step, at: &Path| {
            let path = at.to_owned();
            move |source| RuntimeDirError::Io { step, path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .map_err(io("create", path))?;
        let found = fs::metadata(path).map_err(io("examine", path))?;
        let owner = found.uid();
        let us = nix::unistd::geteuid().as_raw();
        if owner != us && owner != 0 {
            return Err(RuntimeDirError::Foreign {
                path: path.to_owned(),
                owner,
            });
        }

        let ours = [0, nix::unistd::getegid().as_raw()];
        let groups = found.mode() & GROUP_WRITE != 0 && !ours.contains(&found.gid());
        if groups || found.mode() & OTHERS_WRITE != 0 {
            return Err(RuntimeDirError::Open {
                path: path.to_owned(),
                mode: found.mode() & 0o7777,
            });
        }

        let at = path.join(LOCK);
        let file = Place::of(&at, Trusted::here(), Directories::Anybodys)
            .and_then(|place| place.open(OFlag::O_RDWR | OFlag::O_CREAT, 0o644))
            .map_err(|distrust| io("open", &at)(distrust.into()))?;
        let mut lock = match lock(file) {
            Ok(lock) => lock,
            Err((file, nix::Error::EWOULDBLOCK)) => {
                return Err(RuntimeDirError::Taken {
                    path: path.to_owned(),
                    holder: holder(file),
                });
            }
            Err((_, errno)) => return Err(io("lock", &at)(errno.into())),
        };
        let own = lock_directory(path, &mut lock)?;
        if let Some(pid) = state::living_supervisor(path) {
            // Its lock file was removed, and this is a new one.
            return Err(RuntimeDirError::Taken {
                path: path.to_owned(),
                holder: format!(" (pid {pid})"),
            });
        }
        let written = lock
            .rewind()
            .and_then(|()| lock.set_len(0))
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(io("write", &at))?;
        Ok(Self {
            path: path.to_owned(),
            lock,
            own,
            sockets: RefCell::default(),
        })
    }

    /// Goes on with the directory whose lock the program before this one held,
    /// in this process: who has the file open holds it.
    pub(crate) fn go_on(
        path: &Path,
        lock: OwnedFd,
        own: Option<OwnedFd>,
    ) -> Result<Self, RuntimeDirError> {
        let own = match own {
            Some(own) => Some(File::from(own)),
            // The program before this one did not know of that.
            None => File::open(path).ok(),
        };
        let own = own.and_then(|own| Flock::lock(own, FlockArg::LockExclusiveNonblock).ok());
        let lock = Flock::lock(File::from(lock), FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, errno)| RuntimeDirError::Io {
            step: "lock",
            path: path.join(LOCK),
            source: errno.into(),
        })?;
        let known = [CONTROL_SOCKET, REJOIN_SOCKET].map(|name| SocketFile::at(&path.join(name)));
        Ok(Self {
            path: path.to_owned(),
            lock,
            own,
            sockets: RefCell::new(known.into_iter().flatten().collect()),
        })
    }

    /// The lock's descriptor, for a program that takes this one's place.
    pub(crate) fn lock_number(&self) -> RawFd {
        self.lock.as_raw_fd()
    }

    /// The same of the directory's.
    pub(crate) fn own_number(&self) -> Option<RawFd> {
        self.own.as_ref().map(|own| own.as_raw_fd())
    }

    /// Binds the control socket, in place of one that a dead supervisor left.
    pub fn bind_control(&self, mode: u32) -> Result<UnixListener, RuntimeDirError> {
        self.bind(&self.control_socket(), mode)
    }

    /// Removes a control socket that is not wanted any more.
    pub(crate) fn unbind_control(&self) {
        let path = self.control_socket();
        if is_socket(&path) {
            let _ = fs::remove_file(path);
        }
    }

    /// Binds the socket to which workers come back. Those of a pool with a user
    /// of its own have to be able to connect; who comes is checked anyway.
    pub(crate) fn bind_rejoin(&self, for_all: bool) -> Result<UnixListener, RuntimeDirError> {
        self.bind(&self.rejoin_socket(), if for_all { 0o666 } else { 0o600 })
    }

    fn bind(&self, path: &Path, mode: u32) -> Result<UnixListener, RuntimeDirError> {
        let listener = bind(path, mode)?;
        self.sockets.borrow_mut().extend(SocketFile::at(path));
        Ok(listener)
    }

    /// Where workers come back to.
    pub(crate) fn rejoin_socket(&self) -> PathBuf {
        self.path.join(REJOIN_SOCKET)
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the control socket is.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join(CONTROL_SOCKET)
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // A client then reads "no supervisor is running" instead of a refusal.
        for file in self.sockets.borrow().iter() {
            let _ = file.remove();
        }
    }
}

/// Binds a socket in place of one that a dead supervisor left: the lock is ours,
/// so whoever bound it is gone.
fn bind(path: &Path, mode: u32) -> Result<UnixListener, RuntimeDirError> {
    let io = |step| {
        let path = path.to_owned();
        move |source| RuntimeDirError::Io { step, path, source }
    };
    if is_socket(path) {
        fs::remove_file(path).map_err(io("remove the old"))?;
    } else if fs::symlink_metadata(path).is_ok() {
        // No supervisor has left that.
        let there = io::ErrorKind::AlreadyExists.into();
        return Err(io("replace what is no socket at")(there));
    }
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::UNIX, kind, None).map_err(io("make a socket for"))?;
    bind_at(&socket, path, mode).map_err(io("bind"))?;
    socket.listen(BACKLOG).map_err(io("listen on"))?;
    Ok(OwnedFd::from(socket).into())
}

/// Takes the lock. A supervisor that was killed just after a fork leaves it to the
/// child until that has reached its exec: then some patience gets it. One that
/// lives keeps it, and there is nothing to wait for.
fn lock(mut file: File) -> Result<Flock<File>, (File, nix::Error)> {
    let begun = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((back, nix::Error::EWOULDBLOCK)) if begun.elapsed() < LOCK_PATIENCE => {
                file = back;
                if holder_pid(&mut file).is_some_and(is_alive) {
                    return Err((file, nix::Error::EWOULDBLOCK));
                }
                std::thread::sleep(LOCK_RETRY);
            }
            other => return other,
        }
    }
}

/// Takes the lock of the directory itself, which a supervisor has whose lock file
/// was removed. A child on its way to exec may have it for a moment, as with the other.
fn lock_directory(path: &Path, lock: &mut File) -> Result<Option<Flock<File>>, RuntimeDirError> {
    let io = |source| RuntimeDirError::Io {
        step: "open",
        path: path.to_owned(),
        source,
    };
    let begun = Instant::now();
    let mut directory = File::open(path).map_err(io)?;
    loop {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(own) => return Ok(Some(own)),
            Err((back, nix::Error::EWOULDBLOCK)) if begun.elapsed() < LOCK_PATIENCE => {
                directory = back;
                let living = state::living_supervisor(path);
                if living.is_some() || listener_of(&path.join(CONTROL_SOCKET)).is_some() {
                    break;
                }
                std::thread::sleep(LOCK_RETRY);
            }
            Err((_, nix::Error::EWOULDBLOCK)) => break,
            // The file system knows no such thing (flock(2)).
            Err(_) => return Ok(None),
        }
    }
    let pid = state::living_supervisor(path).or_else(|| listener_of(&path.join(CONTROL_SOCKET)));
    let pid = pid.or_else(|| {
        holder_pid(lock)
            .map(Pid::as_raw)
            .filter(|it| is_alive(Pid::from_raw(*it)))
    });
    Err(RuntimeDirError::Taken {
        path: path.to_owned(),
        holder: pid.map_or_else(String::new, |pid| format!(" (pid {pid})")),
    })
}

/// Who listens at a unix socket (unix(7), `SO_PEERCRED`).
fn listener_of(path: &Path) -> Option<i32> {
    let stream = UnixStream::connect(path).ok()?;
    let peer = getsockopt(&stream, PeerCredentials).ok()?;
    Some(peer.pid())
}

fn holder(mut lock: File) -> String {
    holder_pid(&mut lock).map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// Who took the lock last; unknown for a moment while it is written.
fn holder_pid(lock: &mut File) -> Option<Pid> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok().map(Pid::from_raw)
}

/// Whether it is there, and not only waits to be reaped.
fn is_alive(pid: Pid) -> bool {
    procfs::stat(pid).is_ok_and(|stat| stat.state != 'Z')
}
