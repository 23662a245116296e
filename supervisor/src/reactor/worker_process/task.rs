//! One worker process and everything that is known of it: its channel (`channel`),
//! its pidfd and its output (`reap`), in one task that lives exactly as long as
//! it does.

mod behind;
mod channel;
mod closing;
mod descriptors_in_flight;
mod handover;
mod hang;
mod no_hello;
mod readiness_check;
mod reap;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use behind::Behind;
use closing::{AFTER_CLOSE, Closing};
use hang::Hang;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use prefork_fleet::{Death, Event, SPEAK, Worker};
use prefork_proto::capability;
use prefork_proto::channel::{ChannelError, Flush, Receive, Received, SupervisorEnd};
use prefork_proto::message::{
    Health, Hello, ListenerOffer, OutputOffer, OutputStream, Rescue, ScoreboardOffer, TlsOffer,
    ToSupervisor, ToWorker, Vacate, Welcome,
};
use prefork_proto::scoreboard::{self, Unsealed};
use prefork_proto::tls::TicketKey;
use serde_json::Value;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use crate::kernel::procfs;
use crate::kernel::sys::{self, Reaped};
use crate::metrics::SlotMetrics;
use crate::reactor::generation::access_log::AccessLog;
use crate::reactor::worker_process::handle::{
    Adopted, Call, Grip, OfferedTable, Order, SlotName, Start, Ties, Vitals,
};
use crate::reactor::worker_process::inherited::Inherited;
use crate::reactor::worker_process::log_allowance::Flood;
use crate::reactor::worker_process::output::{Output, Progress, Writer};
use crate::reactor::worker_process::protocol::{
    Answer, BAD_SCOREBOARD, Breach, CallError, Conversation, FLOOD, Heard, UNKNOWN_TYPE,
};
use crate::recovery::state::StartTime;
use crate::tls;

pub(crate) use readiness_check::Check;
use readiness_check::Checking;

use channel::rescue;

pub(crate) use handover::{Secrets, resume};
pub(crate) use hang::looks;
use no_hello::UNHEARD;

/// Starts the task. Its events end with [`Event::Exited`].
pub(crate) fn watch(start: Start, ties: Ties) -> io::Result<Grip> {
    let (orders, received) = mpsc::unbounded_channel();
    let vitals = Rc::new(RefCell::new(Vitals::default()));
    let grip = Grip {
        pid: start.pid,
        started: StartTime::of(start.pid),
        is_child: true,
        outputs: start.prints_to.clone(),
        upstream: start.upstream.clone(),
        vitals: Rc::clone(&vitals),
        looked_up: Cell::new(false),
        schedule: RefCell::default(),
        orders,
    };
    let process = Process::new(start, grip.started.clone(), vitals, received, ties)?;
    tokio::task::spawn_local(process.run());
    Ok(grip)
}

/// Starts the task of a process that another supervisor started.
pub(crate) fn adopt(adopted: Adopted, ties: Ties) -> io::Result<Grip> {
    let (orders, received) = mpsc::unbounded_channel();
    let vitals = Rc::new(RefCell::new(Vitals {
        takes_over: false,
        hello: adopted.hello,
        health: None,
        board: adopted.board,
        requests: adopted.requests,
    }));
    let started = StartTime::known(adopted.pid, adopted.start_ticks);
    let grip = Grip {
        pid: adopted.pid,
        started: started.clone(),
        is_child: false,
        outputs: procfs::kin::prints_to(adopted.pid),
        upstream: None,
        vitals: Rc::clone(&vitals),
        looked_up: Cell::new(false),
        schedule: RefCell::default(),
        orders,
    };
    let [stdout, stderr] = reap::go_on_reading(&adopted.slot, adopted.pid, adopted.outputs);
    let (channel, welcome) = adopted.channel.unzip();
    let mut process = Process {
        worker: adopted.worker,
        slot: adopted.slot,
        pid: adopted.pid,
        started,
        pidfd: sys::watch_fd(adopted.pidfd)?,
        is_child: false,
        channel,
        conversation: Conversation::resumed(adopted.pid, adopted.draining, Instant::now()),
        stdout,
        stderr_ended: stderr.is_none(),
        stderr,
        welcome: None,
        scoreboard: None,
        requests: None,
        unsealed: None,
        certificates: None,
        tickets: Vec::new(),
        listeners: Vec::new(),
        outputs: Vec::new(),
        access_log: adopted.access_log,
        behind: Behind::default(),
        checking: Checking::Over,
        hang: Hang::default(),
        inherited: Inherited::default(),
        crowded: None,
        metrics: adopted.metrics,
        heartbeat_timeout: adopted.heartbeat_timeout,
        vitals,
        orders: received,
        ties,
        closed: None,
        unheard: None,
        pinged: None,
        closing: None,
        deaf: false,
        withheld: None,
        throttled: None,
        retry: None,
    };
    process.know_what_it_counts();
    if let Some(welcome) = welcome {
        // One that takes no welcome closes the channel or falls silent.
        let _ = process.send(&ToWorker::Welcome(welcome));
        process.take_tickets(adopted.tickets);
        process.offer_log();
        process
            .metrics
            .channel_up(process.worker.incarnation, process.channel.is_some());
    }
    tokio::task::spawn_local(process.run());
    Ok(grip)
}

struct Process {
    worker: Worker,
    slot: SlotName,
    pid: i32,
    started: StartTime,
    pidfd: AsyncFd<OwnedFd>,
    /// Whether it is ours to reap; one that was adopted is not.
    is_child: bool,
    /// `None` once it is closed or broken.
    channel: Option<AsyncFd<SupervisorEnd>>,
    conversation: Conversation,
    stdout: Option<Output>,
    /// Kept beyond its end for the certificate.
    stderr: Option<Output>,
    stderr_ended: bool,
    welcome: Option<Welcome>,
    /// Until `hello` says whether the worker can use it.
    scoreboard: Option<(Unsealed, OwnedFd)>,
    /// The same, if it is to note its requests.
    requests: Option<OfferedTable>,
    /// From then until `ready`.
    unsealed: Option<Unsealed>,
    /// The certificates that it is told of after `hello`.
    certificates: Option<tls::Copy>,
    /// The ticket keys that go with them.
    tickets: Vec<TicketKey>,
    listeners: Vec<(ListenerOffer, OwnedFd)>,
    /// The reading ends of what it prints to, which it is to keep.
    outputs: Vec<(OutputOffer, OwnedFd)>,
    access_log: Option<Rc<AccessLog>>,
    /// What it is told of pools behind it with all else that comes before `start`.
    behind: Behind,
    /// What it has to answer before it counts as ready.
    checking: Checking,
    /// Where it was when it was given up, and what waits for that.
    hang: Hang,
    /// What of what it is told it was born with.
    inherited: Inherited,
    /// Until then nothing is said of a descriptor for it that waits, because of too many
    /// on their way.
    crowded: Option<Instant>,
    metrics: Rc<SlotMetrics>,
    heartbeat_timeout: Duration,
    vitals: Rc<RefCell<Vitals>>,
    orders: mpsc::UnboundedReceiver<Order>,
    ties: Ties,
    /// The channel ended and the process has until then to end as well.
    closed: Option<Instant>,
    /// It has not said `hello`, and that will be looked into then.
    unheard: Option<Instant>,
    /// When it was last asked whether it listens.
    pinged: Option<Instant>,
    /// Since when, and what it did then.
    closing: Option<Closing>,
    /// It reports and answers nothing.
    deaf: bool,
    /// Its last report, which counts once it answers.
    withheld: Option<Event>,
    /// Not reading until then: it floods.
    throttled: Option<Instant>,
    /// Sending again then: the socket or the kernel had no room.
    retry: Option<Instant>,
}

/// Why the task woke up.
enum Wake {
    Order(Order),
    Died,
    Readable,
    Checked(Result<(), String>),
    Seen,
    Output(OutputStream),
    Timer,
}

impl Process {
    fn new(
        start: Start,
        started: StartTime,
        vitals: Rc<RefCell<Vitals>>,
        orders: mpsc::UnboundedReceiver<Order>,
        ties: Ties,
    ) -> io::Result<Self> {
        let pipes = [start.stdout, start.stderr];
        let [stdout, stderr] = reap::read_from(&start.slot, start.pid, pipes)?;
        Ok(Self {
            worker: start.worker,
            slot: start.slot,
            pid: start.pid,
            started,
            pidfd: sys::watch_fd(start.pidfd)?,
            is_child: true,
            channel: Some(sys::watch_channel(start.channel)?),
            conversation: Conversation::new(start.pid, Instant::now()),
            stdout: Some(stdout),
            stderr: Some(stderr),
            stderr_ended: false,
            welcome: Some(start.welcome),
            scoreboard: Some(start.scoreboard),
            requests: start.requests,
            unsealed: None,
            certificates: start.certificates,
            tickets: start.tickets,
            listeners: start.listeners,
            outputs: start.outputs,
            access_log: start.access_log,
            behind: Behind::default(),
            checking: start.check.map_or(Checking::Over, Checking::Due),
            hang: Hang::default(),
            inherited: start.inherited,
            crowded: None,
            metrics: start.metrics,
            heartbeat_timeout: start.heartbeat_timeout,
            vitals,
            orders,
            ties,
            closed: None,
            unheard: Some(Instant::now() + UNHEARD),
            pinged: None,
            closing: None,
            deaf: false,
            withheld: None,
            throttled: None,
            retry: None,
        })
    }

    async fn run(mut self) {
        loop {
            match self.wake().await {
                Wake::Order(Order::HoldStill(still)) => self.hold_still(still).await,
                Wake::Order(order) => self.obey(order),
                Wake::Died => break,
                Wake::Readable => self.listen().await,
                Wake::Seen => self.seen(),
                Wake::Checked(verdict) => self.checked(verdict).await,
                Wake::Output(stream) => self.read_output(stream).await,
                Wake::Timer => self.on_timer().await,
            }
        }
        let death = self.bury().await;
        self.tell(Event::Exited {
            worker: self.worker,
            exit: death,
        })
        .await;
    }

    async fn wake(&mut self) -> Wake {
        let timer = [self.closed, self.unheard, self.throttled, self.retry]
            .into_iter()
            .flatten()
            .min();
        let reading = self.channel.as_ref().filter(|_| self.throttled.is_none());
        tokio::select! {
            biased;
            Some(order) = self.orders.recv() => Wake::Order(order),
            () = sys::readable(&self.pidfd) => Wake::Died,
            () = heard(reading) => Wake::Readable,
            () = self.hang.seen() => Wake::Seen,
            verdict = self.checking.verdict() => Wake::Checked(verdict),
            () = at(timer) => Wake::Timer,
            // Last, since there may be no end to it.
            () = readable(self.stderr.as_mut()), if !self.stderr_ended => {
                Wake::Output(OutputStream::Stderr)
            }
            () = readable(self.stdout.as_mut()) => Wake::Output(OutputStream::Stdout),
        }
    }

    async fn tell(&self, event: Event) {
        // The reactor drops its end only when it ends itself.
        let _ = self.ties.events.send(event).await;
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Drain {
                within,
                sweep,
                pass_on,
            } => {
                let drain = self.drain(within, sweep, pass_on);
                if self.channel.is_none() && !self.is_child {
                    // It lost its supervisor and drains by itself.
                    return;
                }
                if self.send(&drain).is_err() {
                    // The SDK takes it for a drain, and other programs leave.
                    self.signal(Signal::SIGTERM);
                }
            }
            Order::Stop => {
                let id = self.conversation.stop();
                let _ = self.send(&ToWorker::Stop { id });
                self.signal(Signal::SIGTERM);
            }
            Order::Dismiss { within, sweep } if self.conversation.has_begun() => {
                let drain = self.drain(within, sweep, Vec::new());
                let _ = self.send(&drain);
                // While it starts it heeds nothing else, and leaves. Later it
                // takes it for the same.
                self.signal(Signal::SIGTERM);
            }
            Order::Dismiss { .. } => self.obey(Order::Stop),
            Order::Call(call, answer) => self.call(call, answer),
            Order::Tickets(keys) => self.take_tickets(keys),
            Order::Places(offer, memory) => self.hand_places_over(offer, memory),
            Order::UpstreamCounts(offer, memory) => self.hand_counts_over(offer, memory),
            // Not sent, its connections end with it.
            Order::Passage(offer, fd) => {
                let _ = self.send_with(&ToWorker::Passage(offer), Some(fd));
            }
            Order::Upstreams(table) => self.tell_upstreams(table),
            Order::Look => self.look(),
            Order::Signal(signal) => self.signal(signal),
            // Dropped: the asker finds that it is not answered.
            Order::HoldStill(_) => {}
        }
    }

    fn drain(&mut self, within: Duration, sweep: bool, pass_on: Vec<String>) -> ToWorker {
        ToWorker::Drain {
            id: self.conversation.drain(),
            deadline_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            sweep,
            pass_on,
        }
    }

    fn send_signal(&self, signal: Signal) {
        match sys::pidfd_kill(self.pidfd.get_ref(), signal) {
            // It ended by itself just now.
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(errno) => {
                warn!(slot = %self.slot, pid = self.pid, "cannot send {signal}: {errno}");
            }
        }
    }

    fn call(&mut self, call: Call, answer: oneshot::Sender<Answer>) {
        if matches!(call, Call::AccessLog) {
            // The one that it was born with is the file before.
            self.inherited.forget_access_log();
        }
        if matches!(call, Call::AccessLog) && self.has_no_log_to_change() {
            let _ = answer.send(Ok(Value::Null));
            return;
        }
        if matches!(call, Call::Vacate(_)) && self.has_nothing_behind() {
            let _ = answer.send(Ok(Value::Null));
            return;
        }
        // A log is taken also by a worker that is not ready yet, and so is what is to be
        // known of pools behind it.
        let early = matches!(call, Call::AccessLog | Call::Vacate(_));
        let is_up = self.conversation.is_up() || early;
        if !is_up || self.channel.is_none() {
            let why = "its channel is not up".to_owned();
            let _ = answer.send(Err(CallError::Unreachable(why)));
            return;
        }
        if matches!(call, Call::Resume) && !self.can(capability::PAUSE) {
            // It was never paused: it accepts.
            let _ = answer.send(Ok(Value::Null));
            return;
        }
        let id = self.conversation.call(answer);
        if let Call::Certificates(certificates) = &call
            && let Some(why) = self.cannot_ask(Some(certificates))
        {
            return self.conversation.give_up(id, CallError::Unreachable(why));
        }
        let (message, fd) = match call {
            Call::AccessLog => match self.log_offer(id) {
                Ok((message, fd)) => (message, Some(fd)),
                Err(error) => {
                    let why = CallError::Unreachable(error.to_string());
                    return self.conversation.give_up(id, why);
                }
            },
            Call::Pause => (ToWorker::Pause { id }, None),
            Call::Resume => (ToWorker::Resume { id }, None),
            Call::Tell { command, args } => (ToWorker::Tell { id, command, args }, None),
            Call::Reload { app } => (ToWorker::Reload { id, app }, None),
            Call::Certificates(tls::Copy { memory, bytes, .. }) => {
                (ToWorker::Tls(TlsOffer { id, bytes, fds: 1 }), Some(memory))
            }
            Call::Vacate(whom) => (ToWorker::Vacate(Vacate { id, ..whom }), None),
            Call::Rescue { offer, fd } => (rescue(id, offer), Some(fd)),
        };
        if let Err(why) = self.send_with(&message, fd) {
            self.conversation.give_up(id, CallError::Unreachable(why));
        }
    }

    async fn on_timer(&mut self) {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.throttled) {
            self.throttled = None;
        }
        if due(self.retry) {
            self.retry = None;
            self.flush();
        }
        if due(self.unheard) {
            self.unheard = None;
            self.doubt().await;
        }
        let closing = self.closing.as_ref().filter(|_| due(self.closed));
        if closing.is_some_and(|it| it.is_kept_from_ending(self.pid, now)) {
            self.closed = Some(now + AFTER_CLOSE);
        } else if due(self.closed) {
            self.closed = None;
            let rule = match self.vitals.borrow().hello {
                Some(_) => "it closed its channel and lives on".to_owned(),
                None => format!("it closed its channel and never said hello; {SPEAK}"),
            };
            warn!(slot = %self.slot, pid = self.pid, "{rule}");
            self.tell(Event::Misbehaved {
                worker: self.worker,
                rule,
            })
            .await;
        }
    }
}

async fn heard(channel: Option<&AsyncFd<SupervisorEnd>>) {
    match channel {
        Some(channel) => sys::readable(channel).await,
        None => std::future::pending().await,
    }
}

async fn readable(output: Option<&mut Output>) {
    match output {
        Some(output) => output.readable().await,
        None => std::future::pending().await,
    }
}

pub(crate) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
