//! What has happened, kept apart from the fleet's own books, and what the
//! fleet may do given that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prefork_api::{ExitReason, SlotState};
use prefork_fleet::{
    Action, Command, Event, Fleet, JobId, Policy, PoolId, Refusal, Report, Time, Worker,
};

use crate::Happened;
use crate::pools::{PoolFacts, SlotFacts};
use crate::process::Process;
use crate::reload::{Ended, Planned, Reload};

/// How long a killed process is waited for.
pub(crate) const REAPING_PATIENCE: Duration = Duration::from_secs(10);

/// How long a process may take to say that it accepts nothing more.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a process serves at least before it is recycled.
const LEAST_SERVICE: Duration = Duration::from_secs(1);

type Processes = BTreeMap<Worker, Process>;

/// What has happened.
pub(crate) struct Facts {
    pub(crate) pools: Vec<PoolFacts>,
    /// The generation in force.
    pub(crate) generation: u64,
    /// The reload in progress.
    pub(crate) reload: Option<Reload>,
    /// Reloads that are in force, of which whoever asked is still to be told, and since
    /// when they are.
    pub(crate) untold: BTreeMap<JobId, Time>,
    /// Restarts, and of which pool.
    pub(crate) restarting: Vec<(JobId, String)>,
    /// When those were told to drain that have not said that they accept nothing more.
    shutting: BTreeMap<Worker, Time>,
    /// The reload that this step has ended.
    pub(crate) just_reloaded: Option<Ended>,
    pub(crate) open_jobs: BTreeSet<JobId>,
    pub(crate) happened: Happened,
    pub(crate) stopping: bool,
    pub(crate) booted: bool,
    pub(crate) boot_failed: bool,
    strict_boot: bool,
    pub(crate) ended: bool,
    /// The worker whose certificate this step owes.
    pub(crate) owed_exit: Option<Worker>,
    /// A worker whose failure costs no wait.
    pub(crate) mended: Option<Worker>,
    /// The worker whose last event this step is.
    just_gone: Option<Worker>,
    /// The worker whose start this step has to report.
    pub(crate) owed_start: Option<Worker>,
    /// The worker that served until it was told to leave at once.
    cut_off: Option<Worker>,
}

impl Facts {
    pub(crate) fn new(pools: &[Policy], strict_boot: bool) -> Self {
        Self {
            strict_boot,
            pools: pools.iter().map(PoolFacts::new).collect(),
            generation: 1,
            reload: None,
            untold: BTreeMap::new(),
            restarting: Vec::new(),
            shutting: BTreeMap::new(),
            just_reloaded: None,
            open_jobs: BTreeSet::new(),
            happened: Happened {
                schedules: 1,
                ..Happened::default()
            },
            stopping: false,
            booted: false,
            boot_failed: false,
            ended: false,
            owed_exit: None,
            owed_start: None,
            mended: None,
            just_gone: None,
            cut_off: None,
        }
    }

    pub(crate) fn initial(&self, pool: PoolId) -> u32 {
        self.pools[pool.0 as usize].policy.workers
    }

    pub(crate) fn desired(&self, pool: PoolId) -> u32 {
        self.pools[pool.0 as usize].desired
    }

    pub(crate) fn max_surge(&self, pool: PoolId) -> u32 {
        let pool = &self.pools[pool.0 as usize];
        let planned = pool.planned.as_ref().map(Planned::max_surge);
        planned.unwrap_or(pool.policy.max_surge)
    }

    /// Whether the slot is one that a reload in progress adds.
    pub(crate) fn is_added(&self, pool: PoolId, slot: u32) -> bool {
        let planned = self.pools[pool.0 as usize].planned.as_ref();
        planned.is_some_and(|planned| slot >= planned.before.unwrap_or(0))
    }

    pub(crate) fn slot(&self, pool: PoolId, slot: u32) -> &SlotFacts {
        &self.pools[pool.0 as usize].slots[slot as usize]
    }

    fn of(&mut self, worker: Worker) -> &mut SlotFacts {
        &mut self.pools[worker.pool.0 as usize].slots[worker.slot as usize]
    }

    /// The slot that an event concerns.
    pub(crate) fn concerned(&self, event: &Event) -> Option<Worker> {
        match event {
            Event::Spawned { worker, .. }
            | Event::SpawnFailed { worker, .. }
            | Event::Greeted { worker }
            | Event::Hindered { worker, .. }
            | Event::Ready { worker }
            | Event::Health { worker, .. }
            | Event::Looked { worker, .. }
            | Event::Memory { worker, .. }
            | Event::BirthMemory { worker, .. }
            | Event::Answered { worker, .. }
            | Event::Shut { worker }
            | Event::Drained { worker }
            | Event::Bye { worker, .. }
            | Event::Unfit { worker, .. }
            | Event::Misbehaved { worker, .. }
            | Event::Exited { worker, .. } => Some(*worker),
            Event::Counted { .. } | Event::Tick | Event::Command { .. } => None,
        }
    }

    /// A command is about to be given.
    pub(crate) fn commanded(&mut self, fleet: &Fleet, job: JobId, command: &Command) {
        assert!(self.open_jobs.insert(job));
        if let Command::Reload(plan) = command {
            return self.reload_commanded(fleet, job, plan);
        }
        let spared = matches!(command, Command::Kill { .. } | Command::Stop { .. });
        if fleet.reloading().is_some() && !spared {
            return;
        }
        let (pool, slots) = match command {
            Command::Reload(_) | Command::Promote | Command::Abort => return,
            Command::Stop { .. } => {
                self.stopping = true;
                return;
            }
            Command::Scale { pool, workers } => return self.scaled(fleet, pool, *workers),
            Command::ScaleAsConfigured { pool } => {
                let known = self.pools.iter().find(|it| it.is_named(pool));
                let workers = known.map_or(0, |it| it.policy.workers);
                return self.scaled(fleet, pool, workers);
            }
            Command::ScaleBy { pool: None, by } => {
                let first = fleet.pools().next().expect("there is always one");
                let workers = first.desired().saturating_add_signed(*by).max(1);
                return self.scaled(fleet, first.name(), workers);
            }
            Command::ScaleBy {
                pool: Some(pool),
                by,
            } => {
                let has = fleet.pools().find(|view| view.name() == pool);
                let workers = has.map_or(0, |view| view.desired().saturating_add_signed(*by));
                return self.scaled(fleet, pool, workers);
            }
            Command::Restart { pool, slot: None } => {
                self.restarting.push((job, pool.clone()));
                (pool, None)
            }
            Command::Restart {
                pool,
                slot: Some(slot),
            } => {
                self.restarting.push((job, pool.clone()));
                (pool, Some(*slot))
            }
            Command::Drain { pool, slot }
            | Command::Kill { pool, slot }
            | Command::Pause { pool, slot }
            | Command::Resume { pool, slot } => (pool, Some(*slot)),
        };
        let Some(pool) = self.pools.iter_mut().find(|it| it.is_named(pool)) else {
            return;
        };
        let desired = pool.desired;
        let slots = slots.map_or(0..desired, |slot| slot..(slot + 1).min(desired));
        for slot in slots {
            let facts = &mut pool.slots[slot as usize];
            match command {
                Command::Restart { .. } => {
                    facts.reasons += 1;
                    facts.commands += 1;
                    if facts.serving.is_empty() {
                        facts.failures = 0;
                    }
                }
                Command::Drain { .. } | Command::Kill { .. } => {
                    facts.reasons += 1;
                    facts.commands += 1;
                    facts.drains += 1;
                }
                _ => {}
            }
        }
    }

    fn scaled(&mut self, fleet: &Fleet, pool: &str, workers: u32) {
        if workers == 0 || fleet.stopping() {
            return;
        }
        let Some(pool) = self.pools.iter_mut().find(|it| it.is_named(pool)) else {
            return;
        };
        let desired = std::mem::replace(&mut pool.desired, workers);
        pool.add_slots(desired);
        pool.desired = desired;
    }

    /// A reload has ended: reasons that it gave and nobody used are none for
    /// later.
    pub(crate) fn forget_unused_reasons(&mut self, fleet: &Fleet) {
        for pool in fleet.pools() {
            for slot in pool.slots() {
                let facts = &mut self.pools[pool.id().0 as usize].slots[slot.index() as usize];
                facts.reasons = facts.starts + u64::from(slot.backoff().is_some());
            }
        }
    }

    /// An event is about to be given to the fleet.
    pub(crate) fn before(
        &mut self,
        fleet: &Fleet,
        processes: &Processes,
        event: &Event,
        now: Time,
    ) {
        self.happened.steps += 1;
        self.just_gone = None;
        self.mended = None;
        self.cut_off = None;
        let Some(worker) = self.concerned(event) else {
            return;
        };
        let Some(process) = processes.get(&worker) else {
            return;
        };
        // One that is told to leave before it is born hears of it at its birth.
        let state = fleet.process(worker).map(|process| process.state());
        let leaving = matches!(state, Some(SlotState::Draining | SlotState::Stopping));
        assert!(
            leaving || !process.dismissed,
            "{worker:?} was told to leave"
        );
        if let Event::Exited { .. } | Event::Drained { .. } | Event::Shut { .. } = event {
            self.shutting.remove(&worker);
        }
        if let Event::Exited { .. } | Event::SpawnFailed { .. } = event {
            self.just_gone = Some(worker);
        }
        match event {
            Event::Exited { .. } => {
                self.owed_exit = Some(worker);
                if !leaving {
                    self.failed(worker, process, now, true);
                }
                self.of(worker).serving.retain(|other| *other != worker);
            }
            Event::SpawnFailed { .. } if !leaving => self.failed(worker, process, now, false),
            Event::Misbehaved { .. } if !leaving => self.failed(worker, process, now, true),
            Event::Ready { .. } if !leaving && !self.is_on_probation(worker) => {
                self.of(worker).serving.push(worker);
                self.of(worker).been_ready = true;
            }
            Event::Answered { ask, result, .. } if !leaving => {
                self.answered(worker, *ask, result);
            }
            Event::Spawned { .. } => self.owed_start = Some(worker),
            _ => {}
        }
    }

    /// A process that nobody had asked to leave has failed.
    fn failed(&mut self, worker: Worker, process: &Process, now: Time, mendable: bool) {
        self.happened.failed += 1;
        if !self.booted && !self.of(worker).been_ready {
            self.pools[worker.pool.0 as usize].set_back = true;
        }
        if self.is_hopeful(worker) {
            self.fail_reload();
            return;
        }
        let rollback = self.reload.as_ref().is_some_and(|reload| reload.failed);
        let reset = self.pools[worker.pool.0 as usize].policy.backoff_reset;
        let facts = self.of(worker);
        facts.reasons += 1;
        facts.last_failure = now;
        let is_successor = process.ready_at.is_none() && !facts.serving.is_empty();
        facts.restores_failed += u32::from(is_successor && rollback);
        if is_successor || !mendable {
            facts.failures = (facts.failures + 1).max(2);
            return;
        }
        if process.ready_at.is_some_and(|at| now.since(at) >= reset) {
            facts.failures = 0;
        }
        facts.failures += 1;
        if facts.failures == 1 {
            self.mended = Some(worker);
        }
    }

    /// The fleet wants something done.
    pub(crate) fn observe(&mut self, processes: &Processes, action: &Action, now: Time) {
        assert!(!self.ended, "after the end: {action:?}");
        match action {
            Action::Spawn {
                worker,
                generation,
                paused,
            } => {
                self.may_run(*worker, *generation, *paused);
                self.may_start(processes, *worker, now);
            }
            Action::Drain { worker, .. }
            | Action::Ask { worker, .. }
            | Action::Abort { worker } => {
                let process = &processes[worker];
                assert!(
                    process.ready_at.is_some() && !process.dismissed,
                    "{action:?}"
                );
                if let Action::Ask { ask, .. } = action {
                    let ready_at = process.ready_at.expect("it was looked at");
                    self.may_ask(*worker, *ask, ready_at, now);
                } else {
                    if matches!(action, Action::Drain { .. }) {
                        self.shutting.insert(*worker, now);
                    }
                    self.of(*worker).serving.retain(|other| other != worker);
                }
            }
            Action::Count { .. } => {}
            Action::Look { worker, .. } => {
                assert!(!processes[worker].dismissed, "{action:?}");
            }
            Action::Stop { worker } | Action::Kill { worker } => {
                self.shutting.remove(worker);
                let process = &processes[worker];
                assert!(process.born && process.killed_at.is_none(), "{action:?}");
                if self.of(*worker).serving.contains(worker) {
                    self.cut_off = Some(*worker);
                }
                self.of(*worker).serving.retain(|other| other != worker);
            }
            Action::Report(report) => self.reported(processes, report, now),
            Action::Progress { job, .. } => {
                assert!(self.open_jobs.contains(job), "{action:?} after its end");
            }
            Action::Finish { job, result } => {
                assert!(self.open_jobs.remove(job), "{action:?} a second time");
                if let Some(since) = self.untold.remove(job) {
                    assert!(result.is_ok(), "{action:?}");
                    self.may_tell(since, now);
                }
                if let Some(reload) = self.reload.as_mut().filter(|it| it.job == *job) {
                    reload.told = Some(result.is_ok());
                }
                match result {
                    Ok(_) => self.happened.jobs_done += 1,
                    Err(Refusal::TimedOut(_)) => self.happened.jobs_timed_out += 1,
                    Err(_) => self.happened.jobs_refused += 1,
                }
            }
            Action::Reloaded {
                generation,
                committed,
                ..
            } => self.reloaded(*generation, *committed, now),
            Action::RollbackEnded => self.rollback_ended(),
            Action::BootFailed { others, .. } => {
                assert!(!self.booted && !self.boot_failed);
                let down = |pool: &&PoolFacts| pool.set_back && !pool.is_up();
                let down = self.pools.iter().filter(down).count();
                assert!(self.strict_boot || down == self.pools.len(), "one is up");
                assert_eq!(others.len() + 1, down, "one is not named");
                self.boot_failed = true;
                self.happened.boots_failed += 1;
            }
            Action::Ended => self.may_end(processes, now),
        }
    }

    /// No restart storm: every start has a reason and has waited for its time.
    fn may_start(&mut self, processes: &Processes, worker: Worker, now: Time) {
        self.happened.starts += 1;
        assert!(!self.stopping && !self.boot_failed, "a start at the end");
        let pool = &self.pools[worker.pool.0 as usize];
        assert!(worker.slot < pool.desired, "{worker:?} is not wanted");
        let hopeful = self.is_hopeful(worker);
        let (initial, max) = (pool.policy.backoff_initial, pool.policy.backoff_max);
        let facts = self.of(worker);
        facts.incarnations += 1;
        assert_eq!(worker.incarnation, facts.incarnations, "a name is reused");
        facts.starts += 1;
        let ready_at = facts.serving.first().and_then(|w| processes[w].ready_at);
        if let Some(at) = ready_at
            && facts.starts > facts.reasons
        {
            // Nobody asked for a successor: its predecessor is to be recycled.
            assert!(now.since(at) >= LEAST_SERVICE, "{worker:?}: {facts:?}");
            facts.reasons += 1;
        }
        assert!(facts.starts <= facts.reasons, "{worker:?}: {facts:?}");
        if facts.failures < 2 || hopeful {
            return;
        }
        let longest = initial
            .saturating_mul(1 << (facts.failures - 2).min(20))
            .min(max);
        let waited = now.since(facts.last_failure) + Duration::from_micros(1);
        if waited < longest / 2 {
            assert!(facts.commands > 0, "{worker:?} {waited:?} {facts:?}");
            facts.commands -= 1;
        }
    }

    fn reported(&mut self, processes: &Processes, report: &Report, now: Time) {
        match report {
            Report::Started { worker, .. } => {
                assert_eq!(self.owed_start.take(), Some(*worker));
            }
            Report::Exited { worker, .. } => {
                assert_eq!(self.owed_exit.take(), Some(*worker));
            }
            Report::HeartbeatMissed { worker, .. } => {
                self.happened.hung += 1;
                let process = &processes[worker];
                assert!(
                    process.silent,
                    "{worker:?} reports and is said to be silent"
                );
                self.failed(*worker, process, now, true);
            }
            Report::Stopping {
                worker,
                cause: ExitReason::BootTimeout,
            } => {
                let process = &processes[worker];
                assert!(process.ready_at.is_none(), "{worker:?} was ready");
                self.failed(*worker, process, now, true);
            }
            Report::Stopping {
                worker,
                cause: ExitReason::Reload,
            } if self.cut_off == Some(*worker) => {
                assert!(
                    !self.of(*worker).serving.is_empty(),
                    "{worker:?} is cut off"
                );
            }
            Report::Draining { worker, cause } => self.may_drain(*worker, *cause),
            Report::CanaryBegun { pool, workers } => self.canary_begins(*pool, *workers),
            Report::CanaryEnded { pool, verdict, .. } => self.canary_ends(*pool, *verdict),
            Report::Scaled { pool, from, to } => {
                let grows = self.reload.is_some();
                let pool = &mut self.pools[pool.0 as usize];
                assert_eq!(pool.desired, *from);
                pool.desired = *to;
                if grows {
                    pool.add_slots(*from);
                }
            }
            Report::Booted => {
                assert!(!self.booted && !self.boot_failed);
                assert!(self.pools.iter().all(PoolFacts::is_up));
                self.booted = true;
            }
            Report::BootedInPart { without } => {
                assert!(!self.booted && !self.boot_failed && !self.strict_boot);
                let up = self.pools.iter().filter(|pool| pool.is_up()).count();
                assert!(up > 0, "none is up");
                assert_eq!(up + without.len(), self.pools.len());
                self.booted = true;
                self.happened.booted_in_part += 1;
            }
            _ => {}
        }
    }

    /// A recycle or a restart drains only after the successor is ready.
    fn may_drain(&mut self, worker: Worker, cause: ExitReason) {
        let (stopping, desired) = (self.stopping, self.desired(worker.pool));
        let facts = self.of(worker);
        match cause {
            ExitReason::Reload => self.may_leave(worker),
            ExitReason::ScaleDown => assert!(worker.slot >= desired, "{worker:?} is wanted"),
            ExitReason::MaxRequests | ExitReason::MaxRss | ExitReason::MaxAge => {
                assert!(!facts.serving.is_empty(), "{worker:?} has no successor");
                assert!(self.reload.is_none(), "{worker:?} is recycled in a reload");
                self.happened.recycled += 1;
            }
            _ if stopping || !facts.serving.is_empty() => {}
            _ => {
                assert!(facts.drains > 0, "{worker:?} has no successor");
                facts.drains -= 1;
            }
        }
    }

    /// A first boot is over as soon as it is known how it ended.
    pub(crate) fn is_boot_decided(&self) -> bool {
        let decided = |pool: &PoolFacts| pool.is_up() || pool.set_back;
        self.pools.iter().all(decided)
    }

    /// Whoever asked for a reload, which is in force since then, is told: nobody
    /// accepts who has to leave, as far as can be waited for.
    fn may_tell(&self, since: Time, now: Time) {
        if self.stopping || now.since(since) >= ANSWER_WITHIN {
            return;
        }
        let mut shutting = self.shutting.iter();
        let accepts = shutting.find(|(_, told)| now.since(**told) < ANSWER_WITHIN);
        assert_eq!(accepts, None, "it may still accept");
    }

    /// The end comes when nobody is left but whom the kernel does not let go.
    fn may_end(&mut self, processes: &Processes, now: Time) {
        assert!(self.stopping || self.boot_failed);
        assert!(
            self.open_jobs.is_empty(),
            "unfinished: {:?}",
            self.open_jobs
        );
        for (worker, process) in processes {
            let just_gone = self.just_gone == Some(*worker);
            let given_up = process
                .killed_at
                .is_some_and(|at| now.since(at) >= REAPING_PATIENCE);
            assert!(just_gone || given_up, "{worker:?} lives at the end");
        }
        self.ended = true;
    }
}
