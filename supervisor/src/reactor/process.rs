//! One worker process and everything that is known of it: its channel, its
//! pidfd and its output, in one task that lives exactly as long as it does.

mod handed;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use prefork_proto::channel::{ChannelError, Flush, Receive, Received, SupervisorEnd};
use prefork_proto::message::{
    Health, Hello, HttpCounts, ListenerOffer, Rescue, ScoreboardOffer, ToSupervisor, ToWorker,
    Welcome,
};
use prefork_proto::scoreboard::{self, Unsealed};
use serde_json::Value;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::conversation::{
    Answer, BAD_SCOREBOARD, Breach, CallError, Conversation, FLOOD, Heard, UNKNOWN_TYPE,
};
use super::grip::{Adopted, Call, Grip, Order, SlotName, Start, Vitals};
use super::output::{Output, Progress};
use crate::fleet::{Death, Event, Worker};
use crate::metrics::SlotMetrics;
use crate::proc;
use crate::state;
use crate::sys::{self, Reaped};

pub(crate) use handed::resume;

/// Messages handled before the other tasks get their turn.
const MESSAGES_PER_TURN: usize = 64;

/// A worker that exits closes its channel a moment before it is gone; one that
/// closes it and lives on is noticed after this long.
const AFTER_CLOSE: Duration = Duration::from_secs(1);

/// Retry of a send that the kernel has no room for and gives no sign about.
const SEND_RETRY: Duration = Duration::from_millis(20);

/// Messages read after the process's end: a grandchild may hold the channel
/// and write for ever.
const LAST_MESSAGES: usize = 4096;

/// Output reads after the process's end: a grandchild may hold the pipe and
/// write for ever.
const LAST_READS: usize = 64;

/// The capability of a worker that can stop accepting and go on later.
const PAUSE: &str = "pause";

/// The capability of a worker that counts in shared memory.
const SCOREBOARD: &str = "scoreboard";

/// Starts the task. Its events end with [`Event::Exited`].
pub(crate) fn watch(start: Start, events: mpsc::Sender<Event>) -> io::Result<Grip> {
    let (orders, received) = mpsc::unbounded_channel();
    let vitals = Rc::new(RefCell::new(Vitals::default()));
    let grip = Grip {
        pid: start.pid,
        start_ticks: state::start_ticks(start.pid)?,
        vitals: Rc::clone(&vitals),
        looked_up: Cell::new(false),
        orders,
    };
    let process = Process::new(start, grip.start_ticks, vitals, received, events)?;
    tokio::task::spawn_local(process.run());
    Ok(grip)
}

/// Starts the task of a process that another supervisor started.
pub(crate) fn adopt(adopted: Adopted, events: mpsc::Sender<Event>) -> io::Result<Grip> {
    let (orders, received) = mpsc::unbounded_channel();
    let vitals = Rc::new(RefCell::new(Vitals {
        hello: adopted.hello,
        health: None,
        board: adopted.board,
    }));
    let grip = Grip {
        pid: adopted.pid,
        start_ticks: adopted.start_ticks,
        vitals: Rc::clone(&vitals),
        looked_up: Cell::new(false),
        orders,
    };
    let (channel, welcome) = adopted.channel.unzip();
    let mut process = Process {
        worker: adopted.worker,
        slot: adopted.slot,
        pid: adopted.pid,
        start_ticks: adopted.start_ticks,
        pidfd: sys::watch_pidfd(adopted.pidfd)?,
        is_child: false,
        channel,
        conversation: Conversation::resumed(adopted.pid, adopted.draining, Instant::now()),
        stdout: None,
        stderr: None,
        stderr_ended: true,
        welcome: None,
        scoreboard: None,
        unsealed: None,
        listeners: Vec::new(),
        metrics: adopted.metrics,
        heartbeat_timeout: adopted.heartbeat_timeout,
        vitals,
        orders: received,
        events,
        closed: None,
        pinged: None,
        deaf: false,
        throttled: None,
        retry: None,
    };
    if let Some(welcome) = welcome {
        // One that takes no welcome closes the channel or falls silent.
        let _ = process.send(&ToWorker::Welcome(welcome));
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
    start_ticks: u64,
    pidfd: AsyncFd<OwnedFd>,
    /// Whether it is ours to reap; one that was adopted is not.
    is_child: bool,
    /// `None` once it is closed or broken.
    channel: Option<AsyncFd<SupervisorEnd>>,
    conversation: Conversation,
    stdout: Option<Output>,
    /// Kept beyond its end for the certificate; none of an adopted process.
    stderr: Option<Output>,
    stderr_ended: bool,
    welcome: Option<Welcome>,
    /// Until `hello` says whether the worker can use it.
    scoreboard: Option<(Unsealed, OwnedFd)>,
    /// From then until `ready`.
    unsealed: Option<Unsealed>,
    listeners: Vec<(ListenerOffer, OwnedFd)>,
    metrics: Rc<SlotMetrics>,
    heartbeat_timeout: Duration,
    vitals: Rc<RefCell<Vitals>>,
    orders: mpsc::UnboundedReceiver<Order>,
    events: mpsc::Sender<Event>,
    /// The channel ended and the process has until then to end as well.
    closed: Option<Instant>,
    /// When it was last asked whether it listens.
    pinged: Option<Instant>,
    /// It reports and answers nothing.
    deaf: bool,
    /// Not reading until then: it floods.
    throttled: Option<Instant>,
    /// Sending again then: the kernel had no room.
    retry: Option<Instant>,
}

/// Why the task woke up.
enum Wake {
    Order(Order),
    Died,
    Readable,
    Writable,
    Stdout,
    Stderr,
    Timer,
}

impl Process {
    fn new(
        start: Start,
        start_ticks: u64,
        vitals: Rc<RefCell<Vitals>>,
        orders: mpsc::UnboundedReceiver<Order>,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        Ok(Self {
            worker: start.worker,
            slot: start.slot,
            pid: start.pid,
            start_ticks,
            pidfd: sys::watch_pidfd(start.pidfd)?,
            is_child: true,
            channel: Some(sys::watch_channel(start.channel)?),
            conversation: Conversation::new(start.pid, Instant::now()),
            stdout: Some(Output::new(start.stdout)?),
            stderr: Some(Output::new(start.stderr)?),
            stderr_ended: false,
            welcome: Some(start.welcome),
            scoreboard: Some(start.scoreboard),
            unsealed: None,
            listeners: start.listeners,
            metrics: start.metrics,
            heartbeat_timeout: start.heartbeat_timeout,
            vitals,
            orders,
            events,
            closed: None,
            pinged: None,
            deaf: false,
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
                Wake::Writable => self.flush(),
                Wake::Stdout => self.read_stdout(),
                Wake::Stderr => self.read_stderr(),
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
        let timer = [self.closed, self.throttled, self.retry]
            .into_iter()
            .flatten()
            .min();
        let reading = self.channel.as_ref().filter(|_| self.throttled.is_none());
        let writing = self
            .channel
            .as_ref()
            .filter(|channel| channel.get_ref().queued_bytes() > 0 && self.retry.is_none());
        tokio::select! {
            biased;
            Some(order) = self.orders.recv() => Wake::Order(order),
            _ = self.pidfd.readable() => Wake::Died,
            _ = ready(reading, Interest::READABLE) => Wake::Readable,
            _ = ready(writing, Interest::WRITABLE) => Wake::Writable,
            () = readable(self.stderr.as_ref()), if !self.stderr_ended => Wake::Stderr,
            () = readable(self.stdout.as_ref()) => Wake::Stdout,
            () = at(timer) => Wake::Timer,
        }
    }

    async fn tell(&self, event: Event) {
        // The reactor drops its end only when it ends itself.
        let _ = self.events.send(event).await;
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Drain { within, sweep } => {
                let id = self.conversation.drain();
                let deadline_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
                let drain = ToWorker::Drain {
                    id,
                    deadline_ms,
                    sweep,
                };
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
            Order::Call(call, answer) => self.call(call, answer),
            Order::Signal(signal) => self.signal(signal),
            // Dropped: the asker finds that it is not answered.
            Order::HoldStill(_) => {}
        }
    }

    fn signal(&self, signal: Signal) {
        match sys::pidfd_kill(self.pidfd.get_ref(), signal) {
            // It ended by itself just now.
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(errno) => {
                warn!(slot = %self.slot, pid = self.pid, "cannot send {signal}: {errno}");
            }
        }
    }

    fn call(&mut self, call: Call, answer: oneshot::Sender<Answer>) {
        if !self.conversation.is_up() || self.channel.is_none() {
            let why = "its channel is not up".to_owned();
            let _ = answer.send(Err(CallError::Unreachable(why)));
            return;
        }
        if matches!(call, Call::Resume) && !self.can(PAUSE) {
            // It was never paused: it accepts.
            let _ = answer.send(Ok(Value::Null));
            return;
        }
        let id = self.conversation.call(answer);
        let (message, fd) = match call {
            Call::Pause => (ToWorker::Pause { id }, None),
            Call::Resume => (ToWorker::Resume { id }, None),
            Call::Tell { command, args } => (ToWorker::Tell { id, command, args }, None),
            Call::Reload { app } => (ToWorker::Reload { id, app }, None),
            Call::Rescue { offer, fd } => (rescue(id, offer), Some(fd)),
        };
        if let Err(why) = self.send_with(&message, fd) {
            self.conversation.give_up(id, CallError::Unreachable(why));
        }
    }

    /// Whether its `hello` lists the capability.
    fn can(&self, capability: &str) -> bool {
        let vitals = self.vitals.borrow();
        vitals.can(capability)
    }

    fn send(&mut self, message: &ToWorker) -> Result<(), String> {
        self.send_with(message, None)
    }

    /// Queues a message and sends what the kernel takes at once.
    fn send_with(&mut self, message: &ToWorker, fd: Option<OwnedFd>) -> Result<(), String> {
        let Some(channel) = &mut self.channel else {
            return Err("its channel is closed".to_owned());
        };
        let channel = channel.get_mut();
        let queued = match fd {
            Some(fd) => channel.queue_with_fd(message, fd),
            None => channel.queue(message),
        };
        if let Err(error) = queued {
            self.metrics.send_error(error.reason());
            debug!(slot = %self.slot, pid = self.pid, "cannot send: {error}");
            return Err(error.to_string());
        }
        self.flush();
        Ok(())
    }

    fn flush(&mut self) {
        let Some(channel) = &mut self.channel else {
            return;
        };
        let flushed = channel.try_io_mut(Interest::WRITABLE, |channel| match channel.flush() {
            Ok(Flush::Blocked) => Err(io::ErrorKind::WouldBlock.into()),
            other => Ok(other),
        });
        if let Ok(Err(error)) = flushed {
            self.metrics.send_error(error.reason());
            debug!(slot = %self.slot, pid = self.pid, "cannot send: {error}");
            if !error.breaks_link() {
                self.retry = Some(Instant::now() + SEND_RETRY);
            }
            // A link that broke says so to the reader, after what came before.
        }
        self.publish();
    }

    /// Reads and handles messages, a turn's worth.
    async fn listen(&mut self) {
        for _ in 0..MESSAGES_PER_TURN {
            let now = Instant::now();
            if let Err(wait) = self.conversation.allowance(now) {
                self.throttle(now + wait);
                break;
            }
            if !self.receive_one(now).await {
                break;
            }
        }
        self.publish();
        tokio::task::yield_now().await;
    }

    fn throttle(&mut self, until: Instant) {
        if self.conversation.note_flood() {
            self.metrics.decode_error(FLOOD);
            warn!(slot = %self.slot, pid = self.pid, "it sends too many messages: reading it slowly");
        }
        self.throttled = Some(until);
    }

    /// Handles one message; `false` when there is none.
    async fn receive_one(&mut self, now: Instant) -> bool {
        let Some(channel) = &mut self.channel else {
            return false;
        };
        let received = channel.try_io_mut(Interest::READABLE, |channel| match channel.receive() {
            Ok(Receive::Blocked) => Err(io::ErrorKind::WouldBlock.into()),
            other => Ok(other),
        });
        let Ok(received) = received else {
            return false;
        };
        match received {
            Ok(Receive::Message(Received { message, fd })) => {
                drop(fd);
                self.hear(message, now).await
            }
            Ok(Receive::Unknown { kind, id: _ }) => {
                self.metrics.decode_error(UNKNOWN_TYPE);
                debug!(slot = %self.slot, pid = self.pid, "message of unknown type {kind:?}");
                true
            }
            Ok(Receive::Blocked) => false,
            Ok(Receive::Closed) => {
                self.close(now);
                false
            }
            Err(error) => {
                self.metrics.decode_error(error.reason());
                if matches!(error, ChannelError::Truncated { .. }) {
                    // Most likely it died in the middle of a word.
                    self.close(now);
                } else {
                    self.misbehaved(error.to_string()).await;
                }
                false
            }
        }
    }

    async fn hear(&mut self, message: ToSupervisor, now: Instant) -> bool {
        let worker = self.worker;
        match self.conversation.hear(message, now) {
            Ok(Heard::Hello(hello)) => self.welcome(hello).await,
            Ok(Heard::Ready) => return self.ready().await,
            Ok(Heard::Health(health)) => self.health(health, now).await,
            Ok(Heard::Metrics(report)) => self.metrics.application(worker.incarnation, &report),
            Ok(Heard::Pong(after)) => self.metrics.round_trip(after),
            Ok(Heard::Answered) => {}
            Ok(Heard::Drained) => self.tell(Event::Drained { worker }).await,
            Ok(Heard::Bye(reason)) => self.tell(Event::Bye { worker, reason }).await,
            Err(Breach { reason, rule }) => {
                self.metrics.decode_error(reason);
                self.misbehaved(rule).await;
                return false;
            }
        }
        true
    }

    /// It accepts connections, and has mapped what it counts in. `false` where
    /// it has made that unfit to be read.
    async fn ready(&mut self) -> bool {
        if let Some(unsealed) = self.unsealed.take() {
            match unsealed.seal() {
                Ok(board) => self.vitals.borrow_mut().board = Some(board),
                Err(error) => {
                    self.metrics.decode_error(BAD_SCOREBOARD);
                    self.misbehaved(error.to_string()).await;
                    return false;
                }
            }
        }
        self.metrics.channel_up(self.worker.incarnation, true);
        let worker = self.worker;
        self.tell(Event::Ready { worker }).await;
        true
    }

    /// Answers `hello`: who it is, where to count, its listeners, and leave to
    /// begin.
    async fn welcome(&mut self, hello: Hello) {
        self.vitals.borrow_mut().hello = Some(hello);
        let scoreboard = self.scoreboard.take().filter(|_| self.can(SCOREBOARD));
        let Some(mut welcome) = self.welcome.take() else {
            return;
        };
        welcome.paused &= self.can(PAUSE);
        if let Err(error) = self.queue_welcome(welcome, scoreboard) {
            self.misbehaved(format!("cannot welcome it: {error}")).await;
        } else {
            self.flush();
        }
    }

    fn queue_welcome(
        &mut self,
        welcome: Welcome,
        scoreboard: Option<(Unsealed, OwnedFd)>,
    ) -> Result<(), String> {
        let Some(channel) = &mut self.channel else {
            return Ok(());
        };
        let channel = channel.get_mut();
        let text = |error: ChannelError| error.to_string();
        channel.queue(&ToWorker::Welcome(welcome)).map_err(text)?;
        if let Some((unsealed, fd)) = scoreboard {
            let offer = ToWorker::Scoreboard(ScoreboardOffer {
                abi: scoreboard::ABI,
                bytes: scoreboard::BYTES,
                fds: 1,
            });
            channel.queue_with_fd(&offer, fd).map_err(text)?;
            self.unsealed = Some(unsealed);
        }
        for (offer, fd) in self.listeners.drain(..) {
            let offer = ToWorker::Listener(offer);
            channel.queue_with_fd(&offer, fd).map_err(text)?;
        }
        channel.queue(&ToWorker::Start).map_err(text)
    }

    async fn health(&mut self, mut health: Health, now: Instant) {
        // A worker that counts on a scoreboard counts there alone.
        if let Some(counted) = self.vitals.borrow().counted() {
            health.http = Some(counted.http);
        }
        let event = Event::Health {
            worker: self.worker,
            requests: health.http.as_ref().map_or(0, HttpCounts::total),
            in_flight: health.in_flight,
        };
        self.metrics
            .health(self.worker.incarnation, &health, SystemTime::now());
        self.vitals.borrow_mut().health = Some(health);
        // A worker that talks but doesn't listen hangs as well: its reports
        // stop counting until it answers.
        match self.conversation.unanswered(now) {
            Some(silence) if silence > self.heartbeat_timeout / 2 => {
                self.warn_deaf(silence);
                return;
            }
            Some(_) => {}
            None => {
                self.deaf = false;
                self.ping(now);
            }
        }
        self.tell(event).await;
    }

    /// Asks whether it listens: often enough to know within the heartbeat's
    /// deadline, and not with each report, which would double an idle channel's
    /// traffic.
    fn ping(&mut self, now: Instant) {
        if self
            .pinged
            .is_none_or(|last| now - last >= self.heartbeat_timeout / 4)
        {
            self.pinged = Some(now);
            let id = self.conversation.ping(now);
            // A full queue is noticed by the pings that wait in it.
            let _ = self.send(&ToWorker::Ping { id });
        }
    }

    /// Says so once per silence: its reports go on.
    fn warn_deaf(&mut self, silence: Duration) {
        if !std::mem::replace(&mut self.deaf, true) {
            let (slot, pid) = (&self.slot, self.pid);
            warn!(%slot, pid, "it reports but has answered no ping for {silence:.1?}");
        }
    }

    async fn misbehaved(&mut self, rule: String) {
        if self.channel.is_none() {
            return;
        }
        warn!(slot = %self.slot, pid = self.pid, "channel closed: {rule}");
        self.publish();
        self.channel = None;
        self.closed = None;
        self.metrics.channel_up(self.worker.incarnation, false);
        self.tell(Event::Misbehaved {
            worker: self.worker,
            rule,
        })
        .await;
    }

    fn close(&mut self, now: Instant) {
        self.publish();
        self.channel = None;
        self.closed = Some(now + AFTER_CLOSE);
        self.metrics.channel_up(self.worker.incarnation, false);
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
        if due(self.closed) {
            self.closed = None;
            let rule = "it closed its channel and lives on".to_owned();
            warn!(slot = %self.slot, pid = self.pid, "{rule}");
            self.tell(Event::Misbehaved {
                worker: self.worker,
                rule,
            })
            .await;
        }
    }

    /// Brings status and metrics up to date with the channel's own counting.
    fn publish(&self) {
        if let Some(channel) = &self.channel {
            let channel = channel.get_ref();
            self.metrics
                .channel_counters(self.worker.incarnation, channel.counters());
            self.metrics
                .send_queue(self.worker.incarnation, channel.queued_bytes() as u64);
        }
    }

    fn read_stdout(&mut self) {
        let Some(stdout) = &mut self.stdout else {
            return;
        };
        let (slot, pid) = (&self.slot, self.pid);
        if stdout.read(|line| log_line(slot, pid, "stdout", line)) == Progress::Ended {
            stdout.finish_line(|line| log_line(slot, pid, "stdout", line));
            self.stdout = None;
        }
    }

    fn read_stderr(&mut self) {
        let Some(stderr) = &mut self.stderr else {
            return;
        };
        let (slot, pid) = (&self.slot, self.pid);
        if stderr.read(|line| log_line(slot, pid, "stderr", line)) == Progress::Ended {
            stderr.finish_line(|line| log_line(slot, pid, "stderr", line));
            self.stderr_ended = true;
        }
    }

    /// The process has ended: take what it left behind, then reap it.
    async fn bury(&mut self) -> Death {
        for _ in 0..LAST_MESSAGES {
            if self.channel.is_none() || !self.receive_one(Instant::now()).await {
                break;
            }
        }
        self.publish();
        self.metrics.channel_up(self.worker.incarnation, false);
        // Nobody counts any more: this is all, however it died.
        if let Some(counted) = self.vitals.borrow().counted() {
            self.metrics.counted(self.worker.incarnation, &counted);
        }
        let (slot, pid) = (self.slot.clone(), self.pid);
        for (stream, output) in [
            ("stdout", self.stdout.as_mut()),
            ("stderr", self.stderr.as_mut()),
        ] {
            let Some(output) = output else { continue };
            let log = |line: &str| log_line(&slot, pid, stream, line);
            let mut reads = 0..LAST_READS;
            while reads.next().is_some() && output.read(log) == Progress::Read {}
            output.finish_line(log);
        }

        // A zombie's processor time is final.
        if let Ok(usage) = proc::usage(Pid::from_raw(self.pid)) {
            self.metrics.process(self.worker.incarnation, usage);
        }
        let reaped = self.reap().await;
        Death {
            code: reaped.and_then(|reaped| reaped.code),
            signal: reaped.and_then(|reaped| reaped.signal),
            oom: false,
            requests: self.metrics.requests_of(self.worker.incarnation),
            peak_memory_bytes: reaped.map_or(0, |reaped| reaped.peak_memory_bytes),
            stderr: self.stderr.as_ref().map_or_else(String::new, Output::tail),
            at_unix_ms: super::unix_ms(),
        }
    }
}

impl Process {
    /// Reaps it, if it is ours to reap; how another's child ended is not known.
    async fn reap(&self) -> Option<Reaped> {
        if !self.is_child {
            let worker = self.worker;
            let reason = "adopted; exit status unknown".to_owned();
            self.tell(Event::Bye { worker, reason }).await;
            return None;
        }
        match sys::reap(self.pidfd.get_ref()) {
            Ok(reaped) => reaped,
            Err(errno) => {
                warn!(slot = %self.slot, pid = self.pid, "cannot reap: {errno}");
                None
            }
        }
    }
}

fn rescue(id: u64, offer: ListenerOffer) -> ToWorker {
    ToWorker::Rescue(Rescue {
        id,
        name: offer.name,
        address: offer.address,
        tls: offer.tls,
        fds: offer.fds,
    })
}

fn log_line(slot: &SlotName, pid: i32, stream: &str, line: &str) {
    info!(target: "worker", %slot, pid, stream, "{line}");
}

async fn ready(channel: Option<&AsyncFd<SupervisorEnd>>, interest: Interest) {
    match channel {
        // An error shows in the call that follows.
        Some(channel) => drop(channel.ready(interest).await),
        None => std::future::pending().await,
    }
}

async fn readable(output: Option<&Output>) {
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
