//! How long the threads of a process have waited for a processor:
//! `/proc/PID/task/TID/schedstat` (sched-stats, in the kernel's documentation) and
//! proc_pid_stat(5).

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::kernel::procfs::parse_stat;

/// Threads of a process that are looked at: it may have as many as it likes.
const THREADS: usize = 64;

/// The threads of one process at one time.
#[derive(Debug, Clone)]
pub struct Schedule {
    pid: i32,
    at: Instant,
    threads: BTreeMap<i32, Thread>,
}

/// One thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Thread {
    /// How long it has run.
    ran: Duration,
    /// How long it had waited for a processor each time before it ran. A wait that
    /// goes on is not in it.
    waited: Duration,
    /// How often it has run.
    turns: u64,
    /// Whether it runs or wants to.
    runnable: bool,
}

impl Schedule {
    /// Looks at a process. Without threads where the kernel does not tell, and for
    /// one that has gone.
    pub fn of(pid: i32, at: Instant) -> Self {
        let mut threads = BTreeMap::new();
        if let Some(leader) = Thread::look(pid, pid) {
            threads.insert(pid, leader);
        }
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        let tasks = tasks.into_iter().flatten().take(THREADS).flatten();
        let numbers = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
        for number in numbers.filter(|number| *number != pid) {
            threads.extend(Thread::look(pid, number).map(|thread| (number, thread)));
        }
        Self { pid, at, threads }
    }

    /// How long the process has waited for a processor since `before`: its first
    /// thread, or where that has had nothing to do, the one that has waited longest.
    /// A stopped process waits for nothing, nor does one that loops on a processor.
    pub fn waited_since(&self, before: &Self) -> Duration {
        let time = self.at.saturating_duration_since(before.at);
        let of = |number: &i32| {
            let (now, then) = (self.threads.get(number)?, before.threads.get(number)?);
            Some((now.waited_since(then, time), now.was_asleep_since(then)))
        };
        match of(&self.pid) {
            Some((waited, false)) => waited,
            _ => {
                let waits = self.threads.keys().filter_map(of);
                waits.map(|(waited, _)| waited).max().unwrap_or_default()
            }
        }
    }
}

impl Thread {
    fn look(pid: i32, number: i32) -> Option<Self> {
        let directory = format!("/proc/{pid}/task/{number}");
        let times = fs::read_to_string(format!("{directory}/schedstat")).ok()?;
        let mut times = times.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = || times.next()?.ok();
        let (ran, waited, turns) = (next()?, next()?, next()?);
        let stat = fs::read(format!("{directory}/stat")).ok()?;
        let state = parse_stat(&String::from_utf8_lossy(&stat))?.state;
        Some(Self {
            ran: Duration::from_nanos(ran),
            waited: Duration::from_nanos(waited),
            turns,
            runnable: state == 'R',
        })
    }

    /// Of the time since `before`, what it waited for a processor.
    fn waited_since(&self, before: &Self, time: Duration) -> Duration {
        if self.turns == before.turns && self.ran == before.ran {
            // The kernel counts a wait when it is over. One that has not run, and
            // wanted to then and now, has done nothing but wait.
            let waits = self.runnable && before.runnable;
            return if waits { time } else { Duration::ZERO };
        }
        self.waited.saturating_sub(before.waited).min(time)
    }

    /// Whether it has not run since, and does not want to.
    fn was_asleep_since(&self, before: &Self) -> bool {
        self.turns == before.turns && !self.runnable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn thread(ran_ms: u64, waited_ms: u64, turns: u64, runnable: bool) -> Thread {
        Thread {
            ran: Duration::from_millis(ran_ms),
            waited: Duration::from_millis(waited_ms),
            turns,
            runnable,
        }
    }

    /// How long a process has waited within a second, by its threads before and after.
    fn waited(before: &[Thread], after: &[Thread]) -> Duration {
        let begun = Instant::now();
        let threads = |threads: &[Thread]| (1..).zip(threads.iter().copied()).collect();
        let schedule = |at, of| Schedule {
            pid: 1,
            at,
            threads: threads(of),
        };
        schedule(begun + SECOND, after).waited_since(&schedule(begun, before))
    }

    #[test]
    fn what_the_kernel_has_counted_is_a_wait() {
        let waited = waited(&[thread(10, 100, 5, true)], &[thread(20, 900, 7, true)]);
        assert_eq!(waited, Duration::from_millis(800));
    }

    #[test]
    fn a_wait_that_has_not_ended_is_one() {
        let before = [thread(10, 100, 5, true)];
        assert_eq!(waited(&before, &before), SECOND);
    }

    #[test]
    fn who_is_stopped_or_asleep_waits_for_no_processor() {
        let before = [thread(10, 100, 5, false)];
        assert_eq!(waited(&before, &before), Duration::ZERO);
        let stopped = [thread(10, 100, 5, false)];
        assert_eq!(
            waited(&[thread(10, 100, 5, true)], &stopped),
            Duration::ZERO
        );
    }

    #[test]
    fn who_loops_on_a_processor_waits_for_none() {
        let before = [thread(10, 100, 5, true)];
        assert_eq!(
            waited(&before, &[thread(1010, 100, 5, true)]),
            Duration::ZERO
        );
    }

    #[test]
    fn another_thread_counts_where_the_first_has_nothing_to_do() {
        let (idle, busy) = (thread(1, 1, 1, false), thread(10, 100, 5, true));
        let later = thread(20, 600, 9, true);
        let half = Duration::from_millis(500);
        assert_eq!(waited(&[idle, busy], &[idle, later]), half);
        let looping = thread(900, 1, 1, true);
        assert_eq!(
            waited(&[thread(1, 1, 1, true), busy], &[looping, later]),
            Duration::ZERO
        );
    }

    #[test]
    fn this_process_is_seen_to_run() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let schedule = Schedule::of(pid, Instant::now());
        assert!(!schedule.threads.is_empty());
        assert_eq!(schedule.waited_since(&schedule), Duration::ZERO);
        assert!(Schedule::of(-1, Instant::now()).threads.is_empty());
    }
}
