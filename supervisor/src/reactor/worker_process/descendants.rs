//! What workers have started goes with them. When a worker has died, whatever
//! descends from it is found and killed: it would keep listeners, locks and
//! processors, and take connections that nobody answers for.
//!
//! The supervisor is the subreaper (prctl(2)) of all that it starts: what a worker
//! leaves becomes its child, so one look at its own children shows whether there
//! is anything. Whose a child is tell its session, the mark in its environment
//! (`procfs::kin`) and what it prints to. Where a worker was another supervisor's
//! child, all of `/proc` is looked through instead, a few processes in a turn.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use prefork_fleet::Worker;
use tracing::{debug, info, warn};

use crate::kernel::procfs::{self, Stat, kin};
use crate::kernel::sys;
use crate::reactor::Reactor;
use crate::reactor::observe::events::About;
use crate::reactor::worker_process::handle::{Grip, SlotName};
use crate::reactor::worker_process::output::Readers;
use crate::recovery::state::StartTime;
use crate::recovery::survivors::Departed;

/// Processes that are looked at in one turn of the loop.
const PER_TURN: usize = 64;

/// Between two rounds, at first; each time twice as long.
const FIRST_GAP: Duration = Duration::from_millis(20);
const LONGEST_GAP: Duration = Duration::from_millis(640);

/// A full look through `/proc` may take this share of the loop's time at most.
const GAP_FACTOR: u32 = 20;

/// Rounds in which nothing is found until a tree counts as gone. A list of
/// children is not exact while some of them end (proc_pid_task(5)).
const QUIET_ROUNDS: u32 = 2;

/// How long what was killed may take to end before that is said.
const PATIENCE: Duration = Duration::from_secs(5);

/// Descendants of a worker that are remembered by name.
const MOST_KNOWN: usize = 256;

/// Names in one line of the log.
const MOST_NAMED: usize = 8;

/// What is known of the trees of workers.
#[derive(Debug, Default)]
pub(in crate::reactor) struct Trees {
    /// Whether orphans of our children become ours.
    subreaper: bool,
    /// Workers that live and whose tree goes with them.
    roots: HashMap<Worker, Root>,
    /// Workers that have died and whose tree is being ended.
    dead: Vec<Dead>,
    /// What was killed and has not gone yet.
    doomed: HashMap<Name, Doomed>,
    /// What can't be ended, which has been said.
    given_up: HashSet<Name>,
    /// The round in progress.
    round: VecDeque<Candidate>,
    began: Option<Instant>,
    /// When the next round, or the next turn of this one, is due.
    due: Option<Instant>,
    gap: Duration,
}

/// A process for good: its id is used again.
type Name = (i32, u64);

/// A worker as the root of its tree.
#[derive(Debug)]
struct Root {
    slot: SlotName,
    pid: i32,
    started: StartTime,
    /// What it prints to.
    outputs: [Option<String>; 2],
    /// What it had started when it was told to leave.
    known: HashSet<Name>,
    /// Whether what it leaves becomes our child.
    ours: bool,
    /// Whether its number may have been another's since it died.
    long_ago: bool,
}

/// A worker that has died.
#[derive(Debug)]
struct Dead {
    root: Rc<Root>,
    mark: String,
    quiet_rounds: u32,
    /// What was killed in this round, for people.
    killed: Vec<String>,
}

#[derive(Debug)]
struct Doomed {
    root: Rc<Root>,
    name: String,
    since: Instant,
}

/// A process that is to be looked at.
#[derive(Debug)]
struct Candidate {
    pid: i32,
    /// Whose it is, if its parent's was found already.
    of: Option<Rc<Root>>,
}

impl Trees {
    pub(in crate::reactor) fn new() -> Self {
        let subreaper = nix::sys::prctl::set_child_subreaper(true);
        if let Err(errno) = &subreaper {
            debug!("PR_SET_CHILD_SUBREAPER: {errno}");
        }
        Self {
            subreaper: subreaper.is_ok(),
            ..Self::default()
        }
    }

    /// A worker lives whose tree is to go with it.
    pub(in crate::reactor) fn watch(&mut self, worker: Worker, slot: SlotName, grip: &Grip) {
        let root = Root {
            slot,
            pid: grip.pid,
            started: grip.started.clone(),
            outputs: grip.outputs.clone(),
            known: HashSet::new(),
            ours: grip.is_child && self.subreaper,
            long_ago: false,
        };
        self.roots.insert(worker, root);
    }

    /// A worker is about to be told to leave: once it has, nobody knows what its
    /// children were that have nothing else in common with it.
    pub(in crate::reactor) fn leaves(&mut self, worker: Worker) {
        let Some(root) = self.roots.get_mut(&worker) else {
            return;
        };
        let mut parents = vec![root.pid];
        while let Some(parent) = parents.pop() {
            for child in kin::children(parent).unwrap_or_default() {
                let Ok(stat) = procfs::stat(Pid::from_raw(child)) else {
                    continue;
                };
                let is_new = root.known.insert((child, stat.start_ticks));
                if is_new && root.known.len() < MOST_KNOWN {
                    parents.push(child);
                }
            }
        }
    }

    /// A worker has died.
    pub(in crate::reactor) fn died(&mut self, worker: Worker) {
        if let Some(root) = self.roots.remove(&worker) {
            self.end(root);
        }
    }

    /// A worker had died before anybody looked.
    pub(in crate::reactor) fn had_died(&mut self, slot: SlotName, pid: i32, start_ticks: u64) {
        self.end(Root {
            slot,
            pid,
            started: StartTime::known(pid, start_ticks),
            outputs: [None, None],
            known: HashSet::new(),
            ours: false,
            long_ago: true,
        });
    }

    fn end(&mut self, root: Root) {
        let mark = kin::mark(root.pid, root.started.ticks());
        self.dead.push(Dead {
            root: Rc::new(root),
            mark,
            quiet_rounds: 0,
            killed: Vec::new(),
        });
        let now = Instant::now();
        self.gap = FIRST_GAP;
        // Several that die together are looked after together.
        self.due = Some(self.due.map_or(now, |due| due.min(now + FIRST_GAP)));
    }

    /// When there is something to do.
    pub(in crate::reactor) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether every tree has gone, as far as it can be ended.
    pub(in crate::reactor) fn is_quiet(&self) -> bool {
        self.dead.is_empty() && self.doomed.is_empty()
    }

    /// Looks at some processes; tells what was ended and what can't be.
    pub(in crate::reactor) fn turn(&mut self, is_worker: impl Fn(i32) -> bool) -> Vec<Told> {
        let mut told = Vec::new();
        if self.began.is_none() {
            self.begin_round();
        }
        for _ in 0..PER_TURN {
            match self.round.pop_front() {
                Some(candidate) if candidate.of.is_none() && is_worker(candidate.pid) => {}
                Some(candidate) => self.look(candidate, &mut told),
                None => {
                    self.finish_round(&mut told);
                    return told;
                }
            }
        }
        self.due = Some(Instant::now());
        told
    }

    fn begin_round(&mut self) {
        self.began = Some(Instant::now());
        let ours = self.dead.iter().all(|dead| dead.root.ours);
        let children = ours.then(|| kin::children(Pid::this().as_raw()).ok());
        let pids = children.flatten().or_else(|| kin::everyone().ok());
        let candidates = pids.unwrap_or_default().into_iter();
        self.round = candidates.map(|pid| Candidate { pid, of: None }).collect();
    }

    fn look(&mut self, candidate: Candidate, told: &mut Vec<Told>) {
        let pid = candidate.pid;
        let Ok(stat) = procfs::stat(Pid::from_raw(pid)) else {
            return;
        };
        let name = (pid, stat.start_ticks);
        if matches!(stat.state, 'Z' | 'X') || pid == Pid::this().as_raw() {
            return;
        }
        if self.doomed.contains_key(&name) || self.given_up.contains(&name) {
            return;
        }
        let Some(root) = candidate.of.or_else(|| self.whose(pid, &stat)) else {
            return;
        };
        // What it has started is nobody's known descendant once it is gone.
        for child in kin::children(pid).unwrap_or_default() {
            self.round.push_front(Candidate {
                pid: child,
                of: Some(Rc::clone(&root)),
            });
        }
        let title = kin::name(pid);
        match kill(name) {
            Ok(()) => {
                let killed = format!("{pid} ({title})");
                if let Some(dead) = self.dead.iter_mut().find(|it| Rc::ptr_eq(&it.root, &root)) {
                    dead.killed.push(killed);
                    dead.quiet_rounds = 0;
                }
                let doomed = Doomed {
                    root,
                    name: title,
                    since: Instant::now(),
                };
                self.doomed.insert(name, doomed);
            }
            // It has ended by itself.
            Err(nix::Error::ESRCH) => {}
            Err(errno) => {
                self.given_up.insert(name);
                told.push(Told::cannot_end(&root, pid, &title, errno.desc()));
            }
        }
    }

    /// Which dead worker a process descends from.
    fn whose(&self, pid: i32, stat: &Stat) -> Option<Rc<Root>> {
        let of = |wanted: &dyn Fn(&Dead) -> bool| {
            let dead = self.dead.iter().find(|dead| wanted(dead));
            dead.map(|dead| Rc::clone(&dead.root))
        };
        // As long as a session has a member the kernel gives its number to nobody
        // else; once it had none, its number may be another's.
        let session = stat.session;
        let in_session = |dead: &Dead| {
            let root = &dead.root;
            !root.long_ago && root.pid == session && !is_used_again(root)
        };
        let name = (pid, stat.start_ticks);
        if let Some(root) = of(&|dead| dead.root.known.contains(&name) || in_session(dead)) {
            return Some(root);
        }
        let marks = kin::marks(pid);
        if let Some(root) = of(&|dead| marks.contains(&dead.mark)) {
            return Some(root);
        }
        // Only what has become our child can be told by that: everybody else may
        // have been given such an end.
        if stat.parent != Pid::this().as_raw() {
            return None;
        }
        let outputs = kin::prints_to(pid);
        let mut outputs = outputs.iter().flatten();
        outputs.find_map(|output| {
            of(&|dead| {
                let prints_to = dead.root.outputs.iter().flatten();
                prints_to.into_iter().any(|it| it == output)
            })
        })
    }

    fn finish_round(&mut self, told: &mut Vec<Told>) {
        let now = Instant::now();
        self.doomed.retain(|(pid, start_ticks), doomed| {
            let stat = procfs::stat(Pid::from_raw(*pid));
            let Some(stat) = stat.ok().filter(|stat| stat.start_ticks == *start_ticks) else {
                return false;
            };
            if matches!(stat.state, 'Z' | 'X') {
                return false;
            }
            if now.duration_since(doomed.since) < PATIENCE {
                return true;
            }
            let why = format!("it was killed and is still there (state {})", stat.state);
            told.push(Told::cannot_end(&doomed.root, *pid, &doomed.name, &why));
            self.given_up.insert((*pid, *start_ticks));
            false
        });
        for dead in &mut self.dead {
            if dead.killed.is_empty() {
                dead.quiet_rounds += 1;
            } else {
                let killed = std::mem::take(&mut dead.killed);
                told.push(Told::ended(&dead.root, &killed));
            }
        }
        self.dead.retain(|dead| dead.quiet_rounds < QUIET_ROUNDS);
        let took = self
            .began
            .take()
            .map_or(Duration::ZERO, |began| now - began);
        let gap = self.gap.max(took * GAP_FACTOR);
        self.due = (!self.is_quiet()).then_some(now + gap);
        if self.due.is_none() {
            self.given_up.clear();
        }
        self.gap = (self.gap * 2).min(LONGEST_GAP);
    }
}

/// Whether somebody else has a dead worker's number by now.
fn is_used_again(root: &Root) -> bool {
    let stat = procfs::stat(Pid::from_raw(root.pid));
    stat.is_ok_and(|stat| stat.start_ticks != root.started.ticks())
}

/// Kills exactly the process that started then.
fn kill((pid, start_ticks): Name) -> nix::Result<()> {
    let pidfd = sys::pidfd_open(Pid::from_raw(pid))?;
    // It may have ended, and its number be another's, before there was the pidfd.
    let stat = procfs::stat(Pid::from_raw(pid)).map_err(|_| nix::Error::ESRCH)?;
    if stat.start_ticks != start_ticks {
        return Err(nix::Error::ESRCH);
    }
    sys::pidfd_kill(&pidfd, Signal::SIGKILL)
}

/// Something to be said of a tree.
#[derive(Debug)]
pub(in crate::reactor) struct Told {
    slot: SlotName,
    pid: i32,
    text: String,
    /// Whether somebody has to see to it.
    is_warning: bool,
}

impl Told {
    fn ended(root: &Root, killed: &[String]) -> Self {
        let count = killed.len();
        let what = if count == 1 { "process" } else { "processes" };
        let named = killed.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>();
        let more = if count > MOST_NAMED { ", …" } else { "" };
        Self {
            slot: root.slot.clone(),
            pid: root.pid,
            text: format!(
                "ended {count} {what} that it left: {}{more}",
                named.join(", ")
            ),
            is_warning: false,
        }
    }

    fn cannot_end(root: &Root, pid: i32, name: &str, why: &str) -> Self {
        Self {
            slot: root.slot.clone(),
            pid: root.pid,
            text: format!("cannot end process {pid} ({name}) that it left: {why}"),
            is_warning: true,
        }
    }
}

impl Reactor {
    /// Ends what workers have left that died while there was no supervisor.
    pub(crate) fn end_trees_of(&mut self, departed: Vec<Departed>) {
        for Departed {
            pool,
            slot,
            pid,
            start_ticks,
        } in departed
        {
            let pool = pool.into();
            self.trees
                .had_died(SlotName { pool, slot }, pid, start_ticks);
        }
    }

    /// Ends what dead workers have left, a turn's worth of it.
    pub(in crate::reactor) fn end_trees(&mut self) {
        let workers: HashSet<i32> = self.processes.values().map(|grip| grip.pid).collect();
        let readers = Readers::shared();
        let is_known = |pid| workers.contains(&pid) || readers.are_run_by(pid);
        let told = self.trees.turn(is_known);
        for Told {
            slot,
            pid,
            text,
            is_warning,
        } in told
        {
            if is_warning {
                warn!(%slot, pid, "{text}");
            } else {
                info!(%slot, pid, "{text}");
            }
            let about = About {
                pool: Some(slot.pool.to_string()),
                slot: Some(slot.slot),
                pid: Some(pid),
                exit: None,
            };
            self.journal.note("tree", about, text);
        }
    }

    /// At the end: waits until what workers have left is gone, as far as it can be ended.
    pub(in crate::reactor) async fn see_trees_end(&mut self) {
        while let Some(due) = self.trees.due() {
            tokio::time::sleep_until(due.into()).await;
            self.end_trees();
            self.reap_strangers();
        }
    }
}
