//! What a process and all that descends from it use together.

use std::io;

use nix::unistd::Pid;

use crate::kernel::procfs::{Usage, kin, memory, stat, usage};

/// Processes of one tree that are looked at.
const MOST: usize = 4096;

/// The sum of what the tree uses. Processor time of those that have ended and were
/// waited for is in it, so that it does not run backwards with them.
///
/// # Errors
///
/// As [`usage`], for the root alone: others may end meanwhile.
pub(crate) fn usage_of_all(root: Pid) -> io::Result<Usage> {
    let mut sum = usage(root)?;
    sum.cpu += stat(root)?.reaped_cpu;
    for pid in descendants(root, MOST) {
        let (Ok(used), Ok(stat)) = (usage(pid), stat(pid)) else {
            continue;
        };
        sum.resident_bytes += used.resident_bytes;
        sum.virtual_bytes += used.virtual_bytes;
        sum.cpu += used.cpu + stat.reaped_cpu;
        sum.open_fds += used.open_fds;
    }
    Ok(sum)
}

/// The memory that the processes of the tree hold alone, each its own.
///
/// # Errors
///
/// As [`usage`], for the root alone.
pub(crate) fn private_bytes(root: Pid) -> io::Result<u64> {
    let below = descendants(root, MOST).into_iter();
    let below: u64 = below
        .filter_map(|pid| Some(memory(pid).ok()?.private_bytes))
        .sum();
    Ok(memory(root)?.private_bytes + below)
}

/// What a process and those that it has started have started, the nearest first, and so
/// many at the most.
pub(crate) fn descendants(root: Pid, most: usize) -> Vec<Pid> {
    let children = |parent: Pid| kin::children(parent.as_raw()).unwrap_or_default();
    let mut found: Vec<Pid> = children(root).into_iter().map(Pid::from_raw).collect();
    let mut at = 0;
    while let Some(parent) = found.get(at).copied()
        && found.len() < most
    {
        at += 1;
        found.extend(children(parent).into_iter().map(Pid::from_raw));
    }
    found.truncate(most);
    found
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_tree_uses_what_its_processes_use_together() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 & sleep 60 & wait"])
            .spawn()
            .unwrap();
        let root = Pid::from_raw(shell.id() as i32);
        let deadline = Instant::now() + Duration::from_secs(30);
        while descendants(root, MOST).len() < 2 {
            assert!(Instant::now() < deadline, "the shell has no children");
            std::thread::yield_now();
        }
        let (alone, all) = (usage(root).unwrap(), usage_of_all(root).unwrap());
        assert!(all.resident_bytes > alone.resident_bytes, "{all:?}");
        assert!(private_bytes(root).unwrap() >= memory(root).unwrap().private_bytes);
        for pid in descendants(root, MOST).into_iter().chain([root]) {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        shell.wait().unwrap();
        assert!(usage_of_all(root).is_err());
    }
}
