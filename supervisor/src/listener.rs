//! Listening sockets. The supervisor owns each for its whole life; workers get
//! duplicates through their channels.

mod access;
mod deaf;
mod holder;
mod taken;
mod tcp;
mod unix_queue;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::rc::Rc;
use std::{fs, io};

use nix::sys::stat::{Mode as Permissions, fchmod, umask};
use prefork_proto::listening::{self, SocketFile, refuse_handshakes};
use prefork_proto::message::ListenerOffer;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tracing::warn;

use crate::config::{Address, Listen, SOCKET_PERMISSIONS};
use crate::kernel::sys;
use crate::systemd::{activation, fdstore};

pub(crate) use access::Access;
pub(crate) use holder::unix_listeners;
pub(crate) use taken::warnings as addresses_taken;

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {name}: {source}{advice}")]
pub struct ListenError {
    step: &'static str,
    name: String,
    source: io::Error,
    advice: String,
}

impl ListenError {
    fn new(listen: &Listen, source: io::Error) -> Self {
        Self {
            step: "listen on",
            name: listen.name.clone(),
            advice: advice(&listen.address, &source),
            source,
        }
    }

    /// The file of a unix socket could not be given its permissions or its group.
    fn granting(name: &str, step: &'static str, source: io::Error) -> Self {
        Self {
            step,
            name: name.to_owned(),
            advice: access::advice(step, &source).to_owned(),
            source,
        }
    }
}

/// What would be right instead.
fn advice(address: &Address, error: &io::Error) -> String {
    let file = match address {
        Address::Unix(path) => Some(path),
        Address::Tcp(_) | Address::Systemd(_) => None,
    };
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse if file.is_some_and(|path| !is_socket(path)) => {
            "; what is there is no socket and is left alone: remove it, or choose another path"
        }
        io::ErrorKind::NotFound if file.is_some() => {
            "; its directory does not exist: create it, or choose another"
        }
        io::ErrorKind::AddrInUse => return holder::advice(address),
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 and foreign directories need privileges: run as root or choose another"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this machine has that address: use one it has, or 0.0.0.0"
        }
        _ => "",
    };
    advice.to_owned()
}

/// A bound, listening, non-blocking socket.
#[derive(Debug)]
pub struct Listener {
    name: String,
    address: String,
    limit: u32,
    socket: OwnedFd,
    is_unix: bool,
    /// The unix socket's file, to be removed when the listener ends.
    file: RefCell<Option<SocketFile>>,
    /// Whether nobody is to come to it any more.
    ended: Cell<bool>,
    /// Whether the service manager holds it as well, beyond our end.
    inherited: bool,
}

impl Listener {
    /// Binds what the configuration asks for. `siblings` are the same listener's
    /// for other slots, `ours` whatever else is bound by this supervisor and may
    /// be in the way of the address.
    pub fn bind(
        listen: &Listen,
        siblings: bool,
        ours: &[Rc<Listener>],
    ) -> Result<Self, ListenError> {
        let fail = |source| ListenError::new(listen, source);
        let mut ours = ours.to_vec();
        if let Some(socket) = fdstore::take(listen) {
            let left = Self::take_back(listen, socket.into()).map_err(fail)?;
            if left.problem().is_none() {
                left.grant(Access::anew(listen))?;
                return Ok(left);
            }
            // It is in the way, and of no use.
            ours.push(Rc::new(left));
        }
        match &listen.address {
            Address::Tcp(address) => {
                let company = match siblings {
                    true => tcp::Company::Siblings,
                    false => tcp::Company::Others(&ours),
                };
                Self::bind_tcp(listen, *address, company).map_err(fail)
            }
            Address::Unix(path) => Self::bind_unix(listen, path),
            Address::Systemd(name) => {
                let mut inherited = Self::inherit(listen, name)?.into_iter();
                let missing = || fail(io::ErrorKind::NotFound.into());
                inherited.next().ok_or_else(missing)
            }
        }
    }

    /// Takes the sockets that the service manager has bound under this name; at
    /// least one.
    pub fn inherit(listen: &Listen, name: &str) -> Result<Vec<Self>, ListenError> {
        let fail = |source| ListenError::new(listen, source);
        let sockets = activation::sockets(name).map_err(io::Error::other);
        let sockets = sockets.map_err(fail)?.into_iter();
        let inherited = sockets.map(|it| Self::inherit_one(listen, it.into()));
        inherited.collect::<io::Result<_>>().map_err(fail)
    }

    fn bind_tcp(
        listen: &Listen,
        address: SocketAddr,
        company: tcp::Company<'_>,
    ) -> io::Result<Self> {
        let socket = tcp::bind(listen, address, company)?;
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
            file: RefCell::new(None),
            ended: Cell::new(false),
            inherited: false,
        })
    }

    fn bind_unix(listen: &Listen, path: &Path) -> Result<Self, ListenError> {
        let fail = |source| ListenError::new(listen, source);
        let bound = Self::bound_at(listen, path).map_err(fail)?;
        // Nobody can connect before it listens, so there is no moment with another group.
        bound.grant(Access::asked_for(listen))?;
        listen_on(&SockRef::from(&bound.socket), listen.backlog).map_err(fail)?;
        Ok(bound)
    }

    /// Bound, and not listening yet.
    fn bound_at(listen: &Listen, path: &Path) -> io::Result<Self> {
        remove_stale_socket(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        bind_at(
            &socket,
            path,
            listen.permissions.unwrap_or(SOCKET_PERMISSIONS),
        )?;
        let file = SocketFile::at(path)?;
        Ok(Self {
            name: listen.name.clone(),
            address: format!("unix:{}", path.display()),
            limit: listen.backlog,
            socket: socket.into(),
            is_unix: true,
            file: RefCell::new(Some(file)),
            ended: Cell::new(false),
            inherited: false,
        })
    }

    /// Takes a socket that an earlier run bound for the same.
    fn take_back(listen: &Listen, socket: Socket) -> io::Result<Self> {
        // Where a filter stays, it is seen as one that is of no use.
        let _ = open_again(&SockRef::from(&socket));
        socket.set_nonblocking(true)?;
        listen_on(&socket, listen.backlog)?;
        let bound = socket.local_addr()?;
        let address = match (&listen.address, bound.as_socket()) {
            (Address::Unix(path), _) => format!("unix:{}", path.display()),
            (_, Some(address)) => address.to_string(),
            _ => listen.name.clone(),
        };
        Ok(Self::adopt(listen, &address, socket.into(), None))
    }

    /// Takes a socket that the service manager has bound.
    fn inherit_one(listen: &Listen, socket: Socket) -> io::Result<Self> {
        let _ = open_again(&SockRef::from(&socket));
        let bound = socket.local_addr()?;
        let is_unix = bound.is_unix();
        let address = if let Some(address) = bound.as_socket() {
            address.to_string()
        } else if let Some(path) = bound.as_pathname() {
            format!("unix:{}", path.display())
        } else {
            listen.name.clone()
        };
        let inherited = Self {
            name: listen.name.clone(),
            address,
            limit: listen.backlog,
            socket: socket.into(),
            is_unix,
            // The file is the service manager's, like the socket.
            file: RefCell::new(None),
            ended: Cell::new(false),
            inherited: true,
        };
        match (inherited.problem(), bound.as_socket()) {
            (Some(problem), Some(address)) => {
                warn!("the service manager's {}: {problem}", listen.name);
                inherited.replace(listen, address)
            }
            _ => Ok(inherited),
        }
    }

    /// Binds its address anew beside it, since it is of no use any more.
    fn replace(self, listen: &Listen, address: SocketAddr) -> io::Result<Self> {
        let old = [Rc::new(self)];
        let new = Self::bind_tcp(listen, address, tcp::Company::Others(&old))?;
        // Whoever comes is to come to the new one, as long as the old one is there.
        let _ = listening::give_way(&old[0].socket);
        Ok(new)
    }

    /// A socket that is listening already, from another holder. `address` is
    /// what it was bound to, and `file` the file of a unix socket; where that is
    /// not known, it is taken to be what is at the path now.
    pub(crate) fn adopt(
        listen: &Listen,
        address: &str,
        socket: OwnedFd,
        file: Option<SocketFile>,
    ) -> Self {
        let file = match &listen.address {
            Address::Tcp(_) | Address::Systemd(_) => None,
            Address::Unix(path) => file.or_else(|| SocketFile::at(path).ok()),
        };
        Self {
            name: listen.name.clone(),
            address: address.to_owned(),
            limit: listen.backlog,
            socket,
            is_unix: address.starts_with("unix:"),
            file: RefCell::new(file),
            ended: Cell::new(false),
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
        let file = self.file();
        // One that nobody finds any more is of no use to another run.
        if self.is_unix && file.as_ref().is_none_or(|file| !file.is_there()) {
            return None;
        }
        let inode = file.and_then(|file| file.inode());
        Some(fdstore::name(self.cookie().ok()?, inode))
    }

    /// The file of a unix socket that was bound here.
    pub(crate) fn file(&self) -> Option<SocketFile> {
        self.file.borrow().clone()
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

    /// The line that goes with this listener's descriptor to a worker, which is to
    /// speak on it what `listen` says.
    pub fn offer(&self, listen: &Listen) -> ListenerOffer {
        ListenerOffer {
            name: self.name.clone(),
            address: self.address.clone(),
            tls: listen.tls.is_some(),
            proxy_protocol: listen.proxy_protocol,
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
        self.ended.set(true);
        if self.is_unix {
            // Whoever comes now finds nothing there.
            return self.file.take().map_or(Ok(()), |file| file.remove());
        }
        refuse_handshakes(&self.socket)
    }

    /// The same for one whose clients have another listener to come to: they do
    /// so at once.
    pub fn give_way(&self) -> io::Result<()> {
        if self.is_unix || self.inherited || listening::give_way(&self.socket).is_err() {
            return self.seal();
        }
        self.ended.set(true);
        Ok(())
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
        if let Some(file) = self.file.take() {
            // The name goes with the supervisor; connections go on.
            let _ = file.remove();
        }
    }
}

/// Lets a socket take handshakes again that refused them at the end of an
/// earlier run.
fn open_again(socket: &SockRef<'_>) -> io::Result<()> {
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
pub(crate) fn bind_at(socket: &Socket, path: &Path, mode: u32) -> io::Result<()> {
    let address = SockAddr::unix(path)?;
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
