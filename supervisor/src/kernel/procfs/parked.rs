//! Who keeps descriptors on their way: unread in unix sockets, where they count against
//! the user that sent them (proc_pid_fdinfo(5), `scm_fds`).

use std::fs;
use std::os::unix::fs::MetadataExt;

/// No more descriptors than this are looked at, since the loop waits meanwhile.
const MOST_LOOKS: usize = 4096;

/// A process and how many descriptors lie unread in sockets that it has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parked {
    /// The process.
    pub pid: i32,
    /// How many, of what was looked at.
    pub descriptors: u64,
}

/// The process of this user that keeps most of them, as far as can be seen: sockets that
/// lie in sockets themselves are nobody's to look at.
pub fn most_parked(uid: u32) -> Option<Parked> {
    let mut looks = MOST_LOOKS;
    let own = std::process::id().cast_signed();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let of_user = processes.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let is_theirs = pid != own && entry.metadata().ok()?.uid() == uid;
        is_theirs.then_some(pid)
    });
    let parked = of_user.map(|pid| Parked {
        pid,
        descriptors: parked_in(pid, &mut looks),
    });
    let most = parked.max_by_key(|it| it.descriptors)?;
    (most.descriptors > 0).then_some(most)
}

/// How many lie in the sockets of this process.
fn parked_in(pid: i32, looks: &mut usize) -> u64 {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return 0;
    };
    let descriptors = descriptors.flatten().take(*looks);
    let mut sum: u64 = 0;
    for entry in descriptors {
        *looks -= 1;
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        sum = sum.saturating_add(unread(&text));
    }
    sum
}

/// What the description of a descriptor says of those that lie in it.
fn unread(fdinfo: &str) -> u64 {
    let line = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("scm_fds:"));
    line.and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_says_how_many_lie_in_it() {
        assert_eq!(unread("pos:\t0\nflags:\t02000002\nscm_fds: 253\n"), 253);
        assert_eq!(unread("pos:\t0\nflags:\t02000002\n"), 0);
    }
}
