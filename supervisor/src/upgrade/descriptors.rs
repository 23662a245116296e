//! Whether a descriptor number is what a document says of it.

use std::collections::HashSet;
use std::fs;
use std::os::fd::RawFd;

use super::HandoverError;

/// What a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A socket of any family.
    Socket,
    /// A pipe.
    Pipe,
    /// A process.
    Pidfd,
    /// Shared memory.
    Memory,
    /// A file with a path.
    File,
    /// Whatever a worker has sent.
    Any,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Socket => "a socket",
            Self::Pipe => "a pipe",
            Self::Pidfd => "a pidfd",
            Self::Memory => "a memfd",
            Self::File => "a file",
            Self::Any => "open",
        }
    }

    /// Whether it is what `/proc/PID/fd` shows (proc_pid_fd(5)).
    fn fits(self, target: &str) -> bool {
        match self {
            Self::Socket => target.starts_with("socket:["),
            Self::Pipe => target.starts_with("pipe:["),
            Self::Pidfd => target == "anon_inode:[pidfd]" || target.starts_with("pidfd:["),
            Self::Memory => target.starts_with("/memfd:"),
            Self::File => target.starts_with('/') && !target.starts_with("/memfd:"),
            Self::Any => true,
        }
    }
}

/// Checks that the process `pid` has each of these descriptors, that each is
/// of its kind, and that none is named twice.
pub(super) fn check(pid: i32, all: &[(RawFd, Kind)]) -> Result<(), HandoverError> {
    let mut seen = HashSet::new();
    for (number, kind) in all {
        let (number, wanted) = (*number, kind.name());
        if !seen.insert(number) {
            return Err(HandoverError::Twice { number });
        }
        let found = match fs::read_link(format!("/proc/{pid}/fd/{number}")) {
            Ok(target) => target.to_string_lossy().into_owned(),
            Err(error) => format!("not there: {error}"),
        };
        // 0 to 2 are never handed over.
        if number <= 2 || found.starts_with("not there") || !kind.fits(&found) {
            return Err(HandoverError::Descriptor {
                number,
                wanted,
                found,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn us() -> i32 {
        nix::unistd::Pid::this().as_raw()
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        let file = fs::File::open("/dev/null").unwrap();
        let memory = super::super::memory(b"{}").unwrap();
        let (pipe, _writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let pidfd = crate::kernel::sys::pidfd_open(nix::unistd::Pid::this()).unwrap();
        let all = [
            (file.as_raw_fd(), Kind::File),
            (memory.as_raw_fd(), Kind::Memory),
            (pipe.as_raw_fd(), Kind::Pipe),
            (socket.as_raw_fd(), Kind::Socket),
            (pidfd.as_raw_fd(), Kind::Pidfd),
        ];
        assert!(check(us(), &all).is_ok());
        for (number, kind) in all {
            for (_, other) in all.iter().filter(|(_, other)| *other != kind) {
                let error = check(us(), &[(number, *other)]).unwrap_err();
                assert!(error.to_string().contains(other.name()), "{error}");
            }
        }
    }

    #[test]
    fn one_that_is_not_open_or_named_twice_is_refused() {
        let file = fs::File::open("/dev/null").unwrap();
        let number = file.as_raw_fd();
        let twice = [(number, Kind::File), (number, Kind::Any)];
        assert!(matches!(
            check(us(), &twice),
            Err(HandoverError::Twice { number: twice }) if twice == number
        ));
        let error = check(us(), &[(1_000_000, Kind::Any)]).unwrap_err();
        assert!(error.to_string().contains("not there"), "{error}");
    }
}
