//! What the kernel tells of a process in `/proc/PID`: proc_pid_stat(5),
//! proc_pid_statm(5), proc_pid_fd(5).

pub(crate) mod kin;
pub mod parked;
pub mod schedule;
pub(crate) mod tree;

use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// What a process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in bytes; 0 once it is a zombie.
    pub resident_bytes: u64,
    /// Address space, in bytes; 0 once it is a zombie.
    pub virtual_bytes: u64,
    /// Processor time of all its threads, in user and kernel mode.
    pub cpu: Duration,
    /// Open descriptors.
    pub open_fds: u64,
}

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// One letter: `R`, `S`, `D`, `T` for stopped, `Z` for a zombie, …
    pub state: char,
    /// Whether it is being taken down by the kernel (`PF_EXITING`).
    pub is_exiting: bool,
    /// Its parent's process id.
    pub parent: i32,
    /// Its session's id: the process id of whoever began it (setsid(2)).
    pub session: i32,
    /// Processor time of all its threads, in user and kernel mode.
    pub cpu: Duration,
    /// The same of those of its descendants that have ended and were waited for.
    pub reaped_cpu: Duration,
    /// When it started, in clock ticks since boot. With the process id it
    /// names a process for good, since a process id alone is used again.
    pub start_ticks: u64,
    /// A zombie's status as wait(2) has it; 0 also where this user may not know.
    pub exit_status: i32,
}

/// Connections that the host's listeners of TCP turned away, all programs'
/// together, since the network namespace began: proc_pid_net(5), snmp(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListenDrops {
    /// Because an accept queue was full.
    pub overflows: u64,
    /// For any reason, that one included.
    pub drops: u64,
}

/// What the host's listeners have turned away.
///
/// # Errors
///
/// EMFILE and its like, since reading takes a descriptor.
pub fn listen_drops() -> io::Result<ListenDrops> {
    let path = "/proc/net/netstat";
    parse_netstat(&fs::read_to_string(path)?).ok_or_else(|| malformed(path))
}

/// Two lines for each protocol: its counters' names, then their values.
fn parse_netstat(text: &str) -> Option<ListenDrops> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let index = names.split(' ').position(|name| name == wanted)?;
        values.split(' ').nth(index)?.parse().ok()
    };
    Some(ListenDrops {
        overflows: value("ListenOverflows")?,
        drops: value("ListenDrops")?,
    })
}

/// The flag of a task that is past the beginning of its end: include/linux/sched.h.
const PF_EXITING: u64 = 0x4;

/// What a process uses now.
///
/// # Errors
///
/// `NotFound` once it has been reaped; EMFILE and its like, since reading takes
/// a descriptor.
pub fn usage(pid: Pid) -> io::Result<Usage> {
    let memory = memory(pid)?;
    Ok(Usage {
        resident_bytes: memory.resident_bytes,
        virtual_bytes: memory.virtual_bytes,
        cpu: stat(pid)?.cpu,
        // A zombie has none, and those of another user are not ours to see.
        open_fds: open_fds(pid).unwrap_or(0),
    })
}

/// What a process is now. Works for a zombie too, whose processor time is final.
///
/// # Errors
///
/// As [`usage`].
pub fn stat(pid: Pid) -> io::Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read(&path)?;
    parse_stat(&String::from_utf8_lossy(&text)).ok_or_else(|| malformed(&path))
}

/// How many descriptors a process has open.
///
/// # Errors
///
/// As [`usage`], and EACCES for a process of another user.
pub fn open_fds(pid: Pid) -> io::Result<u64> {
    let path = format!("/proc/{pid}/fd");
    // From Linux 6.2 on the directory's size is the number, at no cost.
    match fs::metadata(&path)?.len() {
        0 => Ok(fs::read_dir(&path)?.count() as u64),
        open => Ok(open),
    }
}

/// A process's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Address space.
    pub virtual_bytes: u64,
    /// Resident memory, with what it shares.
    pub resident_bytes: u64,
    /// Of it, what it alone holds and its end would free (`RssAnon`). Not pages of files, which
    /// the kernel takes back when it wants them, nor shared memory, which others may hold.
    pub private_bytes: u64,
}

/// How much memory a process has.
///
/// # Errors
///
/// As [`usage`].
pub fn memory(pid: Pid) -> io::Result<Memory> {
    let path = format!("/proc/{pid}/statm");
    let text = fs::read_to_string(&path)?;
    let page = system(SysconfVar::PAGE_SIZE, 4096);
    let mut pages = text.split_ascii_whitespace().map(str::parse::<u64>);
    match (pages.next(), pages.next(), pages.next()) {
        (Some(Ok(total)), Some(Ok(resident)), Some(Ok(shared))) => Ok(Memory {
            virtual_bytes: total * page,
            resident_bytes: resident * page,
            private_bytes: resident.saturating_sub(shared) * page,
        }),
        _ => Err(malformed(&path)),
    }
}

/// The second field is the program's name in parentheses; it may itself contain
/// parentheses and blanks, so that the fields are counted from the last one.
pub(crate) fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // proc_pid_stat(5) counts from 1, and `rest` begins with its field 3.
    let field = |number: usize| fields.get(number - 3).copied();
    let number = |index: usize| field(index)?.parse::<u64>().ok();
    let ticks = number(14)?.saturating_add(number(15)?);
    let reaped_ticks = number(16)?.saturating_add(number(17)?);
    Some(Stat {
        state: field(3)?.chars().next()?,
        is_exiting: number(9)? & PF_EXITING != 0,
        parent: field(4)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        cpu: time(ticks),
        reaped_cpu: time(reaped_ticks),
        start_ticks: number(22)?,
        // The last field; kernels before 3.5 have none.
        exit_status: field(52).and_then(|text| text.parse().ok()).unwrap_or(0),
    })
}

/// How long so many clock ticks are.
fn time(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / system(SysconfVar::CLK_TCK, 100) as f64)
}

/// When a process was started that was so many clock ticks after the boot.
pub(crate) fn started_at(start_ticks: u64) -> SystemTime {
    let now = SystemTime::now();
    let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    let age = since_boot
        .unwrap_or_default()
        .saturating_sub(time(start_ticks));
    now.checked_sub(age).unwrap_or(now)
}

/// A constant of this system, by sysconf(3).
fn system(variable: SysconfVar, usual: u64) -> u64 {
    let value = sysconf(variable).ok().flatten();
    value
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(usual)
}

fn malformed(path: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{path} is not as expected"),
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn listen_drops_are_found_by_their_names() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPHPHits\n\
                    TcpExt: 1 22 333 4444\nIpExt: InNoRoutes ListenDrops\nIpExt: 5 6\n";
        let drops = ListenDrops {
            overflows: 22,
            drops: 333,
        };
        assert_eq!(parse_netstat(text), Some(drops));
        assert_eq!(parse_netstat("TcpExt: ListenDrops\nTcpExt: x\n"), None);
        listen_drops().expect("Linux has them");
    }

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let text = "42 (a) b (c)) T 7 42 41 0 -1 4194560 0 0 0 0 150 50 0 0 20 0 1 0 9001 0 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_ticks), ('T', 7, 9001));
        assert_eq!(stat.session, 41);
        let ticks = system(SysconfVar::CLK_TCK, 100) as f64;
        assert_eq!(stat.cpu, Duration::from_secs_f64(200.0 / ticks));
    }

    #[test]
    fn text_that_is_cut_short_is_an_error() {
        assert_eq!(parse_stat("42 (a) S 7 42"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn this_process_uses_memory_and_descriptors() {
        let usage = usage(Pid::this()).unwrap();
        assert!(usage.resident_bytes > 100_000);
        assert!(usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.open_fds >= 3);
        let parent = stat(Pid::this()).unwrap().parent;
        assert_eq!(parent, Pid::parent().as_raw());
    }

    #[test]
    fn a_zombie_is_seen_as_one_and_a_reaped_process_is_not_found() {
        let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let id = nix::sys::wait::Id::Pid(pid);
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(id, flags).unwrap();
        let zombie = stat(pid).unwrap();
        assert_eq!((zombie.state, zombie.exit_status), ('Z', 7 << 8));
        assert_eq!(usage(pid).unwrap().resident_bytes, 0);
        child.wait().unwrap();
        assert_eq!(stat(pid).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
