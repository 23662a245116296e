//! Listening sockets: those that the supervisor hands over, and the worker's
//! own when it runs alone.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use prefork_proto::listening::{SocketFile, refuse_handshakes};
use prefork_proto::message::ListenerOffer;
use rustls::ServerConfig;
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};
use tokio::net::{TcpStream, UnixStream};

use crate::connection::peer::Origin;
use crate::error::WorkerError;
use crate::transport::socket::Socket;
use crate::transport::tls::Endpoint;

/// How many connections may wait to be accepted when the worker runs alone.
const BACKLOG: i32 = 4096;

/// A listening socket and its name. Never `shutdown`: other processes hold
/// the same socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: Arc<str>,
    /// What it is bound to, in the words of who gave it.
    address: String,
    socket: RawSocket,
    kind: Kind,
    /// The file of a unix socket that was bound here.
    file: Option<SocketFile>,
    /// What its connections speak TLS with, if they do.
    tls: Option<Rc<Endpoint>>,
    /// Whether its connections begin with a header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Unix,
}

impl Listener {
    /// Takes a received descriptor in, by what it is and not by what it is called.
    pub(crate) fn from_fd(
        name: String,
        address: String,
        fd: OwnedFd,
        tls: Option<Rc<Endpoint>>,
        proxy_protocol: bool,
    ) -> Result<Self, WorkerError> {
        match Self::adopt(RawSocket::from(fd)) {
            Ok((socket, kind)) => Ok(Self {
                name: name.into(),
                address,
                socket,
                kind,
                file: None,
                tls,
                proxy_protocol,
            }),
            Err(problem) => Err(WorkerError::Listener { name, problem }),
        }
    }

    fn adopt(socket: RawSocket) -> Result<(RawSocket, Kind), String> {
        let listens = socket
            .is_listener()
            .map_err(|error| format!("its descriptor is not a socket: {error}"))?;
        if !listens {
            return Err("its descriptor is a socket that does not listen".to_owned());
        }
        let domain = socket.domain().map_err(|error| error.to_string())?;
        let kind = if domain == Domain::UNIX {
            Kind::Unix
        } else if domain == Domain::IPV4 || domain == Domain::IPV6 {
            Kind::Tcp
        } else {
            return Err(format!("its socket is of the unknown family {domain:?}"));
        };
        let socket = prepare(socket, kind).map_err(|error| error.to_string())?;
        Ok((socket, kind))
    }

    /// Binds a socket of the worker's own: `127.0.0.1:8080`, `[::1]:8080` or
    /// `unix:/run/app.sock`.
    pub(crate) fn bind(address: &str) -> Result<Self, WorkerError> {
        let refuse = |problem: String| WorkerError::Listen {
            address: address.to_owned(),
            problem,
        };
        let bound = match address.strip_prefix("unix:") {
            Some(path) => bind_unix(Path::new(path)).map(|socket| (socket, Kind::Unix)),
            None => {
                let address: SocketAddr = address.parse().map_err(|_| {
                    refuse("an address is 127.0.0.1:8080, [::1]:8080 or unix:/PATH".to_owned())
                })?;
                bind_tcp(address).map(|socket| (socket, Kind::Tcp))
            }
        };
        let (socket, kind) = bound.map_err(|error| refuse(error.to_string()))?;
        let file = address.strip_prefix("unix:").map(Path::new);
        let file = file.and_then(|path| SocketFile::at(path).ok());
        // Port 0 has become a real one.
        let bound = socket.local_addr().ok().and_then(|bound| bound.as_socket());
        let name = bound.map_or_else(|| address.to_owned(), |bound| bound.to_string());
        let socket = prepare(socket, kind).map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            address: name.clone(),
            name: name.into(),
            socket,
            kind,
            file,
            tls: None,
            proxy_protocol: false,
        })
    }

    /// The line with which it goes back to a supervisor.
    pub(crate) fn offer(&self) -> ListenerOffer {
        ListenerOffer {
            name: self.name.to_string(),
            address: self.address.clone(),
            tls: self.tls.is_some(),
            proxy_protocol: self.proxy_protocol,
            fds: 1,
        }
    }

    /// What the next connection is to do its handshake with, if it speaks TLS.
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|endpoint| endpoint.config())
    }

    /// A second descriptor of the same socket.
    ///
    /// # Errors
    /// EMFILE, as fcntl(2) says.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }

    /// Lets no new handshake begin, while those that have begun can end.
    ///
    /// A unix socket knows no such thing; its name goes away instead.
    pub(crate) fn refuse_handshakes(&self) {
        match self.kind {
            Kind::Tcp => {
                // Without it, late clients are reset instead of refused.
                let _ = refuse_handshakes(&self.socket);
            }
            Kind::Unix => {
                if let Some(file) = &self.file {
                    // Someone may have removed it before, or bound the path anew.
                    let _ = file.remove();
                }
            }
        }
    }

    /// Takes the connection that has waited longest, and where it has come from;
    /// `WouldBlock` where none waits.
    pub(crate) fn accept(&self) -> io::Result<(Socket, Origin)> {
        let (socket, address) = self
            .socket
            .accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)?;
        let origin = Origin {
            address: address.as_socket(),
            listener: Arc::clone(&self.name),
        };
        let socket = match self.kind {
            Kind::Tcp => Socket::Tcp(TcpStream::from_std(socket.into())?),
            Kind::Unix => Socket::Unix(UnixStream::from_std(socket.into())?),
        };
        Ok((socket, origin))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn prepare(socket: RawSocket, kind: Kind) -> io::Result<RawSocket> {
    if kind == Kind::Tcp {
        // Accepted sockets inherit it (tcp(7)), which saves a call for each.
        socket.set_tcp_nodelay(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_tcp(address: SocketAddr) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bind_unix(path: &Path) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse || !is_left_over(path, &address)? {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Whether the path is a socket that no process listens on any more.
fn is_left_over(path: &Path, address: &SockAddr) -> io::Result<bool> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    let probe = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    let refused = probe.connect(address).map_err(|error| error.kind());
    Ok(refused == Err(io::ErrorKind::ConnectionRefused))
}
