//! What the fleet is told, and what it answers: the whole interface between
//! policy (this module's parent) and mechanism (the reactor).

use std::time::Duration;

use prefork_api::{Exit, ExitReason, RunningRequest, ThreadDump};
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::state::canary::{Canary, Verdict};
use crate::state::trial::Traffic;

/// Time since boot by CLOCK_MONOTONIC, so that it means the same to the next
/// supervisor.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(pub Duration);

impl Time {
    /// The time that comes `delay` after this one.
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(delay))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Names a pool for as long as the supervisor lives; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PoolId(pub u32);

/// Names one process for as long as the supervisor lives: the pool, the slot,
/// and the process's number in that slot, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Worker {
    /// Its pool.
    pub pool: PoolId,
    /// Its slot's index.
    pub slot: u32,
    /// Its number in the slot, from 1.
    pub incarnation: u64,
}

/// Names a job: a command whose asker waits for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Something that the fleet has to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A process was forked for this worker.
    Spawned {
        /// The worker that `Action::Spawn` named.
        worker: Worker,
        /// Its process id.
        pid: i32,
    },
    /// No process could be made.
    SpawnFailed {
        /// The worker that `Action::Spawn` named.
        worker: Worker,
        /// Why, with advice.
        error: String,
    },
    /// It said `hello`.
    Greeted {
        /// Who.
        worker: Worker,
    },
    /// What it is to be told cannot be sent for now, which is not its fault.
    Hindered {
        /// Who.
        worker: Worker,
        /// Why, with who is to blame.
        why: String,
    },
    /// It said `ready`.
    Ready {
        /// Who.
        worker: Worker,
    },
    /// It is of no use, as it was found before it was ready.
    Unfit {
        /// Who.
        worker: Worker,
        /// What it did, and what would have been right.
        why: String,
    },
    /// It said `health`.
    Health {
        /// Who.
        worker: Worker,
        /// Requests it has served in all.
        requests: u64,
        /// Requests in flight.
        in_flight: u64,
    },
    /// `Action::Look` is answered, at once.
    Looked {
        /// Who.
        worker: Worker,
        /// How long it has waited for a processor since the last look; zero for the
        /// first of a silence, and where the kernel does not tell.
        waited: Duration,
    },
    /// The memory that it alone holds was looked up.
    Memory {
        /// Who.
        worker: Worker,
        /// In bytes.
        resident: u64,
    },
    /// The same right after it became ready.
    BirthMemory {
        /// Who.
        worker: Worker,
        /// In bytes.
        resident: u64,
    },
    /// It answered `Action::Ask`, or the asking came to nothing.
    Answered {
        /// Who.
        worker: Worker,
        /// What it was asked.
        ask: Ask,
        /// Whether it did it; if not, why.
        result: Result<(), AskError>,
    },
    /// It accepts nothing more, as it was told to: it answered `drain`, or those that
    /// sent requests to it have found others.
    Shut {
        /// Who.
        worker: Worker,
    },
    /// It said `drained`.
    Drained {
        /// Who.
        worker: Worker,
    },
    /// It said `bye`.
    Bye {
        /// Who.
        worker: Worker,
        /// Why it leaves.
        reason: String,
    },
    /// It broke the protocol, or closed its channel while it lives.
    Misbehaved {
        /// Who.
        worker: Worker,
        /// The rule it broke.
        rule: String,
    },
    /// `Action::Count` is answered, or a process of a pool that is counted has ended.
    Counted {
        /// Which pool.
        pool: PoolId,
        /// The upper bounds of the duration buckets, in seconds.
        bounds: &'static [f64],
        /// What its processes have counted since they began.
        tallies: Vec<(Worker, Traffic)>,
    },
    /// Its process has been reaped. The last event of a worker.
    Exited {
        /// Who.
        worker: Worker,
        /// How.
        exit: Death,
    },
    /// A deadline has passed.
    Tick,
    /// An operator or a signal wants something.
    Command {
        /// Where the answer goes.
        job: JobId,
        /// What is wanted.
        command: Command,
    },
}

/// How a process ended, as the kernel and its channel tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Death {
    /// The exit code, where it exited.
    pub code: Option<i32>,
    /// The signal, where one ended it.
    pub signal: Option<Signal>,
    /// Whether the kernel killed it for want of memory.
    pub oom: bool,
    /// Requests it served, by its last report; none where it counts none.
    pub requests: Option<u64>,
    /// The most resident memory it had.
    pub peak_memory_bytes: u64,
    /// The last of its stderr.
    pub stderr: String,
    /// Wall clock, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// The requests that it was serving, as far as they are named.
    pub in_flight: Vec<RunningRequest>,
    /// Further requests that it was serving.
    pub in_flight_unlisted: u64,
    /// Where its threads were when it was given up, if that was looked at.
    pub thread_dump: Option<Box<ThreadDump>>,
}

/// What a worker can be asked and answers by `reply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Accept nothing more, keep what is open.
    Pause,
    /// Accept again.
    Resume,
    /// Take the application settings of this generation in place.
    Reload {
        /// The generation.
        generation: u64,
    },
}

/// Why a worker did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It answered no.
    #[error("it refused: {0}")]
    Refused(String),
    /// It can do so only as a new process.
    #[error("it needs a restart for that: {0}")]
    NeedsRestart(String),
    /// It did not answer within `Action::Ask`'s time.
    #[error("it did not answer in time")]
    TimedOut,
    /// The question could not be sent, or the worker left before it answered.
    #[error("it could not be asked: {0}")]
    Unreachable(String),
}

/// A signal, by its number. Those that the policy knows have the numbers that Linux gives
/// them on the machines that prefork is made for; the supervisor holds them to its libc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub i32);

impl Signal {
    /// SIGHUP.
    pub const HUP: Self = Self(1);
    /// SIGINT.
    pub const INT: Self = Self(2);
    /// SIGQUIT.
    pub const QUIT: Self = Self(3);
    /// SIGUSR1.
    pub const USR1: Self = Self(10);
    /// SIGUSR2.
    pub const USR2: Self = Self(12);
    /// SIGTERM.
    pub const TERM: Self = Self(15);

    /// Whether programs are asked to leave by it; others are accidents.
    pub fn asks_to_leave(self) -> bool {
        [
            Self::TERM,
            Self::INT,
            Self::QUIT,
            Self::HUP,
            Self::USR1,
            Self::USR2,
        ]
        .contains(&self)
    }
}

/// What a worker says that it does when it comes back to another supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejoinState {
    /// It accepts connections.
    Ready,
    /// It accepts none, by an operator's wish.
    Paused,
    /// It is on its way out.
    Draining,
}

/// What operators and signals can want of the fleet.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Give the pool this many workers.
    Scale {
        /// The pool's name.
        pool: String,
        /// How many.
        workers: u32,
    },
    /// Give the pool as many workers as configured.
    ScaleAsConfigured {
        /// The pool's name.
        pool: String,
    },
    /// Give the pool some workers more or fewer than it has.
    ScaleBy {
        /// The pool's name; the first one without it (TTIN, TTOU), which then
        /// keeps 1 at least where a named one has the order refused.
        pool: Option<String>,
        /// How many more; fewer where it is negative.
        by: i32,
    },
    /// Replace the worker, or all of the pool's: successor first, then drain.
    Restart {
        /// The pool's name.
        pool: String,
        /// One slot, or all.
        slot: Option<u32>,
    },
    /// Let the worker accept nothing more.
    Pause {
        /// The pool's name.
        pool: String,
        /// The slot.
        slot: u32,
    },
    /// Let a paused worker accept again.
    Resume {
        /// The pool's name.
        pool: String,
        /// The slot.
        slot: u32,
    },
    /// Drain the worker; its successor starts at once, not first.
    Drain {
        /// The pool's name.
        pool: String,
        /// The slot.
        slot: u32,
    },
    /// SIGKILL the worker; its successor starts at once.
    Kill {
        /// The pool's name.
        pool: String,
        /// The slot.
        slot: u32,
    },
    /// Put a new generation in force, or keep the old one: a transaction.
    Reload(Plan),
    /// Have every canary pass that is being judged: the reload goes on.
    Promote,
    /// Undo the reload whose canaries are being judged.
    Abort,
    /// End: drain everything and leave, or kill everything and leave.
    Stop {
        /// Whether to kill instead of draining.
        now: bool,
    },
}

/// What a reload is to bring about. Its listeners are bound and its programs
/// pinned already.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The new generation's number, above every one before.
    pub generation: u64,
    /// Every pool of the new configuration, in its order. A pool that exists
    /// and is not here is to go.
    pub pools: Vec<PlannedPool>,
}

/// One pool of a [`Plan`].
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedPool {
    /// Its new policy; holds the name.
    pub policy: Policy,
    /// What becomes of the workers that it has.
    pub fate: Fate,
    /// How its first new workers are judged before the others follow, if they are.
    pub canary: Option<Canary>,
}

/// What a reload makes of the workers that a pool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Successors follow them.
    #[default]
    Replaced,
    /// They take the new settings: only those have changed, and every worker says that
    /// it can.
    InPlace,
    /// They notice nothing: whoever were to follow them would be the same.
    Kept,
}

/// Something that the reactor has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Fork and exec; answer with `Spawned` or `SpawnFailed`.
    Spawn {
        /// The name of the worker to be.
        worker: Worker,
        /// The generation whose program and settings it gets.
        generation: u64,
        /// Whether it is to accept nothing until it is asked to resume: it is
        /// on probation. A worker that can't be paused accepts at once.
        paused: bool,
    },
    /// Send `drain`.
    Drain {
        /// To whom.
        worker: Worker,
        /// How long it may take.
        within: Duration,
    },
    /// Send `pause`, `resume` or `reload`; answer with `Answered`.
    Ask {
        /// To whom.
        worker: Worker,
        /// What.
        ask: Ask,
        /// How long it may take to answer.
        within: Duration,
    },
    /// Send `stop`, then SIGTERM.
    Stop {
        /// To whom.
        worker: Worker,
    },
    /// Send SIGABRT through the pidfd: leave a core of what hangs.
    Abort {
        /// To whom.
        worker: Worker,
    },
    /// Send SIGKILL through the pidfd.
    Kill {
        /// To whom.
        worker: Worker,
    },
    /// Look whether a process that is silent waits for a processor; answer with
    /// `Looked` before anything else happens.
    Look {
        /// At whom.
        worker: Worker,
        /// Whether it is the first look of this silence.
        first: bool,
    },
    /// Read what the pool's processes have counted; answer with `Counted` before
    /// anything else happens.
    Count {
        /// Which pool.
        pool: PoolId,
    },
    /// Tell those who watch: log, events, metrics.
    Report(Report),
    /// Tell a job's asker about a step.
    Progress {
        /// Whose.
        job: JobId,
        /// The pool it concerns.
        pool: String,
        /// The slot it concerns.
        slot: Option<u32>,
        /// One sentence for people.
        message: String,
    },
    /// Tell a job's asker the end.
    Finish {
        /// Whose.
        job: JobId,
        /// What was done, or why not.
        result: Result<String, Refusal>,
    },
    /// A reload has succeeded or failed, and its asker is told so next. After a
    /// success, forget what only the generation before it needed.
    Reloaded {
        /// The generation in force now.
        generation: u64,
        /// Whether that is the new one.
        committed: bool,
        /// Why not; empty when committed.
        why: String,
    },
    /// No process of a generation that was rolled back is left: forget what only
    /// that one needed.
    RollbackEnded,
    /// No pool of the first generation came up: print the certificate, exit 1.
    /// `Action::Kill` for everything that lives came before it or comes with
    /// it: a worker that had to be killed has its certificate when it is
    /// reaped. `Ended` follows.
    BootFailed {
        /// The pool's name.
        pool: String,
        /// The slot.
        slot: u32,
        /// Why, for people.
        why: String,
        /// The certificate, where there was a process.
        exit: Option<Exit>,
        /// The same of the other pools that did not come up.
        others: Vec<BootFailure>,
    },
    /// Stop was asked for, or the boot failed, and no process is left. (One
    /// that the kernel does not let go of long after its SIGKILL doesn't count.)
    Ended,
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such pool or slot.
    NotFound(String),
    /// It makes no sense now, or it was tried and failed.
    Failed {
        /// Why, for people.
        message: String,
        /// The worker's stderr, where a worker is the reason.
        stderr: String,
    },
    /// A worker did not answer in time.
    TimedOut(String),
}

/// What happened to a worker or a pool, for log, events and metrics.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A process was started.
    Started {
        /// Who.
        worker: Worker,
        /// Its process id.
        pid: i32,
    },
    /// It became ready.
    Ready {
        /// Who.
        worker: Worker,
        /// How long that took from its start.
        boot: Duration,
    },
    /// It was told to drain.
    Draining {
        /// Who.
        worker: Worker,
        /// Why.
        cause: ExitReason,
    },
    /// It was told to leave or was killed, and why.
    Stopping {
        /// Who.
        worker: Worker,
        /// Why.
        cause: ExitReason,
    },
    /// It is gone.
    Exited {
        /// Who.
        worker: Worker,
        /// Its certificate.
        exit: Exit,
        /// How long it drained, if it did.
        drain: Option<Duration>,
    },
    /// The slot waits before the next start.
    BackingOff {
        /// The worker whose end (or failed spawn) is the reason.
        worker: Worker,
        /// How long.
        delay: Duration,
        /// Why, for people.
        why: String,
    },
    /// It was paused or resumed.
    Paused {
        /// Who.
        worker: Worker,
        /// Paused, or resumed.
        paused: bool,
    },
    /// A report did not come within the deadline.
    HeartbeatMissed {
        /// Who.
        worker: Worker,
        /// How long ago the last one was.
        silent: Duration,
    },
    /// It holds more memory than `max_rss` from the beginning, and so would its
    /// successor: it is not recycled for that.
    TooLarge {
        /// Who.
        worker: Worker,
        /// How much it holds, in bytes.
        holds: u64,
        /// `max_rss`.
        limit: u64,
        /// It is recycled when it holds more than this.
        most: u64,
    },
    /// It is silent because the machine gives it no processor.
    Starved {
        /// Who.
        worker: Worker,
        /// How long it has been silent.
        silent: Duration,
        /// How much of that it waited for a processor.
        starved: Duration,
        /// When it is held for hung, whatever it waits for.
        most: Duration,
    },
    /// The pool's desired number of workers changed.
    Scaled {
        /// Which.
        pool: PoolId,
        /// From.
        from: u32,
        /// To.
        to: u32,
    },
    /// A pool's canary serves and is being judged.
    CanaryBegun {
        /// Which pool.
        pool: PoolId,
        /// How many workers it has.
        workers: u32,
    },
    /// A pool's canary is not judged any longer.
    CanaryEnded {
        /// Which pool.
        pool: PoolId,
        /// What came of it.
        verdict: Verdict,
        /// The same with both rates, for people.
        message: String,
    },
    /// Every pool has been ready once.
    Booted,
    /// The first boot is over: some pools have been ready, and others have not.
    BootedInPart {
        /// Those that have not.
        without: Vec<BootFailure>,
    },
}

/// A pool that did not come up, and its first failure.
#[derive(Debug, Clone, PartialEq)]
pub struct BootFailure {
    /// The pool's name.
    pub pool: String,
    /// The slot.
    pub slot: u32,
    /// Why, for people.
    pub why: String,
    /// The certificate, where there was a process and it has been reaped.
    pub exit: Option<Exit>,
}
