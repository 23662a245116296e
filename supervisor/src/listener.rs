//! Listening sockets. The supervisor owns each for its whole life; workers get
//! duplicates through their channels.

mod unix_queue;

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode as Permissions, fchmod, umask};
use prefork_proto::listening::refuse_handshakes;
use prefork_proto::message::ListenerOffer;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::activation;
use crate::config::{Address, Listen, Mode};
use crate::left;
use crate::sys;

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {name}: {source}{advice}")]
pub struct ListenError {
    name: String,
    source: io::Error,
    advice: &'static str,
}

impl ListenError {
    fn new(name: &str, source: io::Error) -> Self {
        let file = name.strip_prefix("unix:").map(Path::new);
        let advice = match source.kind() {
            io::ErrorKind::AddrInUse if file.is_some_and(|path| !is_socket(path)) => {
                "; what is there is no socket and is left alone: remove it, or choose another path"
            }
            io::ErrorKind::NotFound if file.is_some() => {
                "; its directory does not exist: create it, or choose another"
            }
            io::ErrorKind::AddrInUse => "; another program holds it: stop that, or choose another",
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 and foreign directories need privileges: run as root or choose another"
            }
            io::ErrorKind::AddrNotAvailable => {
                "; no interface of this machine has that address: use one it has, or 0.0.0.0"
            }
            _ => "",
        };
        Self {
            name: name.to_owned(),
            source,
            advice,
        }
    }
}

/// A bound, listening, non-blocking socket.
#[derive(Debug)]
pub struct Listener {
    name: String,
    address: String,
    limit: u32,
    socket: OwnedFd,
    is_unix: bool,
    /// The unix socket's path, to be removed when the listener ends.
    path: RefCell<Option<PathBuf>>,
    /// Whether the service manager holds it as well, beyond our end.
    inherited: bool,
}

impl Listener {
    /// Binds what the configuration asks for.
    pub fn bind(listen: &Listen) -> Result<Self, ListenError> {
        let fail = |source| ListenError::new(&listen.name, source);
        if let Some(socket) = left::take(listen) {
            return Self::take_back(listen, socket.into()).map_err(fail);
        }
        match &listen.address {
            Address::Tcp(address) => Self::bind_tcp(listen, *address).map_err(fail),
            Address::Unix(path) => Self::bind_unix(listen, path).map_err(fail),
            Address::Systemd(name) => Self::inherit(listen, name).map_err(fail),
        }
    }

    fn bind_tcp(listen: &Listen, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            None,
        )?;
        // A restart must not wait for the last run's connections in TIME_WAIT.
        socket.set_reuse_address(true)?;
        if listen.mode == Mode::PerSlot {
            socket.set_reuse_port(true)?;
        }
        if address.is_ipv6() {
            // So that 0.0.0.0:80 and [::]:80 can be listened on side by side.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        listen_on(&socket, listen.backlog)?;
        let address = socket
            .local_addr()?
            .as_socket()
            .map_or_else(|| listen.name.clone(), |address| address.to_string());
        Ok(Self {
            name: listen.name.clone(),
            address,
            limit: listen.backlog,
            socket: socket.into(),
            is_unix: false,
            path: RefCell::new(None),
            inherited: false,
        })
    }

    fn bind_unix(listen: &Listen, path: &Path) -> io::Result<Self> {
        remove_stale_socket(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        bind_at(&socket, path, listen.permissions)?;
        listen_on(&socket, listen.backlog)?;
        Ok(Self {
            name: listen.name.clone(),
            address: format!("unix:{}", path.display()),
            limit: listen.backlog,
            socket: socket.into(),
            is_unix: true,
            path: RefCell::new(Some(path.to_owned())),
            inherited: false,
        })
    }

    /// Takes a socket that an earlier run bound for the same.
    fn take_back(listen: &Listen, socket: Socket) -> io::Result<Self> {
        open_again(&socket)?;
        socket.set_nonblocking(true)?;
        listen_on(&socket, listen.backlog)?;
        let bound = socket.local_addr()?;
        let address = match (&listen.address, bound.as_socket()) {
            (Address::Unix(path), _) => format!("unix:{}", path.display()),
            (_, Some(address)) => address.to_string(),
            _ => listen.name.clone(),
        };
        if let (Address::Unix(path), Some(mode)) = (&listen.address, listen.permissions) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(Self::adopt(listen, &address, socket.into()))
    }

    /// Takes a socket that the service manager has bound.
    fn inherit(listen: &Listen, name: &str) -> io::Result<Self> {
        let socket = Socket::from(activation::socket(name).map_err(io::Error::other)?);
        open_again(&socket)?;
        let bound = socket.local_addr()?;
        let is_unix = bound.is_unix();
        let address = if let Some(address) = bound.as_socket() {
            address.to_string()
        } else if let Some(path) = bound.as_pathname() {
            format!("unix:{}", path.display())
        } else {
            listen.name.clone()
        };
        Ok(Self {
            name: listen.name.clone(),
            address,
            limit: listen.backlog,
            socket: socket.into(),
            is_unix,
            // The file is the service manager's, like the socket.
            path: RefCell::new(None),
            inherited: true,
        })
    }

    /// A socket that is listening already, from another holder. `address` is
    /// what it was bound to.
    pub(crate) fn adopt(listen: &Listen, address: &str, socket: OwnedFd) -> Self {
        let path = match &listen.address {
            Address::Tcp(_) | Address::Systemd(_) => None,
            Address::Unix(path) => Some(path.clone()),
        };
        Self {
            name: listen.name.clone(),
            address: address.to_owned(),
            limit: listen.backlog,
            socket,
            is_unix: address.starts_with("unix:"),
            path: RefCell::new(path),
            inherited: matches!(listen.address, Address::Systemd(_)),
        }
    }

    /// What tells this socket from every other of this boot, whoever holds it
    /// (socket(7), `SO_COOKIE`).
    pub(crate) fn cookie(&self) -> io::Result<u64> {
        SockRef::from(&self.socket).cookie()
    }

    /// The name under which the service manager may keep it as well; none for
    /// one that is the manager's own, or is on its way out.
    pub(crate) fn name_to_keep(&self) -> Option<String> {
        if self.inherited {
            return None;
        }
        let path = self.path.borrow();
        if self.is_unix && path.is_none() {
            return None;
        }
        left::name(self.cookie().ok()?, path.as_deref()).ok()
    }

    /// The descriptor's number, for a program that takes this one's place.
    pub(crate) fn number(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// As configured; its name everywhere.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is bound to; the real port where the configuration says 0.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The line that goes with this listener's descriptor to a worker, which
    /// is to speak TLS on it or not.
    pub fn offer(&self, tls: bool) -> ListenerOffer {
        ListenerOffer {
            name: self.name.clone(),
            address: self.address.clone(),
            tls,
            fds: 1,
        }
    }

    /// A duplicate for a worker, close-on-exec.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// The address that it is really bound to, for TCP.
    pub fn bound(&self) -> Option<SocketAddr> {
        self.address.parse().ok()
    }

    /// Takes a new backlog, as far as the system allows.
    pub fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        listen_on(&SockRef::from(&self.socket), backlog)
    }

    /// Takes no new connection from here on, while those that wait in the queue
    /// can still be accepted. A client that comes now is answered once the
    /// socket is closed: refused at its next try, never reset.
    pub fn seal(&self) -> io::Result<()> {
        if self.inherited {
            // Whoever comes now waits for the next to serve from it.
            return Ok(());
        }
        if self.is_unix {
            // Whoever comes now finds nothing there.
            return self.path.take().map_or(Ok(()), fs::remove_file);
        }
        refuse_handshakes(&self.socket)
    }

    /// Depth and limit of the accept queue as it is now; the depth of a unix
    /// socket's queue is unknown where the kernel has no `unix_diag`.
    pub fn backlog(&self) -> (Option<u64>, u64) {
        let queue = self.queue();
        (
            queue.map(|(depth, _)| depth),
            queue.map_or(u64::from(self.limit), |(_, limit)| limit),
        )
    }

    /// Depth and limit of the accept queue, if the kernel tells.
    fn queue(&self) -> Option<(u64, u64)> {
        if self.is_unix {
            return unix_queue::accept_queue(&self.socket).ok();
        }
        sys::accept_queue(&self.socket).ok()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // The name goes with the supervisor; connections go on.
            let _ = fs::remove_file(path);
        }
    }
}

/// Lets a socket take handshakes again that refused them at the end of an
/// earlier run.
fn open_again(socket: &Socket) -> io::Result<()> {
    match socket.detach_filter() {
        // It has none, as usual.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        detached => detached,
    }
}

fn listen_on(socket: &Socket, backlog: u32) -> io::Result<()> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// Whether a socket is at the path.
pub(crate) fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// Binds a unix socket that has its permissions from its first moment on. By its path
/// they could be changed only afterwards, and then of whatever lies there by then.
pub(crate) fn bind_at(socket: &Socket, path: &Path, mode: Option<u32>) -> io::Result<()> {
    let address = SockAddr::unix(path)?;
    let Some(mode) = mode else {
        return socket.bind(&address);
    };
    // What bind(2) makes has the socket's own bits, less the mask.
    fchmod(socket, Permissions::from_bits_truncate(mode))?;
    let before = umask(Permissions::empty());
    let bound = socket.bind(&address);
    umask(before);
    bound
}

/// Removes a socket file that nobody listens on. Anything else in its place is
/// left alone, and bind says "address in use".
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    if !is_socket(path) {
        return Ok(());
    }
    // Non-blocking: a listener whose queue is full would keep a connect waiting.
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}
