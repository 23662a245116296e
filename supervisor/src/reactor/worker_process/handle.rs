//! What the reactor holds of a process: its task's inbox and what is known of
//! it. The task itself is in `task`.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_fleet::{Event, Worker};
use prefork_proto::adapter::UpstreamAddress;
use prefork_proto::channel::SupervisorEnd;
use prefork_proto::message::{
    Health, Hello, ListenerOffer, OutputOffer, OutputStream, PassageOffer, PlacesOffer,
    RequestsOffer, UpstreamCountsOffer, Vacate, Welcome,
};
use prefork_proto::request_table::Table;
use prefork_proto::scoreboard::{Board, Snapshot, Unsealed};
use prefork_proto::tls::TicketKey;
use serde_json::Value;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::handle::Member;
use crate::kernel::procfs::schedule::Schedule;
use crate::metrics::SlotMetrics;
use crate::reactor::event_batching::Rest;
use crate::reactor::fronts;
use crate::reactor::generation::access_log::AccessLog;
use crate::reactor::worker_process::inherited::Inherited;
use crate::reactor::worker_process::protocol::Answer;
use crate::reactor::worker_process::task::Check;
use crate::recovery::state::{SavedProcess, StartTime};
use crate::tls;
use crate::upgrade::HandedProcess;

/// What a worker says of itself, for status and metrics.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// Its `hello`.
    pub(crate) hello: Option<Hello>,
    /// Its last `health`.
    pub(crate) health: Option<Health>,
    /// Where it counts since it is ready, if it is able to.
    pub(in crate::reactor) board: Option<Board>,
    /// Where it notes the requests that it is serving, if it is able to.
    pub(in crate::reactor) requests: Option<Table>,
    /// Whether it was given what open connections of others come through.
    pub(in crate::reactor) takes_over: bool,
}

impl Vitals {
    /// What is on its scoreboard at this moment.
    pub(crate) fn counted(&self) -> Option<Snapshot> {
        self.board.as_ref().map(Board::read)
    }

    /// Whether its `hello` lists the capability.
    pub(crate) fn can(&self, capability: &str) -> bool {
        let hello = self.hello.as_ref();
        hello.is_some_and(|hello| hello.capabilities.iter().any(|can| can == capability))
    }
}

/// What ties a process's task to the loop that it runs in.
#[derive(Debug, Clone)]
pub(crate) struct Ties {
    /// Where its events go.
    pub(crate) events: mpsc::Sender<Event>,
    /// Told what it hears.
    pub(crate) rest: Rest,
    /// Who may look where a process hangs.
    pub(crate) looks: Arc<Semaphore>,
}

/// What the reactor wants of a process.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send `drain`.
    Drain {
        /// How long it may take.
        within: Duration,
        /// Whether nobody accepts after it.
        sweep: bool,
        /// The listeners whose open connections others take.
        pass_on: Vec<String>,
    },
    /// Send `stop`, then SIGTERM.
    Stop,
    /// The same to one that was not heard to be ready. It may have begun to
    /// accept all the same: then it is to drain.
    Dismiss {
        /// How long that may take.
        within: Duration,
        /// Whether nobody accepts after it.
        sweep: bool,
    },
    /// Send a request and hand on its answer.
    Call(Call, oneshot::Sender<Answer>),
    /// Hand over keys of session tickets, now or with what else it is told first.
    Tickets(Vec<TicketKey>),
    /// Hand over the memory in which it counts what it has at a pool behind it, now or
    /// with what else it is told first.
    Places(PlacesOffer, OwnedFd),
    /// Hand over the memory in which it counts what a pool behind it has answered, in the
    /// same way.
    UpstreamCounts(UpstreamCountsOffer, OwnedFd),
    /// Hand over what open connections of a listener go through from worker to worker.
    Passage(PassageOffer, OwnedFd),
    /// Tell it the table of a pool behind it, in the same way.
    Upstreams(Rc<fronts::Table>),
    /// Look where it is before a signal ends it.
    Look,
    /// Send a signal.
    Signal(Signal),
    /// Say what is held, and do nothing more for now.
    HoldStill(HoldStill),
}

/// Asks a process's task to hold still: it answers with all that it holds and
/// does nothing more until the other end of `until` is dropped.
#[derive(Debug)]
pub(crate) struct HoldStill {
    pub(crate) held: oneshot::Sender<HandedProcess>,
    pub(crate) until: watch::Receiver<()>,
}

/// A request that a worker answers.
#[derive(Debug)]
pub(crate) enum Call {
    Pause,
    Resume,
    Tell {
        command: String,
        args: Value,
    },
    Reload {
        app: Value,
    },
    Certificates(tls::Copy),
    Rescue {
        offer: ListenerOffer,
        fd: OwnedFd,
    },
    /// Until when it has something at a worker behind it.
    Vacate(Vacate),
    /// To write to its edition's access log, which was opened again.
    AccessLog,
}

/// A request table on its way to a worker that knows how to use it.
#[derive(Debug)]
pub(crate) struct OfferedTable {
    pub(crate) table: Table,
    pub(crate) offer: RequestsOffer,
    /// The worker's descriptor.
    pub(crate) theirs: OwnedFd,
}

/// What a process's task is given at its start.
pub(crate) struct Start {
    pub(crate) worker: Worker,
    /// `web/0`, for the log.
    pub(crate) slot: SlotName,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) channel: SupervisorEnd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// The other ends of both, as `/proc` names them.
    pub(crate) prints_to: [Option<String>; 2],
    pub(crate) welcome: Welcome,
    /// Where it takes what a front forwards, if it does.
    pub(crate) upstream: Option<UpstreamAddress>,
    /// What it is asked before it is ready, if it is asked something.
    pub(crate) check: Option<Check>,
    /// Where it can count, and the descriptor for a worker that knows how.
    pub(crate) scoreboard: (Unsealed, OwnedFd),
    /// Where it can note its requests, if it is to.
    pub(crate) requests: Option<OfferedTable>,
    /// Its certificates, if a listener speaks TLS.
    pub(crate) certificates: Option<tls::Copy>,
    /// The keys of its session tickets; none if no listener speaks TLS.
    pub(crate) tickets: Vec<TicketKey>,
    /// Its listeners: the line for each and the duplicate that goes with it.
    pub(crate) listeners: Vec<(ListenerOffer, OwnedFd)>,
    /// The reading ends of what it prints to, for a worker that keeps them.
    pub(crate) outputs: Vec<(OutputOffer, OwnedFd)>,
    /// Its edition's access log.
    pub(crate) access_log: Option<Rc<AccessLog>>,
    /// What of all that it was born with.
    pub(crate) inherited: Inherited,
    pub(crate) metrics: Rc<SlotMetrics>,
    /// A `health` that comes this long after a ping without answer doesn't count.
    pub(crate) heartbeat_timeout: Duration,
}

/// What the task of a process is given that another supervisor started.
pub(crate) struct Adopted {
    pub(crate) worker: Worker,
    /// `web/0`, for the log.
    pub(crate) slot: SlotName,
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
    pub(crate) pidfd: OwnedFd,
    /// What it said first to whoever started it.
    pub(crate) hello: Option<Hello>,
    /// The channel that it came back on, and the answer to that.
    pub(crate) channel: Option<(AsyncFd<SupervisorEnd>, Welcome)>,
    /// Where it counts.
    pub(crate) board: Option<Board>,
    /// Where it notes its requests.
    pub(crate) requests: Option<Table>,
    /// The reading ends of what it prints to.
    pub(crate) outputs: Vec<(OutputStream, OwnedFd)>,
    /// Whether it is on its way out.
    pub(crate) draining: bool,
    /// As in [`Start`].
    pub(crate) tickets: Vec<TicketKey>,
    /// Its edition's access log.
    pub(crate) access_log: Option<Rc<AccessLog>>,
    pub(crate) metrics: Rc<SlotMetrics>,
    /// As in [`Start`].
    pub(crate) heartbeat_timeout: Duration,
}

/// A slot's name: the pool's and the index.
#[derive(Debug, Clone)]
pub(crate) struct SlotName {
    pub(crate) pool: Rc<str>,
    pub(crate) slot: u32,
}

impl std::fmt::Display for SlotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pool, self.slot)
    }
}

/// The reactor's grip on a process.
#[derive(Debug)]
pub(crate) struct Grip {
    pub(crate) pid: i32,
    pub(in crate::reactor) started: StartTime,
    pub(crate) vitals: Rc<RefCell<Vitals>>,
    /// Whether it is this process's child.
    pub(in crate::reactor) is_child: bool,
    /// What it prints to, as `/proc` names it.
    pub(in crate::reactor) outputs: [Option<String>; 2],
    /// Where it takes what a front forwards, if it does.
    pub(crate) upstream: Option<UpstreamAddress>,
    /// Whether its use of memory and time is known.
    pub(crate) looked_up: Cell<bool>,
    /// What its threads had done when its silence was last looked at.
    pub(crate) schedule: RefCell<Option<Schedule>>,
    pub(in crate::reactor) orders: mpsc::UnboundedSender<Order>,
}

impl Grip {
    /// Which process it is.
    pub(in crate::reactor) fn member(&self) -> Member {
        Member {
            pid: self.pid,
            start_ticks: self.started.ticks(),
        }
    }

    /// Gives an order. One that comes after the end goes nowhere.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// What the next supervisor has to know of it.
    pub(crate) fn save(&self) -> SavedProcess {
        SavedProcess {
            pid: self.pid,
            start_ticks: self.started.ticks(),
            hello: self.vitals.borrow().hello.clone(),
            upstream: self.upstream.clone(),
        }
    }
}
