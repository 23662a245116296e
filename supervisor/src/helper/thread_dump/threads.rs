//! What the kernel tells of threads without stopping them: proc_pid_stat(5),
//! proc_pid_wchan(5), proc_pid_syscall(5).

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::unistd::Pid;
use prefork_api::{ThreadDump, ThreadStack};

use super::attach::{self, Stack};
use crate::kernel::procfs::{self, tree::descendants};
use crate::sanitize::one_line;

/// Threads that are looked at.
const MOST_THREADS: usize = 32;

/// Processes of which the first thread's frames are looked at.
const MOST_STACKS: usize = 8;

/// What was seen of a process and of those that it has started.
pub(super) struct Seen {
    pub(super) dump: ThreadDump,
    /// What there is to unwind.
    pub(super) stacks: Vec<Stack>,
}

/// Looks at a process, and at those that it has started.
pub(super) fn look(pid: i32, start_ticks: u64) -> Seen {
    let mut seen = Seen {
        dump: ThreadDump::default(),
        stacks: Vec::new(),
    };
    let is_same = procfs::stat(Pid::from_raw(pid)).is_ok_and(|it| it.start_ticks == start_ticks);
    if !is_same {
        seen.dump.lacks.push("everything: it has ended".to_owned());
        return seen;
    }
    seen.process(pid);
    for member in descendants(Pid::from_raw(pid), MOST_THREADS) {
        seen.process(member.as_raw());
    }
    seen
}

/// Its user and group.
pub(super) fn owner(pid: i32) -> Option<(u32, u32)> {
    // Of what may not be traced, /proc belongs to root and this does not.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok();
    let of = |field: &str| -> Option<u32> {
        let lines = status.as_ref()?.lines();
        let numbers = lines.filter_map(|line| line.strip_prefix(field)).next()?;
        numbers.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    of("Uid:").zip(of("Gid:")).or_else(|| {
        let directory = fs::metadata(format!("/proc/{pid}")).ok()?;
        Some((directory.uid(), directory.gid()))
    })
}

impl Seen {
    fn process(&mut self, pid: i32) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        let numbers = tasks.into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|task| task.file_name().to_str()?.parse().ok());
        // Each before any is stopped by us.
        let mut threads: Vec<ThreadStack> = numbers.filter_map(|tid| thread(pid, tid)).collect();
        threads.sort_by_key(|thread| (thread.tid != pid, thread.tid));
        let room = MOST_THREADS.saturating_sub(self.dump.threads.len());
        let further = threads.len().saturating_sub(room);
        self.dump.further_threads += further as u64;
        threads.truncate(room);
        let first = self.dump.threads.len();
        let leader = threads.first().filter(|it| it.tid == pid).cloned();
        self.dump.threads.append(&mut threads);
        if let Some(leader) = leader.filter(|_| self.stacks.len() < MOST_STACKS) {
            match attach::stack(first, &leader) {
                Ok(stack) => self.stacks.push(stack),
                Err(why) => self.dump.lacks.push(format!("frames of {pid}: {why}")),
            }
        }
    }
}

fn thread(pid: i32, tid: i32) -> Option<ThreadStack> {
    let directory = format!("/proc/{pid}/task/{tid}");
    let read = |name: &str| fs::read_to_string(format!("{directory}/{name}"));
    let stat = fs::read(format!("{directory}/stat")).ok()?;
    let state = procfs::parse_stat(&String::from_utf8_lossy(&stat))?.state;
    let name = fs::read(format!("{directory}/comm")).unwrap_or_default();
    let wchan = read("wchan").ok().filter(|it| it != "0" && !it.is_empty());
    let syscall = read("syscall").ok();
    Some(ThreadStack {
        pid,
        tid,
        name: one_line(String::from_utf8_lossy(&name).trim_end()).into_owned(),
        state: state.to_string(),
        wchan,
        syscall: syscall.and_then(|text| name_of(&text)),
        frames: Vec::new(),
    })
}

/// `running`, or the number of the call and its arguments; -1 where it is in the kernel for
/// another reason.
fn name_of(syscall: &str) -> Option<String> {
    let number: usize = syscall.split_ascii_whitespace().next()?.parse().ok()?;
    let name = syscalls::Sysno::new(number).map(|call| call.name().to_owned());
    Some(name.unwrap_or_else(|| number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_call_is_named_and_nothing_else_is() {
        let number = nix::libc::SYS_close;
        let in_call = name_of(&format!("{number} 0x3 0x0 0x7ffc 0x7f00\n"));
        assert_eq!(in_call.as_deref(), Some("close"));
        assert_eq!(name_of("running\n"), None);
        assert_eq!(name_of("-1 0x7ffc 0x7f00\n"), None);
        assert_eq!(name_of("99999 0x0\n").as_deref(), Some("99999"));
        assert_eq!(name_of(""), None);
    }

    #[test]
    fn who_has_ended_is_not_looked_at() {
        let seen = look(std::process::id().cast_signed(), 1);
        assert_eq!(seen.dump.lacks, ["everything: it has ended"]);
        assert!(seen.dump.threads.is_empty());
    }
}
