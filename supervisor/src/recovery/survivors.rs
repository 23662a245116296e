//! What a supervisor that was killed has left: which of its processes live,
//! which of them come back, and every listener that one of them holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;
use prefork_fleet::{Snapshot, Survivor};
use prefork_proto::capability;
use prefork_proto::message::{Hello, OutputStream, RejoinState};
use socket2::SockRef;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::config::Config;
use crate::kernel::procfs::schedule::Schedule;
use crate::kernel::sys;
use crate::recovery::rejoin_socket::{Awaited, Door, Returned};
use crate::recovery::state::{self, Document, Found, SavedProcess, lives};
use crate::systemd::fdstore;

/// How long workers may take to come back. One that has not by then hangs: an
/// orphan tries ten times a second at least.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many times as long they may take where they get no processor.
const STRETCH: u32 = 5;

/// How often a worker that is awaited is looked at: it may have died.
const LOOK: Duration = Duration::from_millis(20);

/// A process that has outlived its supervisor.
#[derive(Debug)]
pub(crate) struct Living {
    pub(crate) survivor: Survivor,
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
    pub(crate) pidfd: OwnedFd,
    pub(crate) hello: Option<Hello>,
    /// What it brought, if it came back.
    pub(crate) returned: Option<Returned>,
    /// Whether it came back without a listener that it holds.
    pub(crate) withheld: bool,
}

impl Living {
    /// Whether it can come back at all: one that can't drains by itself.
    pub(crate) fn can_return(&self) -> bool {
        let hello = self.hello.as_ref();
        hello.is_some_and(|hello| {
            hello
                .capabilities
                .iter()
                .any(|can| can == capability::REJOIN)
        })
    }

    /// Whether it came back and is on its way out: then it has no use for a listener.
    fn drains(&self) -> bool {
        let returned = self.returned.as_ref();
        returned.is_some_and(|it| it.rejoin.state == RejoinState::Draining)
    }

    /// The reading ends of what it prints to: what it has brought, or what is taken from
    /// one that did not come back.
    pub(crate) fn take_outputs(&mut self) -> Vec<(OutputStream, OwnedFd)> {
        match &mut self.returned {
            Some(returned) => std::mem::take(&mut returned.outputs),
            None => outputs_of(self),
        }
    }
}

/// The configuration by which workers serve whose supervisor was killed; none
/// where there are no such workers.
pub(crate) fn configuration_in_force(runtime_dir: &Path) -> Option<Config> {
    let Found::State(document) = state::read(runtime_dir) else {
        return None;
    };
    let config = document.config.clone();
    (!Remains::of(document).living.is_empty()).then_some(config)
}

/// The addresses that a supervisor of this runtime directory listens on, or workers that
/// wait for the next one; `None` where that is not to be known.
pub(crate) fn addresses_in_force(runtime_dir: &Path) -> Option<BTreeSet<String>> {
    let document = match state::read(runtime_dir) {
        Found::State(document) => document,
        Found::Nothing | Found::OtherBoot => return Some(BTreeSet::new()),
        Found::Unusable(_) => return None,
    };
    let admin = document.config.supervisor.admin;
    let listeners = document.listeners.iter().map(|it| it.address.clone());
    let addresses = listeners
        .chain(admin.map(|admin| admin.to_string()))
        .collect();
    let is_alive =
        state::living_supervisor(runtime_dir).is_some() || !Remains::of(document).living.is_empty();
    Some(if is_alive { addresses } else { BTreeSet::new() })
}

/// A worker that has died without its supervisor, and whose tree is to go with it.
#[derive(Debug)]
pub(crate) struct Departed {
    pub(crate) pool: String,
    pub(crate) slot: u32,
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
}

/// What is left of a supervisor.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) document: Box<Document<Snapshot>>,
    pub(crate) living: Vec<Living>,
    /// Processes that have gone, or never were.
    pub(crate) gone: Vec<Survivor>,
}

impl Remains {
    /// Looks which of the document's processes live. None of the others is ever
    /// touched, whoever has its number now.
    pub(crate) fn of(document: Box<Document<Snapshot>>) -> Self {
        let known: HashMap<i32, &SavedProcess> = document
            .processes
            .iter()
            .map(|process| (process.pid, process))
            .collect();
        let (mut living, mut gone) = (Vec::new(), Vec::new());
        for survivor in document.fleet.processes() {
            let saved = survivor.pid.and_then(|pid| known.get(&pid));
            match saved.and_then(|saved| hold(survivor, saved)) {
                Some(alive) => living.push(alive),
                None => gone.push(survivor),
            }
        }
        Self {
            document,
            living,
            gone,
        }
    }

    /// Those who have gone and may have left something.
    pub(crate) fn departed(&self) -> Vec<Departed> {
        let pools: BTreeMap<_, _> = self.document.fleet.pools().collect();
        let departed = self.gone.iter().filter_map(|survivor| {
            let pid = survivor.pid?;
            let saved = self.document.processes.iter().find(|it| it.pid == pid)?;
            let pool = (*pools.get(&survivor.worker.pool)?).to_owned();
            let mut editions = self.document.editions.iter();
            let edition = editions.find(|edition| {
                edition.generation == survivor.generation && edition.config.policy.name == pool
            });
            let goes = edition.is_none_or(|edition| edition.config.execution.kill_tree);
            goes.then_some(Departed {
                pool,
                slot: survivor.worker.slot,
                pid,
                start_ticks: saved.start_ticks,
            })
        });
        departed.collect()
    }

    /// Waits until everyone has come back who lives and can.
    pub(crate) async fn collect(
        &mut self,
        door: &Rc<Door>,
        returned: &mut mpsc::UnboundedReceiver<Returned>,
    ) {
        let begun = Instant::now();
        self.expect_all(door);
        let mut patience = Patience::begin(door.absent());
        while patience.is_with(&door.absent()) {
            match tokio::time::timeout(LOOK, returned.recv()).await {
                Ok(Some(one)) => self.take(one),
                Ok(None) => break,
                Err(_) => self.forget_dead(door),
            }
        }
        for pid in door.absent() {
            door.forget(pid);
        }
        while let Ok(one) = returned.try_recv() {
            self.take(one);
        }
        let back = self.living.iter().filter(|it| it.returned.is_some());
        info!(
            "{} of {} workers came back within {} ms",
            back.count(),
            self.living.len(),
            begun.elapsed().as_millis()
        );
    }

    fn expect_all(&self, door: &Door) {
        let pools: BTreeMap<_, _> = self.document.fleet.pools().collect();
        // One that was starting may have become ready since the last write; one
        // that had not leaves by itself.
        let may_come = |living: &&Living| living.survivor.starting || living.can_return();
        for living in self.living.iter().filter(may_come) {
            let worker = living.survivor.worker;
            let Some(pool) = pools.get(&worker.pool) else {
                continue;
            };
            let run_as = self.run_as(pool, living.survivor.generation);
            let us = nix::unistd::geteuid().as_raw();
            let awaited = Awaited {
                pool: (*pool).to_owned(),
                slot: worker.slot,
                incarnation: worker.incarnation,
                uid: run_as.unwrap_or(us),
            };
            door.expect(living.pid, awaited);
        }
    }

    /// The user of a generation's workers, if they have one of their own.
    fn run_as(&self, pool: &str, generation: u64) -> Option<u32> {
        let mut editions = self.document.editions.iter();
        let edition = editions.find(|edition| {
            edition.generation == generation && edition.config.policy.name == pool
        })?;
        edition.config.run_as.as_ref().map(|who| who.uid)
    }

    fn take(&mut self, returned: Returned) {
        let pid = returned.rejoin.pid;
        if let Some(living) = self.living.iter_mut().find(|living| living.pid == pid) {
            living.returned = Some(returned);
        }
    }

    /// Waits no longer for those who have died meanwhile.
    fn forget_dead(&self, door: &Door) {
        for pid in door.absent() {
            let living = self.living.iter().find(|living| living.pid == pid);
            if living.is_none_or(|living| !lives(pid, living.start_ticks)) {
                door.forget(pid);
            }
        }
    }

    fn cookies(&self) -> Vec<u64> {
        self.document.listeners.iter().map(|it| it.cookie).collect()
    }

    /// Every listener of the document that somebody holds, by its cookie. What
    /// workers brought goes first; a duplicate is closed; then what the service
    /// manager keeps; and what only those hold who did not come back is taken
    /// from them, or from one that came back and kept it.
    pub(crate) fn listeners(&mut self) -> BTreeMap<u64, OwnedFd> {
        let mut wanted = self.cookies();
        let mut found = BTreeMap::new();
        let mut keep = |fd: OwnedFd| {
            let cookie = cookie(fd.as_fd());
            if let Some(place) = wanted.iter().position(|it| Some(*it) == cookie) {
                found.insert(wanted.swap_remove(place), fd);
            }
            wanted.is_empty()
        };
        for returned in self.living.iter_mut().filter_map(|it| it.returned.as_mut()) {
            for (_, fd) in returned.listeners.drain(..) {
                keep(fd);
            }
        }
        for fd in fdstore::take_known(&self.cookies()).into_values() {
            keep(fd);
        }
        for living in self.living.iter().filter(|it| it.returned.is_none()) {
            if sockets_of(living).into_iter().any(&mut keep) {
                break;
            }
        }
        let wanted: Vec<u64> = self.cookies().into_iter().collect();
        let missing = |found: &BTreeMap<u64, OwnedFd>| {
            let missing = wanted.iter().filter(|it| !found.contains_key(it));
            missing.copied().collect::<Vec<u64>>()
        };
        for living in self.living.iter_mut().filter(|it| it.returned.is_some()) {
            let missing = missing(&found);
            if missing.is_empty() {
                break;
            }
            for fd in sockets_of(living) {
                if let Some(cookie) = cookie(fd.as_fd()).filter(|it| missing.contains(it)) {
                    living.withheld = !living.drains();
                    found.insert(cookie, fd);
                }
            }
        }
        found
    }
}

/// How long those who have not come back are waited for.
struct Patience {
    schedules: Vec<(i32, Schedule)>,
    seen: Instant,
    /// How long they have had, as far as this process ran.
    spent: Duration,
    /// Until when that is enough.
    given: Duration,
}

impl Patience {
    fn begin(absent: Vec<i32>) -> Self {
        let now = Instant::now();
        let schedule = |pid| (pid, Schedule::of(pid, now));
        Self {
            schedules: absent.into_iter().map(schedule).collect(),
            seen: now,
            spent: Duration::ZERO,
            given: PATIENCE,
        }
    }

    /// Whether they are waited for. Time in which one of them waits for a processor
    /// doesn't count, within bounds, nor does time in which nobody looked.
    fn is_with(&mut self, absent: &[i32]) -> bool {
        let now = Instant::now();
        let gap = now.saturating_duration_since(std::mem::replace(&mut self.seen, now));
        self.spent += gap.min(5 * LOOK);
        if self.spent >= self.given {
            let missing = self.schedules.iter_mut();
            let missing = missing.filter(|(pid, _)| absent.contains(pid));
            let waited = missing.map(|(pid, before)| {
                let schedule = Schedule::of(*pid, now);
                let waited = schedule.waited_since(before);
                *before = schedule;
                waited
            });
            let waited = waited.max().unwrap_or_default();
            if waited > PATIENCE / 64 {
                self.given = (self.given + waited).min(PATIENCE * STRETCH);
            }
        }
        !absent.is_empty() && self.spent < self.given
    }
}

/// A grip on a process, if it is the one that was written down.
fn hold(survivor: Survivor, saved: &SavedProcess) -> Option<Living> {
    if !lives(saved.pid, saved.start_ticks) {
        return None;
    }
    let pidfd = sys::pidfd_open(Pid::from_raw(saved.pid)).ok()?;
    // It may have ended between the look and the grip.
    lives(saved.pid, saved.start_ticks).then(|| Living {
        survivor,
        pid: saved.pid,
        start_ticks: saved.start_ticks,
        pidfd,
        hello: saved.hello.clone(),
        returned: None,
        withheld: false,
    })
}

/// Duplicates of the listening sockets that a process holds.
fn sockets_of(living: &Living) -> Vec<OwnedFd> {
    listening(living.pid, &living.pidfd)
}

/// Duplicates of the listening sockets that a process holds, as far as this user may
/// take them.
pub(crate) fn listening(pid: i32, pidfd: &OwnedFd) -> Vec<OwnedFd> {
    let is_socket = |target: &Path| target.to_string_lossy().starts_with("socket:");
    let mut sockets = take(pid, pidfd, is_socket);
    sockets.retain(|fd| SockRef::from(fd).is_listener().unwrap_or(false));
    sockets
}

/// The reading ends of what a process prints to, if it keeps them.
fn outputs_of(living: &Living) -> Vec<(OutputStream, OwnedFd)> {
    let mut outputs = Vec::new();
    for (stream, number) in [(OutputStream::Stdout, 1), (OutputStream::Stderr, 2)] {
        let Ok(pipe) = fs::read_link(format!("/proc/{}/fd/{number}", living.pid)) else {
            continue;
        };
        let ends = take(living.pid, &living.pidfd, |target| {
            target == pipe && target.to_string_lossy().starts_with("pipe:")
        });
        let is_reading = |end: &OwnedFd| {
            let flags = fcntl(end, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
            flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE == OFlag::O_RDONLY)
        };
        outputs.extend(ends.into_iter().find(is_reading).map(|end| (stream, end)));
    }
    outputs
}

/// Duplicates of what a process has open that `/proc` shows as something wanted.
fn take(pid: i32, pidfd: &OwnedFd, is_wanted: impl Fn(&Path) -> bool) -> Vec<OwnedFd> {
    let Ok(numbers) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let numbers = numbers.flatten().filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        is_wanted(&target).then_some(number)
    });
    let mut taken = Vec::new();
    for number in numbers {
        match sys::pidfd_getfd(pidfd, number) {
            Ok(fd) => taken.push(fd),
            Err(errno) => {
                warn!(pid, "cannot take a descriptor from a worker: {errno}");
                break;
            }
        }
    }
    taken
}

/// What tells a socket from every other; none for what is no socket.
fn cookie(socket: BorrowedFd<'_>) -> Option<u64> {
    SockRef::from(&socket).cookie().ok()
}
