//! What the kernel refused, and what to do about it.

use std::fmt;

use nix::errno::Errno;

/// A system call of the channel or of memory that is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `socketpair(2)`
    Socketpair,
    /// `sendmsg(2)`
    Sendmsg,
    /// `recvmsg(2)`
    Recvmsg,
    /// `poll(2)`
    Poll,
    /// `memfd_create(2)`
    MemfdCreate,
    /// `ftruncate(2)`
    Ftruncate,
    /// `fallocate(2)`
    Fallocate,
    /// `fcntl(2)` with `F_ADD_SEALS`
    AddSeals,
    /// `fcntl(2)` with `F_GET_SEALS`
    GetSeals,
    /// `fcntl(2)` with `F_DUPFD_CLOEXEC`
    Dup,
    /// `fstat(2)`
    Fstat,
    /// `mmap(2)`
    Mmap,
    /// `pread(2)`
    Pread,
    /// `pwrite(2)`
    Pwrite,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Socketpair => "socketpair",
            Self::Sendmsg => "sendmsg",
            Self::Recvmsg => "recvmsg",
            Self::Poll => "poll",
            Self::MemfdCreate => "memfd_create",
            Self::Ftruncate => "ftruncate",
            Self::Fallocate => "fallocate",
            Self::AddSeals => "fcntl(F_ADD_SEALS)",
            Self::GetSeals => "fcntl(F_GET_SEALS)",
            Self::Dup => "fcntl(F_DUPFD_CLOEXEC)",
            Self::Fstat => "fstat",
            Self::Mmap => "mmap",
            Self::Pread => "pread",
            Self::Pwrite => "pwrite",
        }
    }
}

/// A refusal by the kernel: which call, which errno, what that means here and
/// what to do. `Display` says all of it on one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemError {
    call: Call,
    errno: Errno,
}

/// The reason of an errno that has no name of its own in [`NAMES`].
pub(crate) const OTHER_ERRNO: &str = "errno_other";

/// Every errno that `socketpair`, `sendmsg` and `recvmsg` are documented to
/// give (and those that sandboxes and security modules give), by the name that
/// metrics use.
const NAMES: [(Errno, &str); 20] = [
    (Errno::EACCES, "eacces"),
    (Errno::EAFNOSUPPORT, "eafnosupport"),
    (Errno::EAGAIN, "eagain"),
    (Errno::EBADF, "ebadf"),
    (Errno::ECONNREFUSED, "econnrefused"),
    (Errno::ECONNRESET, "econnreset"),
    (Errno::EFAULT, "efault"),
    (Errno::EINVAL, "einval"),
    (Errno::EMFILE, "emfile"),
    (Errno::EMSGSIZE, "emsgsize"),
    (Errno::ENFILE, "enfile"),
    (Errno::ENOBUFS, "enobufs"),
    (Errno::ENOMEM, "enomem"),
    (Errno::ENOTCONN, "enotconn"),
    (Errno::ENOTSOCK, "enotsock"),
    (Errno::EOPNOTSUPP, "eopnotsupp"),
    (Errno::EPERM, "eperm"),
    (Errno::EPIPE, "epipe"),
    (Errno::EPROTONOSUPPORT, "eprotonosupport"),
    (Errno::ETOOMANYREFS, "etoomanyrefs"),
];

impl SystemError {
    pub(crate) fn new(call: Call, errno: Errno) -> Self {
        Self { call, errno }
    }

    /// The call that was refused.
    pub fn call(&self) -> Call {
        self.call
    }

    /// The errno, as in `errno.h`.
    pub fn raw_os_error(&self) -> i32 {
        self.errno as i32
    }

    /// The errno's name in lower case (`emfile`), or `errno_other`.
    pub fn reason(&self) -> &'static str {
        NAMES
            .iter()
            .find(|(errno, _)| *errno == self.errno)
            .map_or(OTHER_ERRNO, |(_, name)| name)
    }

    /// Whether the same call may succeed later without anything being repaired.
    pub fn is_transient(&self) -> bool {
        match self.call {
            Call::Sendmsg => matches!(
                self.errno,
                Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM
            ),
            Call::Socketpair => matches!(
                self.errno,
                Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN
            ),
            Call::MemfdCreate | Call::Fallocate | Call::Dup | Call::Mmap => matches!(
                self.errno,
                Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOSPC
            ),
            Call::Recvmsg
            | Call::Poll
            | Call::Ftruncate
            | Call::AddSeals
            | Call::GetSeals
            | Call::Fstat
            | Call::Pread
            | Call::Pwrite => false,
        }
    }

    /// What the errno means for this call, and what to do.
    pub fn advice(&self) -> &'static str {
        match self.call {
            Call::Socketpair => socketpair_advice(self.errno),
            Call::Sendmsg => sendmsg_advice(self.errno),
            Call::Recvmsg => recvmsg_advice(self.errno),
            Call::Poll => general_advice(self.errno),
            Call::MemfdCreate
            | Call::Ftruncate
            | Call::Fallocate
            | Call::AddSeals
            | Call::GetSeals
            | Call::Dup
            | Call::Fstat
            | Call::Mmap
            | Call::Pread
            | Call::Pwrite => memory_advice(self.errno),
        }
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, errno } = self;
        write!(f, "{}: {errno}: {}", call.name(), self.advice())
    }
}

impl std::error::Error for SystemError {}

fn socketpair_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EMFILE => {
            "this process holds as many descriptors as it may; raise its RLIMIT_NOFILE (LimitNOFILE= under systemd) or run fewer workers"
        }
        Errno::ENFILE => {
            "the whole system has as many open files as it may; raise fs.file-max or find what leaks"
        }
        Errno::EAGAIN => "the kernel is short of a resource for the moment; try again later",
        Errno::EINVAL => {
            "the kernel does not know SOCK_CLOEXEC; Linux 2.6.27 is the oldest with it"
        }
        Errno::EPROTONOSUPPORT => {
            "the kernel has no stream protocol for unix sockets; check CONFIG_UNIX and the sandbox"
        }
        Errno::EAFNOSUPPORT => {
            "unix sockets are not available; allow AF_UNIX in the sandbox (RestrictAddressFamilies= under systemd)"
        }
        Errno::EOPNOTSUPP => "socket pairs are not available here; check the sandbox",
        Errno::EACCES | Errno::EPERM => {
            "a sandbox or security module forbids it; allow socketpair for this program"
        }
        _ => general_advice(errno),
    }
}

fn sendmsg_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ETOOMANYREFS => {
            "this user has too many descriptors on their way through unix sockets, because some receiver does not read; the message stays queued, try again shortly or raise RLIMIT_NOFILE"
        }
        Errno::ENOBUFS | Errno::ENOMEM => {
            "the kernel has no memory for the message; it stays queued, look at the memory limit of the cgroup"
        }
        Errno::EPIPE | Errno::ECONNRESET => {
            "the other side has closed its end, most likely because it exited"
        }
        Errno::EMSGSIZE => "the socket does not take so much at once; raise its SO_SNDBUF",
        Errno::EINVAL => "the kernel does not let this descriptor be passed",
        Errno::EMFILE | Errno::ENFILE => {
            "the kernel has no descriptor left to pass; raise RLIMIT_NOFILE or fs.file-max"
        }
        Errno::EACCES | Errno::EPERM => {
            "a security module forbids passing this descriptor to the other side; allow it there"
        }
        _ => general_advice(errno),
    }
}

fn recvmsg_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ECONNRESET => "the other side exited without reading all that was sent to it",
        Errno::EACCES | Errno::EPERM => {
            "a security module forbids receiving; allow it for this program"
        }
        _ => general_advice(errno),
    }
}

/// For the shared memory of a scoreboard.
fn memory_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EMFILE | Errno::ENFILE => socketpair_advice(errno),
        Errno::ENOMEM | Errno::ENOSPC => {
            "the kernel has no memory for it; look at the memory limit of the cgroup and at vm.max_map_count"
        }
        Errno::EPERM => {
            "the memory is sealed already: a worker has to map it before it says `ready`, and to add no seals"
        }
        Errno::EACCES => {
            "a sandbox or security module forbids it; allow memfd_create and shared mappings for this program"
        }
        Errno::EINVAL => {
            "the descriptor is of no memory file with seals, or the kernel does not know these seals; Linux 5.1 is the oldest with them"
        }
        Errno::EBADF => "the descriptor is not open; something else in this program closed it",
        Errno::ENOSYS => "the kernel or a sandbox has no memory files; allow memfd_create",
        _ => general_advice(errno),
    }
}

/// For what means the same in every call.
fn general_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOMEM | Errno::ENOBUFS => {
            "the kernel has no memory for it; look at the memory limit of the cgroup"
        }
        Errno::EBADF => {
            "the channel's descriptor is not open; something else in this program closed it"
        }
        Errno::ENOTSOCK | Errno::EOPNOTSUPP | Errno::ENOTCONN | Errno::ECONNREFUSED => {
            "the descriptor is not a connected unix stream socket; something else in this program replaced it"
        }
        Errno::EFAULT | Errno::EINVAL => {
            "the kernel refuses the arguments; this is a bug in prefork"
        }
        _ => "not expected of this call; look at the sandbox and the security modules",
    }
}

/// What a refused call becomes.
pub(crate) fn refused(call: Call) -> impl Fn(Errno) -> SystemError {
    move |errno| SystemError::new(call, errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_has_its_own_reason_and_says_what_to_do() {
        for call in [
            Call::Socketpair,
            Call::Sendmsg,
            Call::Recvmsg,
            Call::Poll,
            Call::MemfdCreate,
            Call::Mmap,
        ] {
            for (errno, name) in NAMES {
                let error = SystemError::new(call, errno);
                assert_eq!(error.reason(), name);
                let text = error.to_string();
                assert!(text.starts_with(call.name()), "{text}");
                assert!(text.to_lowercase().contains(name), "{text}");
                assert!(text.ends_with(error.advice()), "{text}");
            }
        }
    }

    #[test]
    fn an_errno_without_a_name_is_other() {
        let error = SystemError::new(Call::Sendmsg, Errno::EDOM);
        assert_eq!(error.reason(), OTHER_ERRNO);
        assert!(error.to_string().contains("EDOM"), "{error}");
    }
}
