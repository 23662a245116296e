//! On what terms a child runs: everything that fork hands down and exec keeps.
//!
//! What raises something comes while the child still has the supervisor's
//! rights; what gives them up comes after that, and ends with `no_new_privs`.

use std::os::fd::BorrowedFd;

use nix::sched::CpuSet;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid};

/// capset(2) with 64 bits: `_LINUX_CAPABILITY_VERSION_3`.
const VERSION_3: u32 = 0x2008_0522;

/// More than the kernel has capabilities.
const MOST_CAPABILITIES: libc::c_ulong = 64;

/// What a child takes on before it becomes its program.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// Resource limits, soft and hard.
    pub(crate) limits: Vec<(Resource, u64, u64)>,
    /// The priority.
    pub(crate) nice: Option<i32>,
    /// The permission bits that new files don't get.
    pub(crate) umask: Option<Mode>,
    /// Group id, supplementary groups and user id to take on, in that order.
    pub(crate) credentials: Option<(Gid, Vec<Gid>, Uid)>,
    /// The capabilities to keep, a bit for each; every one without it.
    pub(crate) capabilities: Option<u64>,
    /// Whether exec may give it no right that it hasn't got.
    pub(crate) no_new_privs: bool,
}

/// The directory that a child starts in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a> {
    /// The directory.
    pub(crate) directory: BorrowedFd<'a>,
    /// Whether the child needs the right to enter it, as who it is to be. It
    /// inherits it else, as it would have where the supervisor is there itself.
    pub(crate) by_right: bool,
}

impl Start<'_> {
    fn enter(&self) -> nix::Result<()> {
        nix::unistd::fchdir(self.directory)
    }
}

/// The step that does it.
const ENTERING: &str = "entering its directory";

/// A step of it that failed, for people.
type Step = (&'static str, nix::Error);

impl Terms {
    /// Takes all of it on. Only for a child that has this process to itself.
    pub(super) fn take_on(
        &self,
        cpus: Option<&CpuSet>,
        start: Option<&Start<'_>>,
    ) -> Result<(), Step> {
        let step = |name: &'static str| move |errno: nix::Error| (name, errno);
        if let Some(start) = start.filter(|start| !start.by_right) {
            start.enter().map_err(step(ENTERING))?;
        }
        for (resource, soft, hard) in &self.limits {
            setrlimit(*resource, *soft, *hard).map_err(step(resource_name(*resource)))?;
        }
        if let Some(nice) = self.nice {
            set_priority(nice).map_err(step("setting its nice value"))?;
        }
        if let Some(cpus) = cpus {
            nix::sched::sched_setaffinity(Pid::from_raw(0), cpus)
                .map_err(step("setting its CPU affinity"))?;
        }
        if let Some(mask) = self.umask {
            umask(mask);
        }
        if let Some(kept) = self.capabilities {
            self.bound(kept)
                .map_err(step("dropping capabilities for good"))?;
        }
        if let Some((gid, groups, uid)) = &self.credentials {
            // Or the change of user would drop what is to be kept.
            let keep = self.capabilities.is_some_and(|kept| kept != 0);
            nix::sys::prctl::set_keepcaps(keep).map_err(step("PR_SET_KEEPCAPS"))?;
            nix::unistd::setgroups(groups).map_err(step("setgroups"))?;
            nix::unistd::setgid(*gid).map_err(step("setgid"))?;
            nix::unistd::setuid(*uid).map_err(step("setuid"))?;
        }
        if let Some(kept) = self.capabilities {
            keep_only(kept).map_err(step("dropping capabilities"))?;
        }
        if let Some(start) = start.filter(|start| start.by_right) {
            start.enter().map_err(step(ENTERING))?;
        }
        if self.no_new_privs {
            nix::sys::prctl::set_no_new_privs().map_err(step("PR_SET_NO_NEW_PRIVS"))?;
        }
        Ok(())
    }

    /// Takes everything but `kept` out of the bounding set, so that no file can
    /// give it back. That takes CAP_SETPCAP; without it the set matters only to
    /// root, whom exec gives all that is in it.
    fn bound(&self, kept: u64) -> nix::Result<()> {
        let root = match &self.credentials {
            Some((_, _, uid)) => uid.is_root(),
            None => Uid::effective().is_root(),
        };
        for number in 0..MOST_CAPABILITIES {
            if kept & (1 << number) != 0 {
                continue;
            }
            match prctl(libc::PR_CAPBSET_READ, number, 0) {
                Ok(0) => continue,
                Ok(_) => {}
                // The kernel's last one was before it.
                Err(_) => break,
            }
            match prctl(libc::PR_CAPBSET_DROP, number, 0) {
                Err(nix::Error::EPERM) if !root => break,
                result => result?,
            };
        }
        Ok(())
    }
}

fn resource_name(resource: Resource) -> &'static str {
    match resource {
        Resource::RLIMIT_NOFILE => "RLIMIT_NOFILE",
        Resource::RLIMIT_CORE => "RLIMIT_CORE",
        Resource::RLIMIT_AS => "RLIMIT_AS",
        Resource::RLIMIT_NPROC => "RLIMIT_NPROC",
        Resource::RLIMIT_MEMLOCK => "RLIMIT_MEMLOCK",
        _ => "a resource limit",
    }
}

/// The lowest nice value that this process can give, itself or its children:
/// any with CAP_SYS_NICE, else what it has, or what RLIMIT_NICE allows.
pub(crate) fn least_nice(may_any: bool) -> i32 {
    if may_any {
        return -20;
    }
    // SAFETY: takes numbers and returns one; 0 is this process.
    let ours = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let allowed = nix::sys::resource::getrlimit(Resource::RLIMIT_NICE).map_or(0, |(soft, _)| soft);
    // setrlimit(2): the value v stands for 20 - v.
    ours.min(20 - i32::try_from(allowed.min(40)).unwrap_or(0))
}

fn set_priority(nice: i32) -> nix::Result<()> {
    // SAFETY: takes numbers only; 0 is this process.
    nix::Error::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// Drops every capability of this process.
pub(crate) fn drop_capabilities() -> nix::Result<()> {
    keep_only(0)
}

/// Has exactly these capabilities, now and across exec (capabilities(7): what
/// is ambient is permitted and effective afterwards, whoever the user is).
fn keep_only(kept: u64) -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let half = |bits: u64| {
        let bits = (bits & u64::from(u32::MAX)) as u32;
        Data {
            effective: bits,
            permitted: bits,
            inheritable: bits,
        }
    };
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let data = [half(kept), half(kept >> 32)];
    match prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as _, 0) {
        // Before Linux 4.3 there were none.
        Ok(_) | Err(nix::Error::EINVAL) => {}
        Err(errno) => return Err(errno),
    }
    let mut held = [half(0); 2];
    // SAFETY: both are of the shape that version 3 has, and live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, held.as_mut_ptr()) };
    if nix::Error::result(result).is_ok() && held == data {
        // Also where a filter of system calls leaves no capset: a service without
        // privileges has nothing to drop.
        return Ok(());
    }
    // SAFETY: both are of the shape that version 3 has, and live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    nix::Error::result(result)?;
    for number in (0..MOST_CAPABILITIES).filter(|number| kept & (1 << number) != 0) {
        prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE as _,
            number,
        )?;
    }
    Ok(())
}

/// prctl(2) where all that follows the option is numbers.
fn prctl(
    option: libc::c_int,
    first: libc::c_ulong,
    second: libc::c_ulong,
) -> nix::Result<libc::c_int> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options that this is called with take numbers, not pointers.
    nix::Error::result(unsafe { libc::prctl(option, first, second, none, none) })
}
