//! The reactor: turns signals, process ends, channel messages, requests and
//! timers into events for the fleet, and carries its actions out. All of it is
//! one thread and one loop.
//!
//! - `worker_process` has the task that belongs to one worker process, from its spawn to
//!   its reaping, with its channel, its output and what it has started.
//! - `generation` holds what a generation's workers execute, pinned; `listeners` the
//!   sockets that they accept from, and what waits in their queues.
//! - `reload` prepares a new generation and cleans up after it.
//! - `handover` goes on where another supervisor ended, and lets another program go on
//!   here.
//! - `observe` is what is to be seen: status, events, log lines.
//! - `fronts` tells those who forward of the pools behind them.
//! - `actions` carries out what the fleet decides; `requests` answers the control socket;
//!   `clock` is the fleet's; `signals` are reduced to what they ask for, which
//!   `signal_actions` does; `stop` has the time between the order to stop and the drain.

mod actions;
mod canary;
mod clock;
pub(crate) mod event_batching;
mod fronts;
mod generation;
mod handover;
mod listeners;
mod observe;
mod reload;
mod requests;
mod signal_actions;
mod signals;
mod stop;
mod worker_process;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clock::Clock;
use fronts::Fronts;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use prefork_api::JobLine;
use prefork_proto::channel::ChannelError;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::config::{self, Config, Options};
use crate::control::Gate;
use crate::handle::{Member, Request};
use crate::kernel::fd_reserve::Reserve;
use crate::log::Log;
use crate::metrics::{Metrics, SavedMetrics};
use crate::reactor::event_batching::Rest;
use crate::recovery::rejoin_socket::Door;
use crate::recovery::state::StateFile;
use crate::systemd::notify::Notifier;
use crate::tls::{Tickets, Vault};
use crate::upgrade::Fixtures;

pub use generation::directories::PlaceError;
pub(crate) use generation::program::pin_if_elf;
pub use generation::program::{ADAPTER_ARGUMENT, BUNDLED_ARGUMENT, ProgramError};
pub use generation::revision::{Edition, PoolError};
use generation::revisions::Editions;
use handover::persist::Counted;
use handover::upgrade::{Ears, Upgrades, Verdict};
use observe::events::Journal;
use observe::oom::OutOfMemory;
use observe::starvation::Look;
use observe::traffic::RecentTraffic;
use prefork_fleet::{Action, BootFailure, Command, Event, Fleet, JobId, PoolId, Time, Worker};
use reload::transaction::{Reading, Reloads};

pub use signals::Signals;
use stop::StopOrder;
use worker_process::descendants::Trees;
use worker_process::handle::{Grip, Ties};

pub use worker_process::output::{READ_OUTPUT_ARGUMENT, read_output_for_supervisor};
use worker_process::private_address::Upstreams;
use worker_process::protocol::BREACHES;
use worker_process::task::at;

/// Between two looks at the workers' memory, and at the loop's own lag.
const PULSE: Duration = Duration::from_secs(1);

/// Between two looks at the queues of slots that accept nothing.
const TENDING: Duration = Duration::from_millis(100);

/// Events of workers that may wait before the workers' tasks have to.
const EVENTS: usize = 1024;

/// Of them, what is handled before the loop looks at anything else.
const EVENTS_PER_TURN: usize = 64;

/// So late the loop comes to a deadline on a machine that has processors for it.
const PUNCTUAL: Duration = Duration::from_millis(20);

/// How often, where it comes later, it looks again whether something more was said.
const HEARINGS: usize = 8;

/// How the supervisor ended.
#[derive(Debug)]
pub enum Outcome {
    /// Stop was asked for, and everything has gone.
    Stopped,
    /// No pool of the first generation came up; with `strict_boot`, one did not.
    BootFailed(Vec<BootFailure>),
}

/// Everything that the supervisor is, besides its servers.
pub struct Reactor {
    clock: Clock,
    /// When the service began, whatever program it was then.
    began: Time,
    fleet: Fleet,
    editions: Editions,
    /// A pool's name outlives it, for what its last processes do.
    names: HashMap<PoolId, Rc<str>>,
    /// Where the configuration comes from, and what it says now.
    options: Options,
    config: Config,
    /// The soft limit of descriptors that the workers get.
    nofile: u64,
    reloads: Reloads,
    readings: mpsc::UnboundedSender<Reading>,
    upgrades: Upgrades,
    processes: HashMap<Worker, Grip>,
    /// Forks to be done, one per turn of the loop.
    spawns: VecDeque<Spawn>,
    /// Pools whose requests are to be counted before anything else happens.
    counts: VecDeque<PoolId>,
    /// Processes that are silent, to be looked at before anything else happens.
    looks: VecDeque<Look>,
    jobs: HashMap<JobId, Job>,
    next_job: u64,
    /// The keys of session tickets; none where the system has no random bytes.
    tickets: Option<Tickets>,
    metrics: Metrics,
    /// What is wrong with listeners, by name, as it was last said.
    listener_problems: BTreeMap<String, String>,
    /// When the processes' use of memory and time was last looked up.
    looked_up: Option<Instant>,
    journal: Journal,
    /// What the pools have served lately.
    history: RecentTraffic,
    oom: OutOfMemory,
    trees: Trees,
    fronts: Fronts,
    upstreams: Upstreams,
    notifier: Notifier,
    log: Log,
    reserve: Rc<Reserve>,
    /// What outlives this supervisor; none for one that is thrown away.
    keep: Option<Keep>,
    /// Whether the fleet goes on, or begins.
    recovered: bool,
    /// Whether a reload that was in progress is being undone.
    undoing: bool,
    ties: Ties,
    stop: StopOrder,
    outcome: Option<Outcome>,
    ended: bool,
    /// Processes that another supervisor started: what they start is not ours by
    /// descent, also after their end.
    adopted: Vec<Member>,
}

/// What a reactor begins with.
pub struct Setup {
    /// How to read the configuration again.
    pub options: Options,
    /// The configuration.
    pub config: Config,
    /// The soft limit of descriptors that the workers get.
    pub nofile: u64,
    /// The log.
    pub log: Log,
    /// Spare descriptors, shared with the servers.
    pub reserve: Rc<Reserve>,
    /// When the loop rests.
    pub(crate) rest: Rest,
    /// What outlives this supervisor; none for one that is thrown away.
    pub(crate) keep: Option<Keep>,
    /// The keys of session tickets; none where the system has no random bytes.
    pub(crate) tickets: Option<Tickets>,
}

/// What outlives a supervisor.
#[derive(Debug)]
pub(crate) struct Keep {
    /// Where workers come back.
    pub(crate) door: Rc<Door>,
    /// Where the state is written; none while that happens.
    pub(crate) file: Option<StateFile>,
    /// The counters that it was last written with.
    pub(crate) counted: Option<Counted>,
    /// Where certificates and ticket keys are kept.
    pub(crate) vault: Vault,
    /// What names this boot.
    pub(crate) boot_id: String,
    /// This process's id.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// Where this program was found.
    pub(crate) program: PathBuf,
    /// Descriptors that the next program needs.
    pub(crate) fixtures: Fixtures,
    /// What the servers wait at while the next program comes.
    pub(crate) gate: Gate,
}

/// A command in progress.
#[derive(Debug)]
struct Job {
    name: &'static str,
    /// The pool that it starts workers of.
    starts: Option<String>,
    /// Who waits for it; a reload may have several.
    askers: Vec<mpsc::UnboundedSender<JobLine>>,
}

/// A fork to be done.
#[derive(Debug, Clone, Copy)]
struct Spawn {
    worker: Worker,
    generation: u64,
    paused: bool,
}

impl Reactor {
    /// Pins the programs and binds the listeners; nothing is started yet.
    pub fn new(setup: Setup) -> Result<(Self, Inbox), PoolError> {
        let mut pools = setup.config.pools.clone();
        let vault = setup.keep.as_ref().map(|keep| &keep.vault);
        generation::certificates::fill(vault, &mut pools);
        let strict = setup.config.supervisor.strict_boot;
        let policies = pools.iter().map(|pool| pool.policy.clone()).collect();
        let mut first = Vec::new();
        let here = setup.options.directory();
        let mut deferred = Vec::new();
        let mut refused = None;
        for pool in pools {
            match Edition::set_up(pool.clone(), &here, setup.nofile, &[]) {
                Ok(edition) => {
                    edition.announce();
                    first.push(Rc::new(edition));
                }
                Err(error) if strict => return Err(error),
                Err(error) => {
                    // It may be the only one.
                    refused.get_or_insert(error);
                    deferred.push(pool);
                }
            }
        }
        if let (Some(error), []) = (refused, first.as_slice()) {
            return Err(error);
        }
        let (mut reactor, inbox) = Self::assemble(setup, |_| {
            Fleet::new(fastrand::u64(..), policies).strict(strict)
        });
        let generation = reactor.fleet.generation();
        reactor.editions.add(generation, first);
        for pool in deferred {
            reactor.editions.defer(generation, pool);
        }
        Ok((reactor, inbox))
    }

    /// Goes on with the counters of a supervisor whose workers are all gone.
    pub(crate) fn go_on_counting(&mut self, counted: &SavedMetrics) {
        self.metrics.restore(counted);
        self.metrics.bury_all();
    }

    fn assemble(setup: Setup, fleet: impl FnOnce(Time) -> Fleet) -> (Self, Inbox) {
        let (events, received) = mpsc::channel(EVENTS);
        let (verdicts, judged) = mpsc::unbounded_channel();
        let (readings, read) = mpsc::unbounded_channel();
        let mut metrics = Metrics::new(
            env!("CARGO_PKG_VERSION"),
            SystemTime::now(),
            &[&BREACHES, ChannelError::DECODE_REASONS].concat(),
            ChannelError::SEND_REASONS,
        );
        metrics.set_detail(setup.config.metrics);
        metrics.set_max_series(setup.config.max_series);
        let upstreams = Upstreams::below(&setup.config.supervisor.runtime_dir);
        let epoch = since_boot();
        let fleet = fleet(epoch);
        let reactor = Self {
            clock: Clock::new(epoch, Instant::now()),
            began: epoch,
            recovered: fleet.booted(),
            fleet,
            editions: Editions::default(),
            names: HashMap::new(),
            options: setup.options,
            config: setup.config,
            nofile: setup.nofile,
            reloads: Reloads::default(),
            readings,
            upgrades: Upgrades::new(verdicts),
            processes: HashMap::new(),
            spawns: VecDeque::new(),
            counts: VecDeque::new(),
            looks: VecDeque::new(),
            jobs: HashMap::new(),
            next_job: 1,
            tickets: setup.tickets,
            metrics,
            listener_problems: BTreeMap::new(),
            looked_up: None,
            journal: Journal::new(),
            history: RecentTraffic::default(),
            oom: OutOfMemory::default(),
            trees: Trees::new(),
            fronts: Fronts::default(),
            upstreams,
            notifier: Notifier::from_environment(),
            log: setup.log,
            reserve: setup.reserve,
            keep: setup.keep,
            undoing: false,
            ties: Ties {
                events,
                rest: setup.rest,
                looks: worker_process::task::looks(),
            },
            stop: StopOrder::default(),
            outcome: None,
            ended: false,
            adopted: Vec::new(),
        };
        let inbox = Inbox {
            events: received,
            verdicts: judged,
            readings: read,
        };
        (reactor, inbox)
    }

    /// Runs until the end.
    pub async fn run(
        mut self,
        inbox: Inbox,
        requests: &mut mpsc::Receiver<Request>,
        mut signals: Signals,
    ) -> Outcome {
        let Inbox {
            mut events,
            mut verdicts,
            mut readings,
        } = inbox;
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tending = tokio::time::interval(TENDING);
        tending.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.export_pools();
        self.keep_listeners();
        self.warn_of_certificates();
        self.warn_of_root();
        self.warn_of_grace_period();
        let actions = if self.recovered {
            self.fleet.resume(self.now())
        } else {
            self.fleet.start(self.now())
        };
        self.carry_out(actions);
        while !self.ended {
            let deadline = self.fleet.next_deadline().map(|at| self.instant(at));
            tokio::select! {
                Some(event) = events.recv() => {
                    self.feed(event);
                    for _ in 0..EVENTS_PER_TURN {
                        match events.try_recv() {
                            Ok(event) if !self.ended => self.feed(event),
                            _ => break,
                        }
                    }
                }
                Some(request) = requests.recv() => {
                    self.ties.rest.stir();
                    self.answer(request);
                }
                heard = signals.next() => self.heed(heard),
                Some(verdict) = verdicts.recv() => {
                    let mut ears = Ears { events: &mut events, requests, signals: &mut signals };
                    self.conclude_upgrade(verdict, &mut ears).await;
                }
                Some(reading) = readings.recv() => self.has_done(reading),
                _ = tending.tick(), if self.has_queues_to_tend() => self.tend_queues(),
                due = pulse.tick() => self.pulse(due.into_std()),
                () = at(deadline) => self.deadline_came(deadline, &mut events).await,
                () = at(self.state_due()) => self.write_state(),
                () = at(self.fronts.due()) => self.fronts.touch(),
                () = at(self.stop.due()) => self.drain_all(false, None),
                // A successor goes first.
                () = at(self.trees.due()), if self.spawns.is_empty() => self.end_trees(),
                () = std::future::ready(()), if !self.spawns.is_empty() => {
                    self.spawn_next();
                    // A front has its pools' tables before it has said a word.
                    self.see_to_fronts();
                    // A thousand forks in a row must not keep anyone waiting.
                    tokio::task::yield_now().await;
                }
            }
            self.look_at_silent();
            self.count_traffic();
            self.see_to_fronts();
            self.notify_changes();
            if self.upgrades.is_new() {
                self.rehearse_upgrade(&mut events).await;
            }
        }
        self.see_trees_end().await;
        self.log.catch_up();
        self.upstreams.clear();
        if let Some(file) = self.keep.as_ref().and_then(|keep| keep.file.as_ref()) {
            file.remove();
        }
        if let Some(keep) = &self.keep {
            keep.vault.remove();
        }
        self.outcome.unwrap_or(Outcome::Stopped)
    }

    /// The fleet's clock.
    fn now(&self) -> Time {
        self.clock.show(Instant::now())
    }

    fn instant(&self, at: Time) -> Instant {
        self.clock.instant(at)
    }

    /// Acts on what is due. Where this process itself was kept from running, what has
    /// come meanwhile is heard first: nobody is late whose word lies in a socket.
    async fn deadline_came(
        &mut self,
        deadline: Option<Instant>,
        events: &mut mpsc::Receiver<Event>,
    ) {
        if deadline.is_some_and(|deadline| deadline.elapsed() > PUNCTUAL) {
            for _ in 0..HEARINGS {
                // Once for the runtime to see what has come, once for the workers' tasks.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                let mut heard = false;
                while let Ok(event) = events.try_recv() {
                    heard = true;
                    self.feed(event);
                }
                if !heard || self.ended {
                    break;
                }
            }
        }
        self.feed(Event::Tick);
    }

    /// Looks after a process from now on, whoever started it.
    fn hold(&mut self, worker: Worker, mut grip: Grip) {
        if grip.upstream.is_none() {
            grip.upstream = self.upstreams.of(grip.pid);
        }
        self.oom.watch(worker, grip.pid);
        if self.goes_with_its_tree(worker) {
            self.trees.watch(worker, self.slot_name(worker), &grip);
        }
        self.processes.insert(worker, grip);
    }

    /// Whether what a worker has started goes with it.
    fn goes_with_its_tree(&self, worker: Worker) -> bool {
        let generation = self.fleet.process(worker).map(|it| it.generation());
        let pool = self.pool_name(worker);
        let edition = generation.and_then(|it| self.editions.of(&pool, it));
        // One whose settings are forgotten is on its way out.
        edition.is_none_or(|edition| edition.config.execution.kill_tree)
    }

    /// Every process that is a worker, or was one of another supervisor.
    fn workers(&self) -> Vec<Member> {
        let living = self.processes.values().map(Grip::member);
        living.chain(self.adopted.iter().copied()).collect()
    }

    /// Tells the fleet something and does what it answers.
    fn feed(&mut self, mut event: Event) {
        let mut last = None;
        if let Event::Exited { worker, exit } = &mut event {
            if let Some(grip) = self.processes.remove(worker) {
                last = self.last_traffic(*worker, &grip);
            }
            self.fronts.ended(*worker);
            self.upstreams.forget(&self.pool_name(*worker), *worker);
            exit.oom = self.oom.was_killed(*worker, exit);
            self.trees.died(*worker);
            // It may have hidden a stranger that ended meanwhile.
            self.reap_strangers();
        }
        let ended = matches!(&event, Event::Exited { .. });
        let born = match &event {
            Event::Ready { worker } => Some(*worker),
            _ => None,
        };
        let usual = matches!(
            &event,
            Event::Health { .. }
                | Event::Memory { .. }
                | Event::BirthMemory { .. }
                | Event::Looked { .. }
                | Event::Counted { .. }
                | Event::Tick
        );
        if let Some(last) = last {
            self.feed(last);
        }
        let actions = self.fleet.step(self.now(), event);
        let is_look =
            |action: &Action| matches!(action, Action::Look { .. } | Action::Count { .. });
        if !usual || !actions.iter().all(is_look) {
            self.touch_state();
            self.ties.rest.stir();
            self.fronts.touch();
        }
        if let Some(worker) = born {
            // Before what follows from that: others may leave at once.
            self.offer_passages(worker);
        }
        self.carry_out(actions);
        if ended {
            self.forget_pools();
        }
        if let Some(worker) = born.filter(|worker| self.has_memory_limit(*worker))
            && let Some(resident) = self.holds(worker)
        {
            self.feed(Event::BirthMemory { worker, resident });
        }
        self.finish_undoing();
    }

    /// Ends the series of pools that a reload has removed, with their last worker.
    fn forget_pools(&mut self) {
        let (fleet, metrics) = (&self.fleet, &mut self.metrics);
        self.names.retain(|id, name| {
            let known = fleet.pool(*id).is_some();
            // A pool of the same name may have come since.
            if !known && fleet.pools().all(|pool| pool.name() != &**name) {
                metrics.remove_pool(name);
            }
            known
        });
    }

    /// Warns of workers that are root because nobody said otherwise.
    fn warn_of_root(&self) {
        let root = nix::unistd::Uid::effective().is_root();
        if let Some(warning) = config::root_workers(&self.config, root) {
            warn!("{warning}");
        }
    }

    fn command(&mut self, command: Command, askers: Vec<mpsc::UnboundedSender<JobLine>>) {
        let job = JobId(self.next_job);
        self.next_job += 1;
        let name = handover::upgrade::name_of(&command);
        let starts = starts(&command);
        let begun = Job {
            name,
            starts,
            askers,
        };
        self.jobs.insert(job, begun);
        let stop = matches!(command, Command::Stop { .. });
        if stop {
            self.stop.drains();
            self.seal_everything();
        }
        self.feed(Event::Command { job, command });
        if stop {
            self.close_everything();
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        // Nobody is told to leave before it is on the disk who takes its place:
        // should we be killed now, the next supervisor must know the successor.
        let leaves = |action: &Action| matches!(action, Action::Drain { .. } | Action::Stop { .. });
        if actions.iter().any(leaves) {
            self.write_before_order();
        }
        for action in actions {
            self.act(action);
        }
    }

    /// Reaps children that this process never started: as PID 1 it inherits
    /// orphans. Workers are left to their own tasks.
    fn reap_strangers(&self) {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) =
                waitid(Id::All, look)
            else {
                return;
            };
            let is_preflight = self.upgrades.child.get() == Some(pid.as_raw());
            if is_preflight || self.processes.values().any(|grip| grip.pid == pid.as_raw()) {
                return;
            }
            debug!(pid = pid.as_raw(), "reaped a process that is no worker");
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        }
    }

    /// Once a second: how late the loop is, kills for want of memory, a sign of
    /// life, what the pools have served, and memory where it has a limit.
    fn pulse(&mut self, due: Instant) {
        self.metrics.supervisor().loop_lag(due.elapsed());
        self.ties.rest.end_by(due + PULSE);
        // The clock counts what is seen of it.
        self.now();
        self.oom.look();
        self.notify();
        self.log.catch_up();
        self.note_traffic();
        self.look_at_listeners();
        self.replace_tickets();
        let limited = self.processes.keys().copied();
        let limited: Vec<Worker> = limited
            .filter(|worker| self.has_memory_limit(*worker))
            .collect();
        for worker in limited {
            if let Some(resident) = self.holds(worker) {
                self.feed(Event::Memory { worker, resident });
            }
        }
    }

    fn has_memory_limit(&self, worker: Worker) -> bool {
        let process = self.fleet.process(worker);
        let generation = process.map_or(self.fleet.generation(), |it| it.generation());
        let edition = self.editions.of(&self.pool_name(worker), generation);
        edition.is_some_and(|edition| edition.config.policy.max_rss.is_some())
    }

    /// The memory that a process, or an adapter with its program, holds alone.
    fn holds(&self, worker: Worker) -> Option<u64> {
        let pid = Pid::from_raw(self.processes.get(&worker)?.pid);
        match self.has_adapter(worker) {
            true => crate::kernel::procfs::tree::private_bytes(pid).ok(),
            false => Some(crate::kernel::procfs::memory(pid).ok()?.private_bytes),
        }
    }

    /// Whether the process is an adapter: what its program uses is the worker's.
    fn has_adapter(&self, worker: Worker) -> bool {
        let process = self.fleet.process(worker);
        let generation = process.map_or(self.fleet.generation(), |it| it.generation());
        let edition = self.editions.of(&self.pool_name(worker), generation);
        edition.is_some_and(|edition| edition.config.adapter.is_some())
    }
}

/// Where the workers' tasks leave their events.
pub struct Inbox {
    events: mpsc::Receiver<Event>,
    /// Of programs that have been through their preflight.
    verdicts: mpsc::UnboundedReceiver<Verdict>,
    /// Configurations that have been read.
    readings: mpsc::UnboundedReceiver<Reading>,
}

/// CLOCK_MONOTONIC, which the standard library's `Instant` follows as well.
fn since_boot() -> Time {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    // It is always there (clock_gettime(2)).
    Time(now.map(Duration::from).unwrap_or_default())
}

fn unix_time() -> Duration {
    // A clock before 1970 is no reason to stop serving.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn unix_ms() -> u64 {
    u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX)
}

fn unix_seconds() -> f64 {
    unix_time().as_secs_f64()
}

/// The pool of which a command starts workers.
fn starts(command: &Command) -> Option<String> {
    match command {
        Command::Restart { pool, .. }
        | Command::Kill { pool, .. }
        | Command::Drain { pool, .. }
        | Command::Scale { pool, .. }
        | Command::ScaleAsConfigured { pool } => Some(pool.clone()),
        Command::ScaleBy { pool, .. } => pool.clone(),
        Command::Pause { .. }
        | Command::Resume { .. }
        | Command::Reload(_)
        | Command::Promote
        | Command::Abort
        | Command::Stop { .. } => None,
    }
}
