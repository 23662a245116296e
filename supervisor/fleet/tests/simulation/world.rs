//! The world that a fleet acts on: processes, a virtual clock, and what is
//! going to happen. It does what the reactor and the kernel do.

use std::collections::BTreeMap;
use std::time::Duration;

use prefork_fleet::{
    Action, Ask, AskError, Command, Death, Event, Fleet, JobId, PoolId, Time, Traffic, Worker,
};

use crate::facts::Facts;
use crate::plan::{Faults, Plan, seconds};
use crate::process::{Boot, Fate, Process, Temper, exit, signal};

/// The upper bounds of the duration buckets, in seconds.
const BOUNDS: [f64; 2] = [0.01, 0.1];

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// Something that is going to happen.
#[derive(Debug)]
enum Happening {
    Born(Worker),
    Ready(Worker),
    Heartbeat(Worker),
    Fate(Worker, Fate),
    Shut(Worker),
    Drained(Worker),
    Answer(Worker, Ask, Result<(), AskError>),
    Looked(Worker, Duration),
    Counted(PoolId),
    Death(Worker, Death),
    /// An event of a worker that may be gone by then.
    Late(Event),
    /// The operator thinks of something to command.
    Operator,
}

/// The world.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) facts: Facts,
    pub(crate) now: Time,
    pub(crate) rng: fastrand::Rng,
    pub(crate) processes: BTreeMap<Worker, Process>,
    /// How likely things go wrong now.
    pub(crate) faults: Faults,
    /// Whether nothing goes wrong any more that has not yet.
    pub(crate) calm: bool,
    happenings: BTreeMap<(Time, u64), Happening>,
    sequence: u64,
    heartbeat: Duration,
    next_pid: i32,
    next_job: u64,
    /// How many of the commands are reloads, as a ratio.
    pub(crate) reloads: f64,
    generations: u64,
    trace: bool,
}

impl World {
    pub(crate) fn new(plan: &Plan, trace: bool) -> Self {
        Self {
            fleet: Fleet::new(plan.seed, plan.pools.clone()).strict(plan.strict_boot),
            facts: Facts::new(&plan.pools, plan.strict_boot),
            now: Time::default(),
            rng: fastrand::Rng::with_seed(plan.seed ^ 0x5eed),
            processes: BTreeMap::new(),
            faults: Faults::default(),
            calm: false,
            happenings: BTreeMap::new(),
            sequence: 0,
            heartbeat: plan.heartbeat,
            next_pid: 100,
            next_job: 0,
            reloads: plan.reloads,
            generations: 1,
            trace,
        }
    }

    /// The number of a generation that no reload has had.
    pub(crate) fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }

    pub(crate) fn start(&mut self) {
        let actions = self.fleet.start(self.now);
        self.carry_out(actions);
        self.check_everything();
    }

    /// Lets time pass until `end`, or until `enough` says so.
    pub(crate) fn run_until(&mut self, end: Time, mut enough: impl FnMut(&Self) -> bool) {
        while !enough(self) {
            let happening = self.happenings.first_key_value().map(|(key, _)| key.0);
            let deadline = self.fleet.next_deadline();
            let Some(next) = happening.into_iter().chain(deadline).min() else {
                break;
            };
            if next > end {
                break;
            }
            assert!(next >= self.now, "a deadline in the past: {next:?}");
            self.now = next;
            if happening == Some(next) {
                let (_, happening) = self.happenings.pop_first().expect("it was looked at");
                self.happen(happening);
            } else {
                let reloading = self.fleet.reloading();
                self.step(Event::Tick);
                // Who grew too old in a reload is due as soon as it has ended.
                let over = reloading != self.fleet.reloading();
                let next = self.fleet.next_deadline();
                assert!(
                    over || next.is_none_or(|next| next > self.now),
                    "a busy loop"
                );
            }
        }
        if self.now < end && !enough(self) {
            self.now = end;
        }
    }

    pub(crate) fn command(&mut self, command: Command) -> JobId {
        self.next_job += 1;
        let job = JobId(self.next_job);
        self.facts.commanded(&self.fleet, job, &command);
        self.step(Event::Command { job, command });
        job
    }

    pub(crate) fn expect_operator(&mut self, within: Duration) {
        let after = within.mul_f64(self.rng.f64());
        self.later(after, Happening::Operator);
    }

    /// Gives the fleet an event and does what it answers.
    fn step(&mut self, event: Event) {
        if self.trace {
            eprintln!("{:?} {event:?}", self.now.0);
        }
        self.facts
            .before(&self.fleet, &self.processes, &event, self.now);
        let concerned = self.facts.concerned(&event);
        let actions = self.fleet.step(self.now, event);
        self.carry_out(actions);
        self.check_reload();
        self.check_step(concerned);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            if self.trace {
                eprintln!("    {action:?}");
            }
            self.facts.observe(&self.processes, &action, self.now);
            self.act(action);
        }
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        self.sequence += 1;
        let key = (self.now.after(after), self.sequence);
        self.happenings.insert(key, happening);
    }

    fn soon(&mut self, seconds_at_most: f64, happening: Happening) {
        let after = seconds(&mut self.rng, 0.0, seconds_at_most);
        self.later(after, happening);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn {
                worker, generation, ..
            } => {
                let temper = Temper::draw(&mut self.rng, &self.faults);
                let process = Process::new(temper, generation);
                self.processes.insert(worker, process);
                self.soon(0.003, Happening::Born(worker));
            }
            Action::Drain { worker, .. } => {
                let process = self.dismissed(worker);
                if !process.temper.ignores_drain && !process.silent {
                    self.soon(0.5, Happening::Shut(worker));
                    self.soon(2.0, Happening::Drained(worker));
                }
            }
            Action::Stop { worker } => {
                let ignored = self.dismissed(worker).temper.ignores_stop;
                if !ignored {
                    let death = if self.rng.bool() {
                        exit(0)
                    } else {
                        signal(SIGTERM)
                    };
                    self.soon(0.1, Happening::Death(worker, death));
                }
            }
            Action::Abort { worker } => {
                let ignored = self.dismissed(worker).temper.ignores_stop;
                if !ignored {
                    self.soon(0.3, Happening::Death(worker, signal(SIGABRT)));
                }
            }
            Action::Kill { worker } => {
                let now = self.now;
                let process = self.dismissed(worker);
                process.killed_at = Some(now);
                let dying = process.temper.dying;
                self.later(dying, Happening::Death(worker, signal(SIGKILL)));
            }
            Action::Ask {
                worker,
                ask,
                within,
            } => self.ask(worker, ask, within),
            Action::Look { worker, first } => {
                let waited = self.waited(worker, first);
                self.later(Duration::ZERO, Happening::Looked(worker, waited));
            }
            Action::Count { pool } => self.soon(0.1, Happening::Counted(pool)),
            _ => {}
        }
    }

    /// What a pool's processes have served by now, or one of them that is about to go.
    fn count(&mut self, pool: PoolId, last: Option<Worker>) {
        let asked = |worker: &Worker| last.is_none_or(|last| last == *worker);
        let members = self.processes.iter_mut().filter(|(it, _)| it.pool == pool);
        let members = members.filter(|(worker, process)| asked(worker) && process.born);
        let mut tallies = Vec::new();
        for (worker, process) in members {
            tallies.push((*worker, process.serve(&mut self.rng)));
        }
        // What a worker says of itself may be nonsense.
        if !self.calm && self.rng.u8(0..50) == 0 {
            let chosen = self.rng.usize(0..tallies.len().max(1));
            if let Some((_, tally)) = tallies.get_mut(chosen) {
                *tally = Traffic {
                    failed: self.rng.u64(..),
                    panics: self.rng.u64(..),
                    ..tally.clone()
                };
            }
        }
        self.step(Event::Counted {
            pool,
            bounds: &BOUNDS,
            tallies,
        });
    }

    /// A process that is told to leave. (That it may be told is checked by
    /// `facts`.)
    fn dismissed(&mut self, worker: Worker) -> &mut Process {
        let process = self.processes.get_mut(&worker).expect("checked before");
        process.dismissed = true;
        process
    }

    /// How long a process has waited for a processor since the last look at it: in bad
    /// times up to half of the time.
    fn waited(&mut self, worker: Worker, first: bool) -> Duration {
        let now = self.now;
        let process = self.processes.get_mut(&worker).expect("it is looked at");
        let last = process.looked.replace(now).filter(|_| !first);
        match last {
            Some(last) if !self.calm => now.since(last).mul_f64(0.5 * self.rng.f64()),
            _ => Duration::ZERO,
        }
    }

    fn ask(&mut self, worker: Worker, ask: Ask, within: Duration) {
        let ignored = self.processes[&worker].temper.ignores_ask || self.processes[&worker].silent;
        let refused = !self.calm && self.rng.u8(0..10) == 0;
        // One that does not answer may have done it all the same.
        let done = if ignored { self.rng.bool() } else { !refused };
        if let (Ask::Reload { generation }, true) = (ask, done) {
            self.processes.get_mut(&worker).expect("asked").settings = generation;
        }
        if ignored {
            let answer = Err(AskError::TimedOut);
            self.later(within, Happening::Answer(worker, ask, answer));
        } else {
            let answer = match refused {
                true => Err(AskError::Refused("not now".to_owned())),
                false => Ok(()),
            };
            self.soon(0.5, Happening::Answer(worker, ask, answer));
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Born(worker) => self.born(worker),
            Happening::Ready(worker) => self.ready(worker),
            Happening::Heartbeat(worker) => self.report(worker),
            Happening::Fate(worker, fate) => self.meet(worker, fate),
            Happening::Shut(worker) => self.step(Event::Shut { worker }),
            Happening::Drained(worker) => {
                if self.processes.contains_key(&worker) {
                    self.step(Event::Drained { worker });
                    self.soon(0.1, Happening::Death(worker, exit(0)));
                }
            }
            Happening::Answer(worker, ask, result) => self.step(Event::Answered {
                worker,
                ask,
                result,
            }),
            Happening::Counted(pool) => self.count(pool, None),
            Happening::Looked(worker, waited) => self.step(Event::Looked { worker, waited }),
            Happening::Death(worker, death) => self.die(worker, death),
            Happening::Late(event) => self.step(event),
            Happening::Operator => {
                let command = crate::operator::think(self);
                self.command(command);
            }
        }
    }

    fn born(&mut self, worker: Worker) {
        let process = self.processes.get_mut(&worker).expect("born once");
        process.born = true;
        let next = match process.temper.boot {
            Boot::SpawnFails => {
                let error = "no more processes".to_owned();
                self.step(Event::SpawnFailed { worker, error });
                self.processes.remove(&worker);
                return;
            }
            Boot::Ready(after) => Some((after, Happening::Ready(worker))),
            Boot::Crash(after) => Some((after, Happening::Death(worker, exit(1)))),
            Boot::Hang => None,
        };
        self.next_pid += 1;
        let pid = self.next_pid;
        if let Some((after, happening)) = next {
            self.later(after, happening);
        }
        self.step(Event::Spawned { worker, pid });
    }

    fn ready(&mut self, worker: Worker) {
        let Some(process) = self.processes.get_mut(&worker) else {
            return;
        };
        if process.dismissed {
            return;
        }
        process.ready_at = Some(self.now);
        let fate = process.temper.fate;
        self.step(Event::Ready { worker });
        let heartbeat = self.heartbeat;
        self.later(heartbeat, Happening::Heartbeat(worker));
        if let Some((after, fate)) = fate {
            self.later(after, Happening::Fate(worker, fate));
        }
    }

    fn report(&mut self, worker: Worker) {
        let Some(process) = self.processes.get_mut(&worker) else {
            return;
        };
        if process.silent {
            return;
        }
        process.requests += self.rng.u64(0..30);
        let event = Event::Health {
            worker,
            requests: process.requests,
            in_flight: 1,
        };
        self.step(event);
        let heartbeat = self.heartbeat;
        self.later(heartbeat, Happening::Heartbeat(worker));
    }

    fn meet(&mut self, worker: Worker, fate: Fate) {
        let Some(process) = self.processes.get_mut(&worker) else {
            return;
        };
        if self.calm {
            return;
        }
        match fate {
            Fate::Crash => {
                let death = match self.rng.u8(0..3) {
                    0 => exit(0),
                    1 => exit(3),
                    _ => signal(11),
                };
                self.die(worker, death);
            }
            Fate::Hang => process.silent = true,
            Fate::Misbehave => {
                let rule = "a line of garbage".to_owned();
                self.step(Event::Misbehaved { worker, rule });
            }
            Fate::Grow => {
                let resident = 2 << 30;
                self.step(Event::Memory { worker, resident });
                if self.processes.contains_key(&worker) {
                    self.later(Duration::from_secs(1), Happening::Fate(worker, fate));
                }
            }
        }
    }

    fn die(&mut self, worker: Worker, death: Death) {
        if self.processes.get(&worker).is_none_or(|p| {
            // A process that dies in the kernel does nothing else any more.
            p.killed_at
                .is_some_and(|at| at.after(p.temper.dying) > self.now)
        }) {
            return;
        }
        if self.rng.bool() {
            let reason = "enough".to_owned();
            self.step(Event::Bye { worker, reason });
        }
        let pool = self.fleet.pool(worker.pool);
        if pool.is_some_and(|pool| pool.canary().is_some()) {
            self.count(worker.pool, Some(worker));
        }
        self.step(Event::Exited {
            worker,
            exit: death,
        });
        self.processes.remove(&worker);
        if self.rng.f64() < self.faults.late_event {
            let event = self.event_of_the_dead(worker);
            self.soon(2.0, Happening::Late(event));
        }
    }

    fn event_of_the_dead(&mut self, worker: Worker) -> Event {
        match self.rng.u8(0..7) {
            0 => Event::Ready { worker },
            1 => Event::Drained { worker },
            5 => Event::Shut { worker },
            2 => Event::Spawned { worker, pid: 7 },
            3 => Event::Misbehaved {
                worker,
                rule: "its channel closed".to_owned(),
            },
            4 => Event::Memory {
                worker,
                resident: u64::MAX,
            },
            _ => Event::Health {
                worker,
                requests: u64::MAX,
                in_flight: 0,
            },
        }
    }
}
