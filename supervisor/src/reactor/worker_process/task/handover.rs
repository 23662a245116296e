//! A process that one program hands to the next: what is held of it is written
//! down while its task holds still, and a new task goes on from there.

use std::os::fd::{AsRawFd, OwnedFd};

use prefork_proto::channel::parts::PartsError;
use prefork_proto::request_table::Table;
use prefork_proto::scoreboard::Board;

use crate::kernel::sys::claim;
use crate::reactor::worker_process::handle::HoldStill;
use crate::reactor::worker_process::spawn::output_ends;
use crate::reactor::worker_process::task::*;
use crate::upgrade::{HandedBoot, HandedProcess, HandedTable};

/// Why a process can't be gone on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResumeError {
    /// The event loop takes no more.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its channel's parts don't fit together.
    #[error(transparent)]
    Channel(#[from] PartsError),
}

/// How long what is on its way out of a pipe is waited for.
const SETTLING: Duration = Duration::from_millis(50);

/// What no document says: it is made anew of what the generation has.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// The certificates of a process that was told nothing yet.
    pub(crate) certificates: Option<tls::Copy>,
    /// The keys of its session tickets.
    pub(crate) tickets: Vec<TicketKey>,
    /// What it is asked before it is ready.
    pub(crate) check: Option<Check>,
}

/// Goes on with a process that the program before this one handed over.
pub(crate) fn resume(
    handed: HandedProcess,
    slot: SlotName,
    access_log: Option<Rc<AccessLog>>,
    metrics: Rc<SlotMetrics>,
    heartbeat_timeout: Duration,
    secrets: Secrets,
    ties: Ties,
) -> Result<Grip, ResumeError> {
    let (orders, received) = mpsc::unbounded_channel();
    let now = Instant::now();
    let board = handed.board.map(claim).map(Board::adopt).transpose();
    let board = board.unwrap_or_else(|error| {
        warn!(%slot, pid = handed.pid, "its scoreboard is not used: {error}");
        None
    });
    let requests = handed.requests.map(claim).map(Table::adopt).transpose();
    let requests = requests.unwrap_or_else(|error| {
        warn!(%slot, pid = handed.pid, "its requests are not shown: {error}");
        None
    });
    let vitals = Rc::new(RefCell::new(Vitals {
        takes_over: false,
        hello: handed.hello,
        health: handed.health,
        board,
        requests,
    }));
    let channel = match handed.channel {
        Some(parts) => {
            let parts = parts.try_map(|fd| Ok::<_, PartsError>(claim(fd)))?;
            Some(sys::watch_channel(SupervisorEnd::from_parts(parts)?)?)
        }
        None => None,
    };
    let (welcome, scoreboard, offered, listeners) = match handed.boot {
        Some(HandedBoot {
            welcome,
            scoreboard,
            requests,
            listeners,
        }) => (
            Some(welcome),
            scoreboard.map(|(ours, theirs)| (Unsealed::resume(claim(ours)), claim(theirs))),
            requests.and_then(|handed| offered_table(&slot, &handed)),
            listeners
                .into_iter()
                .map(|(offer, fd)| (offer, claim(fd)))
                .collect(),
        ),
        None => (None, None, None, Vec::new()),
    };
    let welcomed_later = welcome.is_some();
    let conversation = Conversation::go_on(handed.pid, handed.talk, now);
    metrics.channel_up(
        handed.worker.incarnation,
        channel.is_some() && conversation.is_up(),
    );
    let output = |output: Option<_>, stream| {
        let writer = reap::writer(&slot, handed.pid, stream);
        output.map(|it| Output::go_on(it, writer)).transpose()
    };
    let stdout = output(handed.stdout, OutputStream::Stdout)?;
    let stderr = output(handed.stderr, OutputStream::Stderr)?;
    let outputs = match (&stdout, &stderr) {
        (Some(stdout), Some(stderr)) if welcomed_later => {
            output_ends([stdout.pipe(), stderr.pipe()])?
        }
        _ => Vec::new(),
    };
    // What was to be sent later is sent as soon as it goes.
    let unsent = channel
        .as_ref()
        .is_some_and(|it| it.get_ref().queued_bytes() > 0);
    let started = StartTime::known(handed.pid, handed.start_ticks);
    let mut process = Process {
        worker: handed.worker,
        slot,
        pid: handed.pid,
        started: started.clone(),
        pidfd: sys::watch_fd(claim(handed.pidfd))?,
        is_child: handed.is_child,
        channel,
        conversation,
        stdout,
        stderr,
        stderr_ended: handed.stderr_ended,
        welcome,
        scoreboard,
        requests: offered,
        unsealed: handed.unsealed.map(claim).map(Unsealed::resume),
        certificates: secrets.certificates.filter(|_| welcomed_later),
        tickets: Vec::new(),
        listeners,
        outputs,
        access_log,
        behind: Behind::default(),
        checking: Checking::go_on(handed.check, secrets.check),
        hang: Hang::default(),
        // What it is told from here on is sent to it.
        inherited: Inherited::default(),
        crowded: None,
        metrics,
        heartbeat_timeout,
        vitals: Rc::clone(&vitals),
        orders: received,
        ties,
        closed: handed.closing.then(|| now + AFTER_CLOSE),
        closing: handed.closing.then(|| Closing::begin(handed.pid, now)),
        unheard: welcomed_later.then(|| now + UNHEARD),
        pinged: None,
        deaf: handed.deaf,
        withheld: None,
        throttled: None,
        retry: unsent.then_some(now),
    };
    process.know_what_it_counts();
    process.take_tickets(secrets.tickets);
    if handed.check == Some(true) {
        process.begin_check();
    }
    let is_child = process.is_child;
    tokio::task::spawn_local(process.run());
    Ok(Grip {
        pid: handed.pid,
        started,
        is_child,
        outputs: procfs::kin::prints_to(handed.pid),
        upstream: None,
        vitals,
        looked_up: Cell::new(false),
        schedule: RefCell::default(),
        orders,
    })
}

/// The request table that a process was not told of yet.
fn offered_table(slot: &SlotName, handed: &HandedTable) -> Option<OfferedTable> {
    let [ours, theirs] = [handed.ours, handed.theirs].map(claim);
    match Table::adopt(ours) {
        Ok(table) => Some(OfferedTable {
            offer: table.offer(handed.query),
            table,
            theirs,
        }),
        Err(error) => {
            warn!(%slot, "its requests are not shown: {error}");
            None
        }
    }
}

impl Process {
    /// Says what it holds and does nothing more until it is told to go on; in
    /// the best case that never comes.
    pub(super) async fn hold_still(&mut self, HoldStill { held, mut until }: HoldStill) {
        self.publish();
        // Nobody goes on looking at it.
        self.seen();
        for output in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            // What is on its way out of a pipe would be logged again. A quiet moment may
            // still come.
            if !output.settle(SETTLING).await {
                return;
            }
        }
        if held.send(self.hand_over()).is_ok() {
            while until.changed().await.is_ok() {}
        }
    }

    fn hand_over(&self) -> HandedProcess {
        let vitals = self.vitals.borrow();
        let number = |fd: &OwnedFd| fd.as_raw_fd();
        let memory = |unsealed: &Unsealed| unsealed.as_fd().as_raw_fd();
        let now = Instant::now();
        HandedProcess {
            worker: self.worker,
            pid: self.pid,
            start_ticks: self.started.ticks(),
            is_child: self.is_child,
            pidfd: number(self.pidfd.get_ref()),
            hello: vitals.hello.clone(),
            health: vitals.health.clone(),
            board: vitals.board.as_ref().map(|it| it.as_fd().as_raw_fd()),
            requests: vitals.requests.as_ref().map(|it| it.as_fd().as_raw_fd()),
            channel: self.channel.as_ref().map(|it| it.get_ref().parts()),
            talk: self.conversation.hand_over(now),
            stdout: self.stdout.as_ref().map(Output::hand_over),
            stderr: self.stderr.as_ref().map(Output::hand_over),
            stderr_ended: self.stderr_ended,
            boot: self.welcome.as_ref().map(|welcome| HandedBoot {
                welcome: welcome.clone(),
                scoreboard: self
                    .scoreboard
                    .as_ref()
                    .map(|(ours, theirs)| (memory(ours), number(theirs))),
                requests: self.requests.as_ref().map(|it| HandedTable {
                    ours: it.table.as_fd().as_raw_fd(),
                    theirs: number(&it.theirs),
                    query: it.offer.query,
                }),
                listeners: self
                    .listeners
                    .iter()
                    .map(|(offer, fd)| (offer.clone(), number(fd)))
                    .collect(),
            }),
            unsealed: self.unsealed.as_ref().map(memory),
            check: self.checking.hand_over(),
            closing: self.closed.is_some(),
            deaf: self.deaf,
        }
    }
}
