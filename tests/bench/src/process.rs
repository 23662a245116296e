//! Processes under test: started here, looked at through /proc, killed on drop.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::sys;

/// Children that have an owner. Any other child is an orphan that a server
/// under test has left: this process adopts them, and ends them.
static OWNED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Whether this process ends, and starts nothing more.
static ENDING: AtomicBool = AtomicBool::new(false);

fn owned() -> MutexGuard<'static, BTreeSet<i32>> {
    // A set of numbers can't be half changed.
    OWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes this process the parent of every orphan that its descendants leave.
pub(crate) fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("cannot become a subreaper")
}

/// Has this thread, and what it starts meanwhile, share one processor; given
/// back when dropped.
#[derive(Debug)]
pub(crate) struct OneProcessor {
    before: CpuSet,
}

impl OneProcessor {
    /// Takes the last of those that this thread may use.
    pub(crate) fn take() -> Result<Self> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).context("sched_getaffinity")?;
        let mut allowed = (0..CpuSet::count()).filter(|cpu| before.is_set(*cpu) == Ok(true));
        let mut one = CpuSet::new();
        one.set(
            allowed
                .next_back()
                .context("this thread has no processor")?,
        )?;
        sched_setaffinity(this, &one).context("sched_setaffinity")?;
        Ok(Self { before })
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        if let Err(errno) = sched_setaffinity(Pid::from_raw(0), &self.before) {
            eprintln!("the rest is measured on one processor: {errno}");
        }
    }
}

/// A child. Dropping it kills it and everything that came of it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it; it dies with this process.
    pub(crate) fn start(command: Command) -> Result<Self> {
        let child = spawn(command)?;
        let process = Self { child };
        owned().insert(process.pid());
        Ok(process)
    }

    /// Starts another in the place of one that has ended. What came of the
    /// ended one lives on, and is killed with its successor.
    pub(crate) fn replace(&mut self, command: Command) -> Result<()> {
        let child = spawn(command)?;
        let mut owned = owned();
        owned.remove(&self.pid());
        self.child = child;
        owned.insert(self.pid());
        Ok(())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are small")
    }

    /// The child as the standard library has it.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        send(self.pid(), signal)
    }

    /// Kills it alone and waits until it is gone.
    pub(crate) fn kill_alone(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        // Again and again: one may fork while others die.
        loop {
            let mut doomed = descendants(self.pid());
            doomed.push(self.pid());
            doomed.extend(orphans());
            doomed.retain(|pid| is_alive(*pid));
            for pid in &doomed {
                // It may have died meanwhile.
                let _ = send(*pid, Signal::SIGKILL);
            }
            reap_orphans();
            // Fails only for one that was waited for before.
            let _ = self.child.try_wait();
            if doomed.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                eprintln!("processes {doomed:?} survive SIGKILL");
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        owned().remove(&self.pid());
    }
}

/// Kills everything that this process has started; nothing more is started.
pub(crate) fn end_all() {
    ENDING.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let mut left = descendants(me());
        left.retain(|pid| is_alive(*pid));
        if left.is_empty() {
            return;
        }
        for pid in left {
            // It may have died meanwhile.
            let _ = send(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn me() -> i32 {
    i32::try_from(std::process::id()).expect("process ids are small")
}

fn spawn(mut command: Command) -> Result<Child> {
    ensure!(!ENDING.load(Ordering::SeqCst), "interrupted");
    sys::tie_to_parent(&mut command);
    command
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.get_program()))
}

/// Sends a signal to a process.
pub(crate) fn send(pid: i32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {pid}"))
}

fn orphans() -> Vec<i32> {
    let owned = owned();
    children_of(me())
        .into_iter()
        .filter(|pid| !owned.contains(pid))
        .collect()
}

fn reap_orphans() {
    for pid in orphans() {
        // One that is not dead yet gets its turn later.
        let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    }
}

/// All processes: each one's id and its parent's.
fn all() -> Vec<(i32, i32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| Some((pid, stat(pid)?.1)))
        .collect()
}

/// State and parent of a process.
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, a parenthesis included.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether it is there and no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The living children of a process.
pub(crate) fn children_of(parent: i32) -> Vec<i32> {
    let all = all().into_iter();
    all.filter(|(_, of)| *of == parent)
        .map(|(pid, _)| pid)
        .collect()
}

/// Everything that came of a process and has not been orphaned.
pub(crate) fn descendants(ancestor: i32) -> Vec<i32> {
    let all = all();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let children = all.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Processor time of a process's threads, as the scheduler counts it.
pub(crate) fn cpu(pid: i32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Duration::ZERO;
    };
    tasks
        .filter_map(|task| scheduled(&task.ok()?.path().join("schedstat").display().to_string()))
        .sum()
}

/// Processor time of the calling thread.
pub(crate) fn thread_cpu() -> io::Result<Duration> {
    scheduled("/proc/thread-self/schedstat")
        .ok_or_else(|| io::Error::other("/proc/thread-self/schedstat cannot be read"))
}

fn scheduled(path: &str) -> Option<Duration> {
    let text = fs::read_to_string(path).ok()?;
    let nanos = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// Resident memory of a process in bytes.
pub(crate) fn resident(pid: i32) -> u64 {
    kibibytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// A process's share of the memory that it is resident in, in bytes.
pub(crate) fn proportional(pid: i32) -> u64 {
    kibibytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn kibibytes(path: &str, field: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    number.unwrap_or(0_u64) * 1024
}
