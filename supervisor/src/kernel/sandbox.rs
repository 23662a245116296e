//! What a sandbox has taken: system calls and files that everything here depends on.
//!
//! They are looked for before anything is begun. Later a missing one would be an errno
//! without a name, in the middle of something, or a wait for what never comes.

use std::fmt;
use std::fs;
use std::io;

use libc::c_long;
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::kernel::procfs;
use crate::kernel::sys::{self, Probed};

/// By which the kernel names its boot (random(4)).
pub(crate) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A system call that is used here.
struct Call {
    name: &'static str,
    number: c_long,
    /// What it is for; what is lacking without it, where it can be done without.
    purpose: &'static str,
}

/// A row of [`NEEDED`] or [`USEFUL`] for each `name: purpose`.
macro_rules! calls {
    ($($(#[$only:meta])* $name:ident($number:ident): $purpose:literal,)*) => {
        &[$($(#[$only])* Call {
            name: stringify!($name),
            number: libc::$number,
            purpose: $purpose,
        },)*]
    };
}

/// Without one of these nothing works.
const NEEDED: &[Call] = calls![
    accept4(SYS_accept4): "take connections",
    bind(SYS_bind): "listen",
    chdir(SYS_chdir): "start workers in their directory",
    close_range(SYS_close_range): "keep descriptors from workers",
    #[cfg(target_arch = "x86_64")]
    dup2(SYS_dup2): "give workers their descriptors",
    dup3(SYS_dup3): "give workers their descriptors",
    epoll_create1(SYS_epoll_create1): "wait for events",
    epoll_ctl(SYS_epoll_ctl): "wait for events",
    #[cfg(target_arch = "x86_64")]
    epoll_wait(SYS_epoll_wait): "wait for events",
    eventfd2(SYS_eventfd2): "wake the loop",
    execveat(SYS_execveat): "execute a program as it was when its generation began",
    fallocate(SYS_fallocate): "share memory with workers",
    fchmod(SYS_fchmod): "give sockets their permissions",
    fcntl(SYS_fcntl): "keep descriptors from workers",
    flock(SYS_flock): "be the only supervisor of a runtime directory",
    fstatfs(SYS_fstatfs): "trust a directory",
    ftruncate(SYS_ftruncate): "share memory with workers",
    getsockname(SYS_getsockname): "listen",
    getsockopt(SYS_getsockopt): "know who connects",
    listen(SYS_listen): "listen",
    memfd_create(SYS_memfd_create): "share memory with workers",
    pidfd_open(SYS_pidfd_open): "learn of a worker's death",
    pidfd_send_signal(SYS_pidfd_send_signal): "end a worker",
    prlimit64(SYS_prlimit64): "set limits of descriptors",
    recvfrom(SYS_recvfrom): "read what clients and workers send",
    recvmsg(SYS_recvmsg): "read what workers send",
    rt_sigprocmask(SYS_rt_sigprocmask): "start workers without signals in between",
    sendmsg(SYS_sendmsg): "pass descriptors to workers",
    sendto(SYS_sendto): "answer clients and workers",
    setsid(SYS_setsid): "give workers sessions of their own",
    setsockopt(SYS_setsockopt): "listen",
    socketpair(SYS_socketpair): "have a channel to each worker",
    splice(SYS_splice): "read what workers print",
    tee(SYS_tee): "read what workers print, and lose nothing of it where the reader is killed",
    timerfd_create(SYS_timerfd_create): "have workers of the library keep time",
    timerfd_settime(SYS_timerfd_settime): "have workers of the library keep time",
    waitid(SYS_waitid): "learn how a worker ended",
];

/// Without it nothing works where there are capabilities.
const PRIVILEGED: &[Call] = calls![
    capset(SYS_capset): "take capabilities from processes that have no use for them",
];

/// Without one of these something is lacking.
const USEFUL: &[Call] = calls![
    pidfd_getfd(SYS_pidfd_getfd): "after this supervisor is killed, a listener that no worker brings back is not taken from whoever holds it",
];

/// What is missing, and what nothing works without.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// System calls.
    #[error(
        "a sandbox or the kernel keeps prefork from {}: allow {} (in a unit of systemd by \
         SystemCallFilter=, in a container by its seccomp profile)",
        each(.0), if .0.len() == 1 { "it" } else { "them" }
    )]
    Calls(Vec<Missing>),
    /// `/proc`.
    #[error(
        "/proc is not there, or is not this process's: {0}; mount it (mount -t proc proc /proc, \
         in a root directory of your own as well)"
    )]
    Proc(#[source] io::Error),
    /// It could not be found out.
    #[error("cannot find out what a sandbox has taken: {0}")]
    Unknown(#[source] io::Error),
}

/// A system call that cannot be made.
#[derive(Debug)]
pub struct Missing {
    name: &'static str,
    purpose: &'static str,
    /// What it gives; nothing where it ends whoever makes it.
    errno: Option<Errno>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, purpose, .. } = self;
        match self.errno {
            Some(errno) => write!(f, "{name} ({errno:?}; to {purpose})"),
            None => write!(f, "{name} (it ends the process; to {purpose})"),
        }
    }
}

fn each(missing: &[Missing]) -> String {
    let said: Vec<String> = missing.iter().map(ToString::to_string).collect();
    said.join(", ")
}

/// Looks for all of it; what is lacking, in a line each.
///
/// # Errors
/// Something is missing that nothing works without.
pub(crate) fn look() -> Result<Vec<String>, SandboxError> {
    procfs::stat(Pid::this()).map_err(SandboxError::Proc)?;
    let mut lacking = Vec::new();
    let mut missing = missing(NEEDED).map_err(SandboxError::Unknown)?;
    if has_capabilities() {
        missing.extend(self::missing(PRIVILEGED).map_err(SandboxError::Unknown)?);
    }
    if !missing.is_empty() {
        return Err(SandboxError::Calls(missing));
    }
    for it in self::missing(USEFUL).map_err(SandboxError::Unknown)? {
        let (Missing { name, purpose, .. }, advice) = (&it, "allow it in the sandbox");
        match it.errno {
            Some(errno) => lacking.push(format!("no {name} ({errno:?}): {purpose}; {advice}")),
            None => return Err(SandboxError::Calls(vec![it])),
        }
    }
    if let Err(error) = fs::metadata(BOOT_ID) {
        lacking.push(format!(
            "no {BOOT_ID} ({error}): after this supervisor is killed, and the machine was started \
             again before the next one is, what it left is told from what lives by process ids \
             and start times alone, and nothing is said of who holds an address; ProcSubset=pid \
             does it in a unit of systemd"
        ));
    }
    Ok(lacking)
}

fn missing(calls: &'static [Call]) -> io::Result<Vec<Missing>> {
    let numbers: Vec<c_long> = calls.iter().map(|call| call.number).collect();
    let probed = calls.iter().zip(sys::probe(&numbers)?);
    let missing = probed.filter_map(|(call, probed)| {
        let errno = match probed {
            Probed::Answered(errno) if !is_refusal(errno) => return None,
            Probed::Answered(errno) => Some(Errno::from_raw(errno)),
            Probed::Killed => None,
        };
        Some(Missing {
            name: call.name,
            purpose: call.purpose,
            errno,
        })
    });
    Ok(missing.collect())
}

/// Whether this process has any capability (proc_pid_status(5)).
fn has_capabilities() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut sets = status.lines().filter(|line| line.starts_with("Cap"));
    let is_in = |set: &str| !set.starts_with("CapBnd:") && !set.ends_with("\t0000000000000000");
    sets.any(is_in)
}

/// Whether it is what a filter or a kernel without the call says. The kernel itself finds
/// fault with the arguments first.
fn is_refusal(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENOSYS | libc::EPERM | libc::EACCES | libc::EOPNOTSUPP
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missed_that_is_there() {
        assert!(missing(NEEDED).unwrap().is_empty());
    }

    #[test]
    fn a_missing_call_is_named_with_what_it_is_for_and_what_to_do() {
        let missing = |name, errno| Missing {
            name,
            purpose: "have a channel to each worker",
            errno,
        };
        let both = vec![
            missing("socketpair", Some(Errno::ENOSYS)),
            missing("tee", None),
        ];
        let said = SandboxError::Calls(both).to_string();
        let wanted = "from socketpair (ENOSYS; to have a channel to each worker), tee (it ends \
                      the process; to have a channel to each worker): allow them";
        assert!(said.contains(wanted), "{said}");
    }
}
