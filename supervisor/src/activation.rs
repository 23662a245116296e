//! Listening sockets that the service manager bound and passed on, by name:
//! sd_listen_fds(3).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use socket2::{SockRef, Type};
use tracing::warn;

use crate::left;
use crate::sys;

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
    /// Several have it.
    #[error(
        "the service manager passed {count} sockets named \"{name}\"; \
         give each a socket unit with a FileDescriptorName= of its own"
    )]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// How many have the name.
        count: usize,
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
    let passed = left::keep(sys::take_listen_fds()?);
    PASSED.get_or_init(|| Passed(passed));
    Ok(())
}

/// A duplicate of the socket with this name, close-on-exec.
pub(crate) fn socket(name: &str) -> Result<OwnedFd, ActivationError> {
    static NONE: Passed = Passed(Vec::new());
    PASSED.get().unwrap_or(&NONE).socket(name)
}

impl Passed {
    fn socket(&self, name: &str) -> Result<OwnedFd, ActivationError> {
        let io = |source| ActivationError::Io {
            name: name.to_owned(),
            source,
        };
        let mut found = self.0.iter().filter(|(known, _)| known == name);
        let Some((_, fd)) = found.next() else {
            return Err(self.missing(name));
        };
        let others = found.count();
        if others > 0 {
            return Err(ActivationError::Ambiguous {
                name: name.to_owned(),
                count: others + 1,
            });
        }
        let socket = SockRef::from(fd);
        // ENOTSOCK is one way not to be a listening stream socket.
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
        let ours = TcpListener::from(passed.socket("http").unwrap());
        assert_eq!(ours.local_addr().unwrap(), address);
        let _client = TcpStream::connect(address).unwrap();
        ours.accept().expect("the connection is in the queue");
        passed.socket("admin").unwrap();
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
            let error = passed.socket(name).unwrap_err();
            assert!(
                matches!(error, ActivationError::NotListening { .. }),
                "{error}"
            );
        }
        let error = passed.socket("twice").unwrap_err().to_string();
        assert!(error.contains("2 sockets named \"twice\""), "{error}");
        let error = passed.socket("http").unwrap_err().to_string();
        assert!(
            error.contains("no socket named \"http\" (only client, udp, file, twice, twice)"),
            "{error}"
        );
        assert!(error.contains("FileDescriptorName=http"), "{error}");
    }
}
