//! Listening sockets that an earlier run bound and left with the service manager
//! (its file descriptor store, systemd.service(5)): they stay bound, and what
//! waits in their queues is kept, even when every process of the service is
//! killed at once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use socket2::SockRef;

use crate::config::{Address, Listen, Mode};

/// What the name of each begins with; no socket unit names its own so.
const PREFIX: &str = "prefork-";

/// Those that nobody has taken yet.
static LEFT: Mutex<Vec<Left>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Left {
    name: String,
    socket: OwnedFd,
}

/// The name under which the service manager keeps a socket: told from every
/// other by its cookie, and a unix socket with its file's number, which says
/// later whether that file still leads to it.
pub(crate) fn name(cookie: u64, file: Option<u64>) -> String {
    let file = file.map_or_else(String::new, |inode| format!("-{inode}"));
    format!("{PREFIX}{cookie}{file}")
}

/// The number of the file that is at a path now.
fn inode_at(path: &Path) -> io::Result<u64> {
    Ok(fs::symlink_metadata(path)?.ino())
}

/// Keeps what an earlier run has left; gives back what was passed otherwise.
pub(crate) fn keep(passed: Vec<(String, OwnedFd)>) -> Vec<(String, OwnedFd)> {
    let (left, others): (Vec<_>, _) = passed
        .into_iter()
        .partition(|(name, _)| name.starts_with(PREFIX));
    let left = left.into_iter().map(|(name, socket)| Left { name, socket });
    all().extend(left);
    others
}

/// The names of all that are kept here.
pub(crate) fn names() -> Vec<String> {
    all().iter().map(|left| left.name.clone()).collect()
}

/// One that is bound as `listen` asks for. Not for port 0, which is another
/// port each time.
pub(crate) fn take(listen: &Listen) -> Option<OwnedFd> {
    let mut left = all();
    let place = left.iter().position(|left| left.is_for(listen))?;
    Some(left.swap_remove(place).socket)
}

/// Those with one of these cookies.
pub(crate) fn take_known(cookies: &[u64]) -> BTreeMap<u64, OwnedFd> {
    let mut left = all();
    let mut taken = BTreeMap::new();
    for one in std::mem::take(&mut *left) {
        match SockRef::from(&one.socket).cookie() {
            Ok(cookie) if cookies.contains(&cookie) => {
                taken.insert(cookie, one.socket);
            }
            _ => left.push(one),
        }
    }
    taken
}

/// Closes those that no listener was for.
pub(crate) fn close_rest() {
    all().clear();
}

fn all() -> std::sync::MutexGuard<'static, Vec<Left>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Left {
    fn is_for(&self, listen: &Listen) -> bool {
        let socket = SockRef::from(&self.socket);
        let Ok(bound) = socket.local_addr() else {
            return false;
        };
        if !socket.is_listener().is_ok_and(|listens| listens) {
            return false;
        }
        match &listen.address {
            Address::Tcp(address) => {
                let own = socket.reuse_port().is_ok_and(|own| own);
                bound.as_socket() == Some(*address) && own == (listen.mode == Mode::PerSlot)
            }
            Address::Unix(path) => {
                let cookie = socket.cookie();
                let expected = cookie.and_then(|it| Ok(name(it, Some(inode_at(path)?))));
                bound.as_pathname() == Some(path) && expected.is_ok_and(|it| it == self.name)
            }
            Address::Systemd(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn left(socket: OwnedFd, file: Option<&Path>) -> Left {
        let cookie = SockRef::from(&socket).cookie().unwrap();
        let name = name(cookie, file.map(|path| inode_at(path).unwrap()));
        Left { name, socket }
    }

    fn listen(address: Address, mode: Mode) -> Listen {
        Listen {
            name: "x".to_owned(),
            address,
            mode,
            backlog: 16,
            permissions: None,
            group: None,
            ipv6_only: true,
            proxy_protocol: false,
            tls: None,
        }
    }

    #[test]
    fn a_socket_is_for_the_address_and_the_mode_that_it_was_bound_with() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let left = left(listener.into(), None);
        let at = Address::Tcp;
        assert!(left.is_for(&listen(at(address), Mode::Shared)));
        assert!(!left.is_for(&listen(at(address), Mode::PerSlot)));
        let other = (address.ip(), address.port() ^ 1).into();
        assert!(!left.is_for(&listen(at(other), Mode::Shared)));
    }

    #[test]
    fn a_unix_socket_is_of_use_as_long_as_its_file_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let first = UnixListener::bind(&path).unwrap();
        let left = left(first.into(), Some(&path));
        let wanted = listen(Address::Unix(path.clone()), Mode::Shared);
        assert!(left.is_for(&wanted));
        fs::rename(&path, dir.path().join("aside")).unwrap();
        assert!(!left.is_for(&wanted));
        let _second = UnixListener::bind(&path).unwrap();
        assert!(!left.is_for(&wanted));
    }

    #[test]
    fn what_a_socket_unit_passes_is_given_back() {
        let bound = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let ours = bound();
        let cookie = SockRef::from(&ours).cookie().unwrap();
        let passed = vec![("http".to_owned(), bound()), (name(cookie, None), ours)];
        let others = keep(passed);
        assert_eq!(others.len(), 1);
        assert_eq!(others[0].0, "http");
        let taken = take_known(&[cookie]);
        assert!(taken.contains_key(&cookie));
    }
}
