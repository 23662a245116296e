//! Private addresses for programs that do not speak the channel, one for each
//! incarnation: a predecessor and its successor are both there.
//!
//! Below the runtime directory each pool has a directory that its program may write
//! to and the front's group may pass through, and nobody else. What lies in it is
//! named by slot and incarnation, which the runtime directory's lock makes ours.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use prefork_fleet::Worker;
use prefork_proto::adapter::{SOCKET_PATH_LIMIT, Socket, UpstreamAddress};

use crate::config::{self, RunAs, SocketKind};
use crate::recovery::state::SavedProcess;

/// The directory's name in the runtime directory.
const DIRECTORY: &str = "upstream";

/// Ports below are other people's by custom.
const FIRST_PORT: u16 = 10_000;

/// Tries to find a port that nobody has.
const TRIES: usize = 256;

/// Why an incarnation has no private address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// The kernel takes no path that long.
    #[error(
        "the path of its socket would be too long: {path} has {length} bytes, \
         and a unix socket's has at most {SOCKET_PATH_LIMIT}; \
         choose a shorter [supervisor] runtime_dir or pool name",
        path = path.display(),
        length = path.as_os_str().len()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Its directory can't be made.
    #[error("cannot {step} {path} for its private socket: {source}", path = path.display())]
    Directory {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No loopback port is free.
    #[error("cannot find a free port of {host}: {source}")]
    Port {
        /// The address.
        host: IpAddr,
        /// What the system said last.
        source: io::Error,
    },
}

/// What is the incarnation's own.
#[derive(Debug)]
pub(crate) struct Allotment {
    /// Where it takes requests.
    pub(crate) socket: Socket,
    /// Where it says how it is.
    pub(crate) notify: PathBuf,
}

/// The private addresses of a supervisor's workers.
#[derive(Debug)]
pub(in crate::reactor) struct Upstreams {
    directory: PathBuf,
    /// By process id: of processes that an earlier supervisor, or an earlier program
    /// of this one, has started.
    known: HashMap<i32, UpstreamAddress>,
}

impl Upstreams {
    pub(in crate::reactor) fn below(runtime_dir: &Path) -> Self {
        Self {
            directory: runtime_dir.join(DIRECTORY),
            known: HashMap::new(),
        }
    }

    /// What was written down of processes that live on.
    pub(in crate::reactor) fn know(&mut self, processes: &[SavedProcess]) {
        let addresses = processes.iter().filter_map(|process| {
            let address = process.upstream.clone()?;
            Some((process.pid, address))
        });
        self.known.extend(addresses);
    }

    /// The address of a process that was written down and is not held yet.
    pub(in crate::reactor) fn known(&self, pid: i32) -> Option<&UpstreamAddress> {
        self.known.get(&pid)
    }

    /// The address of a process that was written down, for who holds it from now on.
    pub(in crate::reactor) fn of(&mut self, pid: i32) -> Option<UpstreamAddress> {
        self.known.remove(&pid)
    }

    /// What a new incarnation gets that comes to its socket so. `front` is whom the
    /// front's processes run as that is before it.
    pub(in crate::reactor) fn allot(
        &self,
        pool: &config::Pool,
        socket_kind: SocketKind,
        worker: Worker,
        front: Option<&RunAs>,
        taken: &HashSet<SocketAddr>,
    ) -> Result<Allotment, UpstreamError> {
        let directory = self.directory.join(&pool.policy.name);
        let [socket, notify] = paths(&directory, worker);
        for path in [&socket, &notify] {
            if path.as_os_str().as_bytes().len() > SOCKET_PATH_LIMIT {
                return Err(UpstreamError::TooLong { path: path.clone() });
            }
        }
        self.prepare(&directory, pool.run_as.as_ref(), front)?;
        self.forget(&pool.policy.name, worker);
        let tcp = |host: Ipv4Addr| free(host.into(), taken).map(UpstreamAddress::Tcp);
        let socket = match socket_kind {
            SocketKind::Path => Socket::Bound(UpstreamAddress::Unix(socket)),
            SocketKind::Passed => Socket::Passed(UpstreamAddress::Unix(socket)),
            SocketKind::Port => Socket::Bound(tcp(Ipv4Addr::LOCALHOST)?),
            SocketKind::HostPort => Socket::Bound(tcp(own_host())?),
            SocketKind::Listeners => Socket::Listeners,
        };
        Ok(Allotment { socket, notify })
    }

    /// Makes the directory of a pool what it is to be, whatever it was.
    fn prepare(
        &self,
        directory: &Path,
        program: Option<&RunAs>,
        front: Option<&RunAs>,
    ) -> Result<(), UpstreamError> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| UpstreamError::Directory { step, path, source }
        };
        make(&self.directory).map_err(failed("create", &self.directory))?;
        set_mode(&self.directory, 0o711).map_err(failed("open", &self.directory))?;
        make(directory).map_err(failed("create", directory))?;
        let Some(program) = program else {
            return set_mode(directory, 0o700).map_err(failed("close", directory));
        };
        // A socket takes its group from such a directory (mkdir(2)), so that the
        // adapter can let the front in without being of its group.
        let other = front.filter(|front| front.uid != program.uid);
        let (gid, mode) = other.map_or((program.gid, 0o700), |front| (front.gid, 0o2710));
        lchown(directory, Some(program.uid), Some(gid)).map_err(failed("give away", directory))?;
        set_mode(directory, mode).map_err(failed("close", directory))
    }

    /// Removes what an incarnation has left.
    pub(in crate::reactor) fn forget(&self, pool: &str, worker: Worker) {
        for path in paths(&self.directory.join(pool), worker) {
            // Most have left nothing.
            let _ = fs::remove_file(path);
        }
    }

    /// Removes the directories, as far as nothing is left in them.
    pub(in crate::reactor) fn clear(&self) {
        let pools = fs::read_dir(&self.directory).into_iter().flatten();
        for pool in pools.flatten() {
            let _ = fs::remove_dir(pool.path());
        }
        let _ = fs::remove_dir(&self.directory);
    }
}

/// The socket and the place for notifications of an incarnation.
fn paths(directory: &Path, worker: Worker) -> [PathBuf; 2] {
    ["sock", "notify"]
        .map(|kind| directory.join(format!("{}.{}.{kind}", worker.slot, worker.incarnation)))
}

fn make(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn set_mode(directory: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(mode))
}

/// One of the loopback addresses that nobody uses by custom.
fn own_host() -> Ipv4Addr {
    Ipv4Addr::new(
        127,
        fastrand::u8(64..255),
        fastrand::u8(..),
        fastrand::u8(1..255),
    )
}

/// A port of this address that nobody has and that no connection gets by chance,
/// as those of the ephemeral range are.
fn free(host: IpAddr, taken: &HashSet<SocketAddr>) -> Result<SocketAddr, UpstreamError> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let address = SocketAddr::new(host, some_port());
        if taken.contains(&address) {
            continue;
        }
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(UpstreamError::Port { host, source: last })
}

fn some_port() -> u16 {
    let (first, last) = ephemeral_ports().unwrap_or((32_768, 60_999));
    let below = first.saturating_sub(FIRST_PORT);
    let above = u16::MAX - last;
    match (below, above) {
        // All of them may be connections'.
        (0, 0) => fastrand::u16(FIRST_PORT..),
        (0, above) => last + fastrand::u16(1..=above),
        (below, _) => FIRST_PORT + fastrand::u16(..below),
    }
}

/// `net.ipv4.ip_local_port_range`.
fn ephemeral_ports() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whom those run as that forward to this pool.
pub(in crate::reactor) fn front_of<'a>(
    mut pools: impl Iterator<Item = &'a config::Pool>,
    name: &str,
) -> Option<&'a RunAs> {
    pools.find(|pool| pool.is_before(name))?.run_as.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_never_a_connections() {
        let host = own_host();
        assert!(host.is_loopback());
        let mut taken = HashSet::new();
        let (first, last) = ephemeral_ports().unwrap();
        for _ in 0..200 {
            let address = free(host.into(), &taken).unwrap();
            assert!(!(first..=last).contains(&address.port()), "{address}");
            assert!(taken.insert(address), "{address} twice");
        }
    }
}
