//! Listening sockets that the service manager bound and passed on, by name:
//! sd_listen_fds(3).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use socket2::{SockRef, Type};
use tracing::warn;

use crate::kernel::sys;
use crate::systemd::fdstore;
use crate::upgrade::HandedSocket;

/// Why there is no socket for a `systemd:NAME` listener.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActivationError {
    /// None has that name.
    #[error(
        "the service manager passed no socket named \"{name}\"{passed}; \
         set FileDescriptorName={name} in the socket unit and start the service by it"
    )]
    Missing {
        /// What was asked for.
        name: String,
        /// What there is instead.
        passed: String,
    },
    /// It takes no connections.
    #[error(
        "the socket \"{name}\" from the service manager is not a listening stream socket; \
         use ListenStream= and Accept=no in the socket unit"
    )]
    NotListening {
        /// What was asked for.
        name: String,
    },
    /// The system refused.
    #[error("cannot use the socket \"{name}\" from the service manager: {source}")]
    Io {
        /// What was asked for.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Kept for the whole life of the process: a reload may ask for a socket that
/// the configuration before did not use.
static PASSED: OnceLock<Passed> = OnceLock::new();

/// The sockets that came with the start.
#[derive(Debug)]
struct Passed(Vec<(String, OwnedFd)>);

/// Takes what the service manager passed out of the environment, so that no
/// other program mistakes its own descriptors for it.
///
/// # Errors
///
/// When `LISTEN_FDS` and its companions don't agree with what is open.
pub(crate) fn take() -> io::Result<()> {
    let passed = fdstore::keep(sys::take_listen_fds()?);
    PASSED.get_or_init(|| Passed(passed));
    Ok(())
}

/// Takes them from the program before this one, which had been passed them.
pub(crate) fn go_on(handed: &[HandedSocket]) {
    let passed = handed.iter();
    let passed = passed.map(|it| (it.name.clone(), sys::claim(it.fd)));
    PASSED.get_or_init(|| Passed(passed.collect()));
}

/// All of them, for the program that takes this one's place.
pub(crate) fn hand_over() -> Vec<HandedSocket> {
    let passed = PASSED.get().into_iter().flat_map(|passed| &passed.0);
    let handed = passed.map(|(name, fd)| HandedSocket {
        name: name.clone(),
        fd: fd.as_raw_fd(),
    });
    handed.collect()
}

/// Duplicates of the sockets with this name, close-on-exec; at least one. A
/// socket unit with several addresses passes one for each.
pub(crate) fn sockets(name: &str) -> Result<Vec<OwnedFd>, ActivationError> {
    static NONE: Passed = Passed(Vec::new());
    PASSED.get().unwrap_or(&NONE).sockets(name)
}

impl Passed {
    fn sockets(&self, name: &str) -> Result<Vec<OwnedFd>, ActivationError> {
        let named = self.0.iter().filter(|(known, _)| known == name);
        let found: Result<Vec<_>, _> = named.map(|(_, fd)| duplicate(name, fd)).collect();
        match found {
            Ok(found) if found.is_empty() => Err(self.missing(name)),
            found => found,
        }
    }

    fn missing(&self, name: &str) -> ActivationError {
        let names: Vec<&str> = self.0.iter().map(|(known, _)| known.as_str()).collect();
        let passed = if names.is_empty() {
            String::new()
        } else {
            format!(" (only {})", names.join(", "))
        };
        ActivationError::Missing {
            name: name.to_owned(),
            passed,
        }
    }
}

/// A duplicate of a socket, if it is one that workers can accept from.
fn duplicate(name: &str, fd: &OwnedFd) -> Result<OwnedFd, ActivationError> {
    let io = |source| ActivationError::Io {
        name: name.to_owned(),
        source,
    };
    let socket = SockRef::from(fd);
    // ENOTSOCK is one way not to be a listening stream socket.
    if is_deaf(&socket) {
        // A worker of an earlier run may have shut it down.
        let _ = socket.listen(libc::SOMAXCONN);
    }
    let listens = socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && socket.is_listener().is_ok_and(|listens| listens);
    if !listens {
        return Err(ActivationError::NotListening {
            name: name.to_owned(),
        });
    }
    if !socket.nonblocking().map_err(io)? {
        // The flag is shared: workers of a run before this one may accept
        // from the same socket, and one that does now waits there for good.
        warn!(
            "the service manager passed the socket \"{name}\" in blocking mode; \
             set NonBlocking=yes in the service unit"
        );
    }
    socket.set_nonblocking(true).map_err(io)?;
    fd.try_clone().map_err(io)
}

/// Whether it is bound to an address of its own and does not listen.
fn is_deaf(socket: &SockRef<'_>) -> bool {
    let bound = socket.local_addr().ok().and_then(|at| at.as_socket());
    bound.is_some_and(|at| at.port() != 0)
        && socket.peer_addr().is_err()
        && socket.is_listener().is_ok_and(|listens| !listens)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn passed(sockets: Vec<(&str, OwnedFd)>) -> Passed {
        let named = sockets.into_iter().map(|(name, fd)| (name.to_owned(), fd));
        Passed(named.collect())
    }

    fn tcp() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn a_socket_is_found_by_its_name_and_takes_connections() {
        let listener = tcp();
        let address = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(dir.path().join("sock")).unwrap();
        let passed = passed(vec![("admin", unix.into()), ("http", listener.into())]);
        let ours = passed.sockets("http").unwrap().pop().unwrap();
        let ours = TcpListener::from(ours);
        assert_eq!(ours.local_addr().unwrap(), address);
        let _client = TcpStream::connect(address).unwrap();
        ours.accept().expect("the connection is in the queue");
        passed.sockets("admin").unwrap();
    }

    #[test]
    fn what_cannot_be_served_from_is_refused_with_what_to_change() {
        let listener = tcp();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let passed = passed(vec![
            ("client", client.into()),
            ("udp", udp.into()),
            ("file", file.into()),
            ("twice", tcp().into()),
            ("twice", tcp().into()),
        ]);
        for name in ["client", "udp", "file"] {
            let error = passed.sockets(name).unwrap_err();
            assert!(
                matches!(error, ActivationError::NotListening { .. }),
                "{error}"
            );
        }
        assert_eq!(passed.sockets("twice").unwrap().len(), 2);
        let error = passed.sockets("http").unwrap_err().to_string();
        assert!(
            error.contains("no socket named \"http\" (only client, udp, file, twice, twice)"),
            "{error}"
        );
        assert!(error.contains("FileDescriptorName=http"), "{error}");
    }
}
