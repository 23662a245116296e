//! Who is who: a process id alone is used again, and so is a boot's clock.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::rc::Rc;

use nix::unistd::Pid;

use crate::kernel::procfs;
use crate::kernel::sandbox::BOOT_ID;

/// Bytes of randomness in a secret.
const SECRET: usize = 32;

/// What names this boot of this kernel; nothing where a sandbox has taken it.
pub(crate) fn boot_id() -> io::Result<String> {
    match fs::read_to_string(BOOT_ID) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Whether what was written under this name of a boot is of this one. Where either is
/// unknown it may be: process ids are verified by start times all the same.
pub(crate) fn is_of_this_boot(written: &str) -> io::Result<bool> {
    Ok(may_be_one(written, &boot_id()?))
}

fn may_be_one(one: &str, other: &str) -> bool {
    one == other || one.is_empty() || other.is_empty()
}

/// When a process started, in clock ticks since boot.
pub(crate) fn start_ticks(pid: i32) -> io::Result<u64> {
    procfs::stat(Pid::from_raw(pid)).map(|stat| stat.start_ticks)
}

/// When a worker's process started, which tells it from all others of its number.
///
/// `/proc` may hide processes from who may not trace them (`ProtectProc=invisible`), and
/// one that has not become its program yet is closed to tracing as the supervisor is
/// that it is still a copy of. So it may be known only later.
#[derive(Debug, Clone)]
pub(crate) struct StartTime {
    pid: i32,
    ticks: Rc<Cell<u64>>,
}

/// No process has started then but the kernel's own.
const UNKNOWN: u64 = 0;

impl StartTime {
    /// That of a child that nobody has reaped.
    pub(crate) fn of(pid: i32) -> Self {
        let time = Self::known(pid, UNKNOWN);
        time.ticks();
        time
    }

    /// One that is known.
    pub(crate) fn known(pid: i32, ticks: u64) -> Self {
        let ticks = Rc::new(Cell::new(ticks));
        Self { pid, ticks }
    }

    /// In clock ticks since boot; 0 as long as it can't be seen.
    pub(crate) fn ticks(&self) -> u64 {
        if self.ticks.get() == UNKNOWN
            && let Ok(ticks) = start_ticks(self.pid)
        {
            self.ticks.set(ticks);
        }
        self.ticks.get()
    }
}

/// Whether the process is there, is the one that started then, and is no
/// zombie. To be asked again once there is a pidfd, since it may end any moment.
pub(crate) fn lives(pid: i32, started: u64) -> bool {
    // 0 and negative numbers name groups to the kernel.
    pid > 0
        && procfs::stat(Pid::from_raw(pid))
            .is_ok_and(|stat| stat.start_ticks == started && !matches!(stat.state, 'Z' | 'X'))
}

/// A new secret, in hexadecimal digits.
pub(crate) fn new_secret() -> io::Result<String> {
    let mut bytes = [0; SECRET];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_with_the_same_number_is_not_believed() {
        let us = Pid::this().as_raw();
        let started = start_ticks(us).unwrap();
        assert!(lives(us, started));
        assert!(!lives(us, started + 1));
        assert!(!lives(0, started) && !lives(-us, started));
    }

    #[test]
    fn a_boot_without_a_name_may_be_any() {
        assert!(may_be_one("a", "a") && !may_be_one("a", "b"));
        assert!(may_be_one("a", "") && may_be_one("", "b") && may_be_one("", ""));
        assert!(is_of_this_boot(&boot_id().unwrap()).unwrap());
    }

    #[test]
    fn a_zombie_does_not_live() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        let started = start_ticks(pid).unwrap();
        let id = nix::sys::wait::Id::Pid(Pid::from_raw(pid));
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(id, flags).unwrap();
        assert!(!lives(pid, started));
        child.wait().unwrap();
    }

    #[test]
    fn secrets_differ() {
        let (one, other) = (new_secret().unwrap(), new_secret().unwrap());
        assert_eq!(one.len(), 2 * SECRET);
        assert_ne!(one, other);
    }
}
