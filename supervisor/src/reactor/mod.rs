//! The reactor: turns signals, process ends, channel messages, requests and
//! timers into events for the fleet, and carries its actions out. All of it is
//! one thread and one loop.
//!
//! - `process` is the task that belongs to one worker process, with its
//!   `conversation` (what may be said when) and its `output`.
//! - `births` makes processes of what `pool` and `program` hold.
//! - `actions` carries out what the fleet decides; `answers` is for requests
//!   from the control socket, with `documents` for what they ask to see.
//! - `journal` keeps what happened; `standing` is for the service manager.

mod actions;
mod answers;
mod births;
mod conversation;
mod documents;
mod journal;
mod output;
mod pool;
mod process;
mod program;
mod reports;
mod signals;
mod standing;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use prefork_proto::channel::ChannelError;
use prefork_proto::control::{Exit, JobLine};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::fleet::{Action, Command, Event, Fleet, JobId, PoolId, Time, Worker};
use crate::handle::Request;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::reserve::Reserve;
use conversation::BREACHES;
use journal::Journal;
pub use pool::{Pool, PoolError};
use process::Grip;
pub use program::{BUNDLED_ARGUMENT, ProgramError};
use signals::Asked;
pub use signals::Signals;

/// Between two looks at the workers' memory, and at the loop's own lag.
const PULSE: Duration = Duration::from_secs(1);

/// Events of workers that may wait before the workers' tasks have to.
const EVENTS: usize = 1024;

/// How the supervisor ended.
#[derive(Debug)]
pub enum Outcome {
    /// Stop was asked for, and everything has gone.
    Stopped,
    /// The first generation did not come up.
    BootFailed {
        /// `web/0`.
        slot: String,
        /// Why.
        why: String,
        /// The certificate, where there was a process.
        exit: Option<Exit>,
    },
}

/// Everything that the supervisor is, besides its servers.
pub struct Reactor {
    started: Instant,
    fleet: Fleet,
    pools: BTreeMap<PoolId, Pool>,
    processes: HashMap<Worker, Grip>,
    /// Forks to be done, one per turn of the loop.
    spawns: VecDeque<(Worker, u64)>,
    jobs: HashMap<JobId, mpsc::UnboundedSender<JobLine>>,
    next_job: u64,
    metrics: Metrics,
    /// When the processes' use of memory and time was last looked up.
    looked_up: Option<Instant>,
    journal: Journal,
    notifier: Notifier,
    log: Log,
    reserve: Rc<Reserve>,
    events: mpsc::Sender<Event>,
    outcome: Option<Outcome>,
    ended: bool,
}

impl Reactor {
    /// A reactor for these pools; nothing is started yet.
    pub fn new(pools: Vec<Pool>, log: Log, reserve: Rc<Reserve>) -> (Self, Inbox) {
        let (events, received) = mpsc::channel(EVENTS);
        let policies = pools.iter().map(|pool| pool.config.policy.clone());
        let fleet = Fleet::new(fastrand::u64(..), policies.collect());
        let ids = fleet.pools().map(|pool| pool.id());
        let reactor = Self {
            started: Instant::now(),
            pools: ids.collect::<Vec<_>>().into_iter().zip(pools).collect(),
            fleet,
            processes: HashMap::new(),
            spawns: VecDeque::new(),
            jobs: HashMap::new(),
            next_job: 1,
            metrics: Metrics::new(
                env!("CARGO_PKG_VERSION"),
                SystemTime::now(),
                &[&BREACHES, ChannelError::DECODE_REASONS].concat(),
                ChannelError::SEND_REASONS,
            ),
            looked_up: None,
            journal: Journal::new(),
            notifier: Notifier::from_environment(),
            log,
            reserve,
            events,
            outcome: None,
            ended: false,
        };
        (reactor, Inbox(received))
    }

    /// Runs until the end.
    pub async fn run(
        mut self,
        Inbox(mut events): Inbox,
        requests: &mut mpsc::Receiver<Request>,
        mut signals: Signals,
    ) -> Outcome {
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.export_pools();
        let actions = self.fleet.start(self.now());
        self.carry_out(actions);
        while !self.ended {
            let deadline = self.fleet.next_deadline().map(|at| self.started + at.0);
            tokio::select! {
                Some(event) = events.recv() => self.feed(event),
                Some(request) = requests.recv() => self.answer(request),
                asked = signals.next() => self.heed(asked),
                due = pulse.tick() => self.pulse(due.into_std()),
                () = process::at(deadline) => self.feed(Event::Tick),
                () = std::future::ready(()), if !self.spawns.is_empty() => {
                    self.spawn_next();
                    // A thousand forks in a row must not keep anyone waiting.
                    tokio::task::yield_now().await;
                }
            }
            self.notify_changes();
        }
        self.outcome.unwrap_or(Outcome::Stopped)
    }

    fn now(&self) -> Time {
        Time(self.started.elapsed())
    }

    /// Tells the fleet something and does what it answers.
    fn feed(&mut self, event: Event) {
        if let Event::Exited { worker, .. } = &event {
            self.processes.remove(worker);
            // It may have hidden a stranger that ended meanwhile.
            self.reap_strangers();
        }
        let actions = self.fleet.step(self.now(), event);
        self.carry_out(actions);
    }

    fn command(&mut self, command: Command, lines: Option<mpsc::UnboundedSender<JobLine>>) {
        let job = JobId(self.next_job);
        self.next_job += 1;
        if let Some(lines) = lines {
            self.jobs.insert(job, lines);
        }
        self.feed(Event::Command { job, command });
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.act(action);
        }
    }

    fn heed(&mut self, asked: Asked) {
        match asked {
            Asked::Stop => {
                info!("asked to stop by a signal");
                self.command(Command::Stop { now: false }, None);
            }
            Asked::More => self.command(Command::ScaleBy { by: 1 }, None),
            Asked::Fewer => self.command(Command::ScaleBy { by: -1 }, None),
            Asked::ReopenLogs => {
                if let Err(error) = self.log.reopen() {
                    warn!("cannot reopen the log: {error}");
                }
            }
            Asked::Unavailable(signal) => {
                warn!("{signal} has no effect in this version");
            }
            Asked::Child => self.reap_strangers(),
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
            if self.processes.values().any(|grip| grip.pid == pid.as_raw()) {
                return;
            }
            debug!(pid = pid.as_raw(), "reaped a process that is no worker");
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        }
    }

    /// Once a second: how late the loop is, a sign of life, and memory where it
    /// has a limit.
    fn pulse(&mut self, due: Instant) {
        self.metrics.supervisor().loop_lag(due.elapsed());
        self.notify();
        let limited: Vec<(Worker, i32)> = self
            .processes
            .iter()
            .filter(|(worker, _)| {
                self.pools
                    .get(&worker.pool)
                    .is_some_and(|pool| pool.config.policy.max_rss.is_some())
            })
            .map(|(worker, grip)| (*worker, grip.pid))
            .collect();
        for (worker, pid) in limited {
            if let Ok((_, resident)) = crate::proc::memory(Pid::from_raw(pid)) {
                self.feed(Event::Memory { worker, resident });
            }
        }
    }
}

/// Where the workers' tasks leave their events.
pub struct Inbox(mpsc::Receiver<Event>);

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
