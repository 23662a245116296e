//! Which deaths by SIGKILL were the kernel's, for want of memory. The signal
//! does not say so; the counter of such kills that the worker's cgroup has does:
//! cgroups(7), `memory.events` of version 2 and `memory.oom_control` of version 1.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::path::PathBuf;

use prefork_fleet::{Death, Signal, Worker};

// The fleet knows no libc: its numbers are held to this one's.
const _: () = {
    assert!(Signal::HUP.0 == libc::SIGHUP && Signal::INT.0 == libc::SIGINT);
    assert!(Signal::QUIT.0 == libc::SIGQUIT && Signal::TERM.0 == libc::SIGTERM);
    assert!(Signal::USR1.0 == libc::SIGUSR1 && Signal::USR2.0 == libc::SIGUSR2);
};

/// Looks at a counter, a second apart each, within which a death belongs to a
/// kill: a large process takes its time to go.
const WINDOW: usize = 5;

/// The counters of every cgroup that has a worker.
#[derive(Debug, Default)]
pub(in crate::reactor) struct OutOfMemory {
    workers: HashMap<Worker, PathBuf>,
    /// What each counter said at the last looks, the oldest first; a kill that
    /// has its death is added to all of them.
    counters: BTreeMap<PathBuf, VecDeque<u64>>,
}

impl OutOfMemory {
    /// Notes which cgroup a worker is in; where the kernel counts nothing, its
    /// death can't be told apart. Does nothing for a worker that is known.
    pub(in crate::reactor) fn watch(&mut self, worker: Worker, pid: i32) {
        if self.workers.contains_key(&worker) {
            return;
        }
        let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let found = candidates(&membership)
            .into_iter()
            .find_map(|file| Some((read(&file)?, file)));
        if let Some((kills, file)) = found {
            let looks = self.counters.entry(file.clone());
            looks.or_insert_with(|| VecDeque::from([kills]));
            self.workers.insert(worker, file);
        }
    }

    /// Looks at the counters; once a second.
    pub(in crate::reactor) fn look(&mut self) {
        let workers = &self.workers;
        self.counters
            .retain(|file, _| workers.values().any(|theirs| theirs == file));
        for (file, looks) in &mut self.counters {
            if let Some(kills) = read(file) {
                looks.push_back(kills);
                while looks.len() > WINDOW {
                    looks.pop_front();
                }
            }
        }
    }

    /// Forgets a worker, which has died like this. Whether the kernel has lately
    /// killed a process of its cgroup whose death was not seen yet.
    pub(in crate::reactor) fn was_killed(&mut self, worker: Worker, death: &Death) -> bool {
        let watched = self.workers.remove(&worker);
        let Some(file) = watched.filter(|_| may_be_sigkill(death)) else {
            return false;
        };
        let Some(looks) = self.counters.get_mut(&file) else {
            return false;
        };
        read(&file).is_some_and(|kills| attribute(looks, kills))
    }
}

/// Whether it was SIGKILL, as far as is known: how a process ended that is
/// another's child, as adopted ones are, can't always be seen.
fn may_be_sigkill(death: &Death) -> bool {
    match (death.code, death.signal) {
        (_, Some(signal)) => signal == Signal(libc::SIGKILL),
        (code, None) => code.is_none(),
    }
}

/// Takes one kill that no death was attributed to yet, if there is one.
fn attribute(looks: &mut VecDeque<u64>, kills: u64) -> bool {
    let there = looks.front().is_some_and(|oldest| *oldest < kills);
    for look in looks {
        *look = kills.min(*look + 1);
    }
    there
}

/// Where a process of these cgroups (`/proc/PID/cgroup`) may have its counter.
fn candidates(membership: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (roots, name) = if controllers.split(',').any(|name| name == "memory") {
            (&["/sys/fs/cgroup/memory"][..], "memory.oom_control")
        } else if number == "0" && controllers.is_empty() {
            let roots = &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"][..];
            (roots, "memory.events")
        } else {
            continue;
        };
        // Where a container sees only its own part of the tree, that is the root.
        let visible = path.trim_start_matches('/');
        let paths = [visible, ""]
            .into_iter()
            .filter(|path| !path.contains(".."));
        files.extend(paths.flat_map(|path| {
            let file = move |root: &&str| PathBuf::from(root).join(path).join(name);
            roots.iter().map(file).collect::<Vec<_>>()
        }));
    }
    files
}

fn read(file: &PathBuf) -> Option<u64> {
    parse(&fs::read_to_string(file).ok()?)
}

/// The counter in a file of either version: a name and a number in each line.
fn parse(text: &str) -> Option<u64> {
    let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use prefork_fleet::PoolId;

    use super::*;

    fn worker(slot: u32) -> Worker {
        Worker {
            pool: PoolId(0),
            slot,
            incarnation: 1,
        }
    }

    #[test]
    fn the_counter_is_read_from_files_of_both_versions() {
        let events = "low 0\nhigh 0\nmax 77\noom 5\noom_kill 3\noom_group_kill 1\n";
        assert_eq!(parse(events), Some(3));
        let control = "oom_kill_disable 0\nunder_oom 0\noom_kill 12\n";
        assert_eq!(parse(control), Some(12));
        // Before Linux 4.13.
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\n"), None);
        assert_eq!(parse("oom_kill many\n"), None);
    }

    #[test]
    fn the_file_is_sought_where_the_process_is() {
        let path = |text: &str| PathBuf::from(text);
        let unified = candidates("0::/system.slice/prefork.service\n");
        assert_eq!(
            unified[0],
            path("/sys/fs/cgroup/system.slice/prefork.service/memory.events")
        );
        let legacy = candidates("9:name=systemd:/\n4:cpu,memory:/docker/a:b\n0::/\n");
        assert_eq!(
            legacy[0],
            path("/sys/fs/cgroup/memory/docker/a:b/memory.oom_control")
        );
        assert_eq!(legacy[1], path("/sys/fs/cgroup/memory/memory.oom_control"));
        let outside = candidates("0::/../other\n");
        assert_eq!(outside[0], path("/sys/fs/cgroup/memory.events"));
        assert_eq!(candidates("nonsense\n"), Vec::<PathBuf>::new());
    }

    fn ended_by(signal: i32) -> Death {
        Death {
            signal: Some(Signal(signal)),
            ..Death::default()
        }
    }

    fn sigkill() -> Death {
        ended_by(libc::SIGKILL)
    }

    /// Of a process that is not our child.
    fn unknown() -> Death {
        Death::default()
    }

    fn left() -> Death {
        Death {
            code: Some(0),
            ..Death::default()
        }
    }

    /// Workers in a cgroup whose counter the test writes.
    fn watched(file: &std::path::Path, slots: u32) -> OutOfMemory {
        let mut oom = OutOfMemory::default();
        count(file, 7);
        oom.counters.insert(file.to_owned(), VecDeque::from([7]));
        for slot in 0..slots {
            oom.workers.insert(worker(slot), file.to_owned());
        }
        oom
    }

    fn count(file: &std::path::Path, kills: u64) {
        fs::write(file, format!("oom 9\noom_kill {kills}\n")).unwrap();
    }

    #[test]
    fn as_many_deaths_are_for_want_of_memory_as_the_kernel_has_counted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("memory.events");
        let mut oom = watched(&file, 6);
        assert!(!oom.was_killed(worker(0), &sigkill()), "somebody's kill -9");
        count(&file, 9);
        oom.look();
        assert!(!oom.was_killed(worker(1), &left()), "it left by itself");
        assert!(oom.was_killed(worker(2), &sigkill()));
        assert!(oom.was_killed(worker(3), &sigkill()));
        assert!(
            !oom.was_killed(worker(4), &sigkill()),
            "both have their death"
        );
        assert!(!oom.was_killed(worker(4), &sigkill()), "it is forgotten");
    }

    #[test]
    fn a_death_that_nobody_tells_of_may_have_been_for_want_of_memory() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("memory.events");
        let mut oom = watched(&file, 4);
        assert!(!oom.was_killed(worker(0), &unknown()), "no kill is counted");
        count(&file, 8);
        let crash = ended_by(libc::SIGSEGV);
        assert!(!oom.was_killed(worker(1), &crash), "that is known");
        assert!(oom.was_killed(worker(2), &unknown()));
        assert!(!oom.was_killed(worker(3), &unknown()), "it has its death");
    }

    #[test]
    fn a_kill_long_ago_explains_no_death_now() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("memory.events");
        let mut oom = watched(&file, 2);
        count(&file, 8);
        for _ in 0..WINDOW {
            oom.look();
        }
        assert!(!oom.was_killed(worker(0), &sigkill()));
        count(&file, 9);
        oom.look();
        assert!(oom.was_killed(worker(1), &sigkill()));
        oom.look();
        assert!(oom.counters.is_empty(), "nobody is in it");
    }

    #[test]
    fn a_process_of_this_machine_is_watched_where_the_kernel_counts() {
        let mut oom = OutOfMemory::default();
        oom.watch(worker(0), std::process::id().cast_signed());
        if oom.workers.is_empty() {
            eprintln!("SKIPPED: this machine's cgroups do not count kills for want of memory");
            return;
        }
        oom.look();
        assert!(!oom.was_killed(worker(0), &left()));
    }
}
