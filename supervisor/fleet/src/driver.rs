//! Drives a fleet by hand in tests: processes do what they are told to, and
//! time passes when it is told to. Spawns are answered at once; everything else
//! is the test's to say.

use std::collections::BTreeMap;
use std::time::Duration;

use prefork_api::{Exit, ExitReason, SlotState};

use crate::{
    Action, Command, Death, Event, Fate, Fleet, JobId, Plan, PlannedPool, Policy, PoolId, Quorum,
    Refusal, Report, Signal, SlotView, Time, Traffic, Worker,
};

/// The upper bounds of the duration buckets.
const BOUNDS: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

/// The default policy, without limits.
pub(crate) fn policy(name: &str, workers: u32) -> Policy {
    Policy {
        name: name.to_owned(),
        workers,
        boot_timeout: Duration::from_secs(30),
        heartbeat_timeout: Duration::from_secs(10),
        drain_timeout: Duration::from_secs(30),
        kill_timeout: Duration::from_secs(5),
        backoff_initial: Duration::from_millis(100),
        backoff_max: Duration::from_secs(30),
        backoff_reset: Duration::from_secs(10),
        max_requests: 0,
        max_requests_jitter: 0.1,
        max_rss: None,
        max_age: None,
        min_ready: Duration::ZERO,
        max_surge: 1,
        dump_on_hang: false,
        ready: Quorum::Any,
    }
}

/// A reload that replaces workers.
pub(crate) fn plan(generation: u64, pools: Vec<Policy>) -> Plan {
    let pools = pools.into_iter().map(|policy| PlannedPool {
        policy,
        fate: Fate::Replaced,
        canary: None,
    });
    Plan {
        generation,
        pools: pools.collect(),
    }
}

/// A fleet and a clock.
pub(crate) struct Driver {
    pub(crate) fleet: Fleet,
    pub(crate) now: Time,
    /// Everything the fleet has ever wanted.
    pub(crate) log: Vec<Action>,
    /// Whether spawns fail.
    pub(crate) spawns_fail: bool,
    /// Whether processes leave `drain` unanswered.
    pub(crate) deaf: bool,
    /// How much of the time a process that is looked at waits for a processor.
    pub(crate) starved: f64,
    /// What processes have served.
    pub(crate) served: BTreeMap<Worker, Traffic>,
    /// When each was looked at last.
    looked: BTreeMap<Worker, Time>,
    next_job: u64,
}

/// The worker of pool 0 in this slot, with this number.
pub(crate) fn worker(slot: u32, incarnation: u64) -> Worker {
    Worker {
        pool: PoolId(0),
        slot,
        incarnation,
    }
}

/// A death by exit code.
pub(crate) fn code(code: i32) -> Death {
    Death {
        code: Some(code),
        requests: Some(0),
        stderr: format!("stderr of the exit with {code}"),
        ..Death::default()
    }
}

/// A death by signal.
pub(crate) fn signal(signal: i32) -> Death {
    Death {
        signal: Some(Signal(signal)),
        ..Death::default()
    }
}

impl Driver {
    /// A started fleet of one pool, `web`, with nothing ready.
    pub(crate) fn start(policy: Policy) -> Self {
        Self::start_pools(1, vec![policy])
    }

    /// A started fleet.
    pub(crate) fn start_pools(seed: u64, pools: Vec<Policy>) -> Self {
        let mut fleet = Fleet::new(seed, pools);
        let actions = fleet.start(Time::default());
        let mut driver = Self {
            fleet,
            now: Time::default(),
            log: Vec::new(),
            spawns_fail: false,
            deaf: false,
            starved: 0.0,
            served: BTreeMap::new(),
            looked: BTreeMap::new(),
            next_job: 0,
        };
        driver.take(actions);
        driver
    }

    /// A fleet of one pool in which everything is ready, a while after the boot.
    pub(crate) fn ready(policy: Policy) -> Self {
        let workers = policy.workers;
        let mut driver = Self::start(policy);
        for slot in 0..workers {
            driver.say_ready(worker(slot, 1));
        }
        assert!(driver.fleet.is_ready());
        driver.pass(2.0);
        driver
    }

    /// Hands over an event. Returns what it led to, without the answers to
    /// spawns and looks.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.fleet.step(self.now, event);
        self.take(actions.clone());
        actions
    }

    pub(crate) fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            let spawned = match &action {
                Action::Spawn { worker, .. } => Some(*worker),
                _ => None,
            };
            let look = match &action {
                Action::Look { worker, first } => Some((*worker, *first)),
                _ => None,
            };
            let counted = match &action {
                Action::Count { pool } => Some(*pool),
                _ => None,
            };
            let drained = match &action {
                Action::Drain { worker, .. } if !self.deaf => Some(*worker),
                _ => None,
            };
            self.log.push(action);
            if let Some(worker) = drained {
                let actions = self.fleet.step(self.now, Event::Shut { worker });
                self.take(actions);
            }
            if let Some(pool) = counted {
                self.count(pool);
            }
            if let Some((worker, first)) = look {
                self.look(worker, first);
            }
            if let Some(worker) = spawned {
                let event = if self.spawns_fail {
                    let error = "EMFILE".to_owned();
                    Event::SpawnFailed { worker, error }
                } else {
                    Event::Spawned {
                        worker,
                        pid: pid(worker),
                    }
                };
                let actions = self.fleet.step(self.now, event);
                self.take(actions);
            }
        }
    }

    /// Answers a count as the reactor would.
    fn count(&mut self, pool: PoolId) {
        let served = self.served.iter().filter(|(it, _)| it.pool == pool);
        let tallies = served.map(|(worker, it)| (*worker, it.clone())).collect();
        let event = Event::Counted {
            pool,
            bounds: &BOUNDS,
            tallies,
        };
        let actions = self.fleet.step(self.now, event);
        self.take(actions);
    }

    /// A process has answered so many more requests in 10 ms each, some of them by 5xx.
    pub(crate) fn serve(&mut self, worker: Worker, requests: u64, failed: u64) {
        let served = self.served.entry(worker).or_default();
        served.durations.resize(BOUNDS.len() + 1, 0);
        served.requests += requests;
        served.failed += failed;
        served.durations[0] += requests;
    }

    /// Answers a look as the reactor would.
    fn look(&mut self, worker: Worker, first: bool) {
        let last = self.looked.insert(worker, self.now).filter(|_| !first);
        let waited = last.map_or(Duration::ZERO, |last| {
            self.now.since(last).mul_f64(self.starved)
        });
        let actions = self.fleet.step(self.now, Event::Looked { worker, waited });
        self.take(actions);
    }

    /// Lets time pass, with ticks at every deadline, and every process that
    /// serves reporting all the while except for those in `silent`.
    pub(crate) fn pass_but(&mut self, seconds: f64, silent: &[Worker]) {
        let end = self.now.after(Duration::from_secs_f64(seconds));
        loop {
            let next = self.fleet.next_deadline().filter(|next| *next <= end);
            self.now = next
                .unwrap_or(end)
                .min(self.now.after(Duration::from_secs(1)));
            self.report_but(silent);
            self.step(Event::Tick);
            if self.now == end {
                return;
            }
        }
    }

    /// Lets time pass while everybody reports.
    pub(crate) fn pass(&mut self, seconds: f64) {
        self.pass_but(seconds, &[]);
    }

    fn report_but(&mut self, silent: &[Worker]) {
        let serving: Vec<Worker> = self
            .fleet
            .pools()
            .flat_map(|pool| pool.slots().flat_map(SlotView::processes))
            .filter(|process| process.ready_since().is_some())
            .map(|process| process.worker())
            .filter(|worker| !silent.contains(worker))
            .collect();
        for worker in serving {
            self.step(Event::Health {
                worker,
                requests: 0,
                in_flight: 0,
            });
        }
    }

    pub(crate) fn say_ready(&mut self, worker: Worker) -> Vec<Action> {
        self.step(Event::Ready { worker })
    }

    pub(crate) fn exit(&mut self, worker: Worker, exit: Death) -> Vec<Action> {
        self.step(Event::Exited { worker, exit })
    }

    /// Gives a command, as a job of its own.
    pub(crate) fn command(&mut self, command: Command) -> JobId {
        self.next_job += 1;
        let job = JobId(self.next_job);
        self.step(Event::Command { job, command });
        job
    }

    /// Begins a reload.
    pub(crate) fn reload(&mut self, plan: Plan) -> JobId {
        self.command(Command::Reload(plan))
    }

    /// How reloads ended: the generation in force, whether it is the new one,
    /// and why not.
    pub(crate) fn reloaded(&self) -> Vec<(u64, bool, &str)> {
        let ends = self.log.iter().filter_map(|action| match action {
            Action::Reloaded {
                generation,
                committed,
                why,
            } => Some((*generation, *committed, why.as_str())),
            _ => None,
        });
        ends.collect()
    }

    /// The slots whose successors are not ready or on probation.
    pub(crate) fn booting(&self) -> Vec<u32> {
        let slots = self.fleet.pool(PoolId(0)).unwrap().slots();
        slots
            .filter(|slot| slot.successor().is_some())
            .map(SlotView::index)
            .collect()
    }

    /// The generation of a slot's current process.
    pub(crate) fn generation(&self, index: u32) -> u64 {
        self.slot(index).current().unwrap().generation()
    }

    /// Whether a worker was ever told to drain.
    pub(crate) fn drains(&self, wanted: Worker) -> bool {
        self.log
            .iter()
            .any(|action| matches!(action, Action::Drain { worker, .. } if *worker == wanted))
    }

    /// Why the last process was made to leave at once.
    pub(crate) fn last_cause(&self) -> ExitReason {
        let mut causes = self.log.iter().filter_map(|action| match action {
            Action::Report(Report::Stopping { cause, .. }) => Some(*cause),
            _ => None,
        });
        causes.next_back().unwrap()
    }

    /// How a job ended; none if it has not.
    pub(crate) fn result(&self, wanted: JobId) -> Option<&Result<String, Refusal>> {
        let mut results = self.log.iter().filter_map(|action| match action {
            Action::Finish { job, result } if *job == wanted => Some(result),
            _ => None,
        });
        let result = results.next();
        assert_eq!(results.next(), None, "a job ended twice");
        result
    }

    pub(crate) fn is_done(&self, job: JobId) -> bool {
        matches!(self.result(job), Some(Ok(_)))
    }

    /// The message and stderr of a job that failed.
    pub(crate) fn failure(&self, job: JobId) -> (&str, &str) {
        match self.result(job) {
            Some(Err(Refusal::Failed { message, stderr })) => (message, stderr),
            other => panic!("no failure: {other:?}"),
        }
    }

    pub(crate) fn slot(&self, index: u32) -> SlotView<'_> {
        self.fleet.pool(PoolId(0)).unwrap().slot(index).unwrap()
    }

    pub(crate) fn state(&self, index: u32) -> SlotState {
        self.slot(index).state()
    }

    /// The current process of a slot.
    pub(crate) fn current(&self, index: u32) -> Worker {
        self.slot(index).current().unwrap().worker()
    }

    pub(crate) fn last_exit(&self, index: u32) -> &Exit {
        self.slot(index).exits().next().unwrap()
    }

    pub(crate) fn last_reason(&self, index: u32) -> ExitReason {
        self.last_exit(index).reason
    }

    pub(crate) fn has_done(&self, action: &Action) -> bool {
        self.log.contains(action)
    }

    pub(crate) fn has_reported(&self, wanted: impl Fn(&Report) -> bool) -> bool {
        self.log
            .iter()
            .any(|action| matches!(action, Action::Report(report) if wanted(report)))
    }
}

/// The process id that the driver gives to a worker.
pub(crate) fn pid(worker: Worker) -> i32 {
    1000 + worker.slot as i32 * 100 + worker.incarnation as i32
}
