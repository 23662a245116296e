//! Listeners to which nobody can come any more. A socket is one for all who hold
//! it: a worker may shut it down, or put a filter before it that nobody can take
//! off, and its own socket's file may be removed.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prefork_proto::listening;
use socket2::SockRef;

use super::{Listener, listen_on, open_again};

impl Listener {
    /// Why no client can come to it, if that is so.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.ended.get() {
            return None;
        }
        let problem = match self.file() {
            Some(file) if !file.is_there() => {
                let path = file.path().display();
                format!("the socket {path} was removed, or another is in its place")
            }
            _ if self.is_shut_down() => {
                format!("{} was shut down by a process that holds it", self.address)
            }
            _ if self.is_filtered() => format!(
                "a process that holds {} keeps clients from it by a socket filter",
                self.address
            ),
            _ => return None,
        };
        Some(format!(
            "{problem}: nobody can connect to it until a reload binds it anew"
        ))
    }

    /// Takes back what a process that holds it has done to it, as far as that can
    /// be; says what it was.
    pub(crate) fn mend(&self) -> Option<String> {
        if self.ended.get() {
            return None;
        }
        let socket = SockRef::from(&self.socket);
        if self.is_filtered() && open_again(&socket).is_ok() {
            return Some("a process that holds it had put a filter before it".to_owned());
        }
        let is_mended =
            self.is_shut_down() && listen_on(&socket, self.limit).is_ok() && !self.is_shut_down();
        is_mended.then(|| "a process that holds it had shut it down".to_owned())
    }

    fn is_shut_down(&self) -> bool {
        if !self.is_unix {
            let listens = SockRef::from(&self.socket).is_listener();
            return listens.is_ok_and(|listens| !listens);
        }
        // A unix socket listens on and refuses whoever comes (unix(7)).
        let hung_up = PollFlags::from_bits_retain(libc::POLLRDHUP | libc::POLLHUP);
        let mut polled = [PollFd::new(self.socket.as_fd(), hung_up)];
        // Not by `revents()`: it gives none where a flag is set that nix has no name for.
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    fn is_filtered(&self) -> bool {
        // The kernel passes nothing through the filter of a unix stream socket.
        !self.is_unix && listening::is_filtered(&self.socket).is_ok_and(|filtered| filtered)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use prefork_proto::listening::refuse_handshakes;

    use super::*;
    use crate::config::{Address, Listen, Mode};

    fn bound(name: &str) -> Listener {
        let address = match name.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp(name.parse().unwrap()),
        };
        let listen = Listen {
            name: name.to_owned(),
            address,
            mode: Mode::Shared,
            backlog: 16,
            permissions: None,
            group: None,
            ipv6_only: true,
            proxy_protocol: false,
            tls: None,
        };
        Listener::bind(&listen, false, &[]).unwrap()
    }

    #[test]
    fn what_a_holder_has_done_to_a_tcp_listener_is_taken_back() {
        let listener = bound("127.0.0.1:0");
        assert_eq!((listener.problem(), listener.mend()), (None, None));
        let held = listener.duplicate().unwrap();
        refuse_handshakes(&held).unwrap();
        assert!(listener.problem().unwrap().contains("socket filter"));
        assert!(listener.mend().unwrap().contains("filter"));
        assert_eq!(listener.problem(), None);
        TcpStream::connect(listener.bound().unwrap()).unwrap();
        // The port is kept where it was asked for by its number.
        let listener = bound(
            &listener
                .bound()
                .unwrap()
                .to_string()
                .replace("127.0.0.1", "127.0.0.2"),
        );
        let held = listener.duplicate().unwrap();
        SockRef::from(&held).shutdown(Shutdown::Both).unwrap();
        assert!(listener.problem().unwrap().contains("shut down"));
        assert!(listener.mend().unwrap().contains("shut it down"));
        assert_eq!(listener.problem(), None);
        TcpStream::connect(listener.bound().unwrap()).unwrap();
        // What we have ended ourselves is no problem, and stays so.
        listener.seal().unwrap();
        assert_eq!((listener.problem(), listener.mend()), (None, None));
    }

    #[test]
    fn a_filter_on_a_unix_socket_keeps_nobody_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = bound(&format!("unix:{}", path.display()));
        let held = listener.duplicate().unwrap();
        let code = (libc::BPF_RET | libc::BPF_K) as u16;
        let nothing = socket2::SockFilter::new(code, 0, 0, 0);
        SockRef::from(&held).attach_filter(&[nothing]).unwrap();
        assert!(listening::is_filtered(&held).unwrap());
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"hello").unwrap();
        let (served, _) = SockRef::from(&held).accept().unwrap();
        let mut served = UnixStream::from(std::os::fd::OwnedFd::from(served));
        served.set_nonblocking(false).unwrap();
        let mut heard = [0; 5];
        served.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        assert_eq!((listener.problem(), listener.mend()), (None, None));
    }

    #[test]
    fn a_unix_socket_that_was_shut_down_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let connects = |path: &Path| UnixStream::connect(path).map_err(|error| error.kind());
        let listener = bound(&format!("unix:{}", path.display()));
        connects(&path).unwrap();
        assert_eq!(listener.problem(), None);
        let held = listener.duplicate().unwrap();
        SockRef::from(&held).shutdown(Shutdown::Both).unwrap();
        assert_eq!(connects(&path).unwrap_err(), ErrorKind::ConnectionRefused);
        assert!(listener.problem().unwrap().contains("shut down"));
        assert_eq!(listener.mend(), None);
        let again = bound(&format!("unix:{}", path.display()));
        drop(listener);
        assert_eq!(again.problem(), None);
        connects(&path).unwrap();
    }
}
