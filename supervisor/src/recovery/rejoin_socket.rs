//! `rejoin.sock` in the runtime directory: where workers come whose supervisor
//! is gone.
//!
//! Nothing that a worker says is believed before the kernel has said which
//! process it is and the secret is right; then it is taken if it is one of those
//! that are awaited. The socket stays for the supervisor's life, so that a worker
//! that nobody awaits is told at once to drain, and need not hold its listeners
//! until its time as an orphan is over.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prefork_proto::channel::{Receive, Received, SupervisorEnd};
use prefork_proto::message::{
    ListenerOffer, OutputStream, PROTOCOL, Rejoin, RejoinOffer, ToSupervisor, ToWorker,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

use crate::kernel::sys;

/// How long a worker may take to say who it is and to hand over what it has.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections of awaited processes heard at a time. Each has one or two.
const HEARD_AT_ONCE: usize = 4096;

/// Connections of others heard at a time, to tell them why they are not wanted; beyond
/// that, and after so long, they are closed.
const STRANGERS_AT_ONCE: usize = 16;
const PATIENCE_WITH_STRANGERS: Duration = Duration::from_millis(250);

/// Between two lines about refusals.
const REMARKS: Duration = Duration::from_secs(1);

/// More listeners than any worker has.
const MOST_LISTENERS: u32 = 1024;

/// Standard output and standard error.
const MOST_OUTPUTS: u32 = 2;

/// `accept` fails at once for ever while descriptors are out: wait this long.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Who may come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// Its pool's name.
    pub(crate) pool: String,
    /// Its slot.
    pub(crate) slot: u32,
    /// Which of the slot's processes it is.
    pub(crate) incarnation: u64,
    /// The user that it runs as.
    pub(crate) uid: u32,
}

/// A worker that came back, with all that it handed over.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) rejoin: Rejoin,
    /// Its new channel, on which it waits for `welcome`.
    pub(crate) channel: AsyncFd<SupervisorEnd>,
    pub(crate) scoreboard: Option<OwnedFd>,
    /// Its request table.
    pub(crate) requests: Option<OwnedFd>,
    pub(crate) listeners: Vec<(ListenerOffer, OwnedFd)>,
    /// The reading ends of what it prints to.
    pub(crate) outputs: Vec<(OutputStream, OwnedFd)>,
}

/// Why a worker is not taken.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    /// The metric's label.
    reason: &'static str,
    /// One sentence for people.
    why: String,
}

impl Refusal {
    fn new(reason: &'static str, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { reason, why }
    }

    fn protocol(why: impl Into<String>) -> Self {
        Self::new("protocol", why)
    }
}

/// Who is let in.
#[derive(Debug)]
pub(crate) struct Door {
    path: PathBuf,
    secret: String,
    /// How long a worker without a supervisor goes on serving.
    orphan_timeout: Duration,
    /// By process id.
    awaited: RefCell<HashMap<i32, Awaited>>,
    /// The reasons of refusals that have not been counted yet, and how many.
    refusals: RefCell<BTreeMap<&'static str, u64>>,
    /// When a refusal was last said, and how many have not been since.
    remarked: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
    returned: mpsc::UnboundedSender<Returned>,
}

impl Door {
    /// A door at which nobody is awaited. Who is let in comes out of the receiver.
    pub(crate) fn new(
        path: &Path,
        secret: String,
        orphan_timeout: Duration,
    ) -> (Rc<Self>, mpsc::UnboundedReceiver<Returned>) {
        let (returned, received) = mpsc::unbounded_channel();
        let door = Self {
            path: path.to_owned(),
            secret,
            orphan_timeout,
            awaited: RefCell::default(),
            refusals: RefCell::default(),
            remarked: Cell::default(),
            unsaid: Cell::default(),
            returned,
        };
        (Rc::new(door), received)
    }

    /// What every worker is told.
    pub(crate) fn offer(&self) -> RejoinOffer {
        RejoinOffer {
            path: self.path.to_string_lossy().into_owned(),
            secret: self.secret.clone(),
            orphan_timeout_ms: u64::try_from(self.orphan_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// What workers have to show.
    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// Lets this process in when it comes.
    pub(crate) fn expect(&self, pid: i32, who: Awaited) {
        self.awaited.borrow_mut().insert(pid, who);
    }

    /// Lets it in no more.
    pub(crate) fn forget(&self, pid: i32) {
        self.awaited.borrow_mut().remove(&pid);
    }

    /// Those who have not come yet.
    pub(crate) fn absent(&self) -> Vec<i32> {
        self.awaited.borrow().keys().copied().collect()
    }

    /// The reasons of the refusals since the last call, and how many.
    pub(crate) fn take_refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refusals.take()
    }

    /// Hears whoever comes, for ever. Nobody waits for one that is not awaited: the kernel
    /// says who is at the other end before it says anything.
    pub(crate) async fn serve(self: Rc<Self>, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(HEARD_AT_ONCE));
        let for_strangers = Arc::new(Semaphore::new(STRANGERS_AT_ONCE));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!("cannot accept on {}: {error}", self.path.display());
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    continue;
                }
            };
            let (pid, uid) = match stream.peer_cred() {
                Ok(peer) => (peer.pid().unwrap_or(0), peer.uid()),
                Err(_) => (0, u32::MAX),
            };
            let (places, patience) = if self.awaits(pid, uid) {
                (&places, PATIENCE)
            } else {
                (&for_strangers, PATIENCE_WITH_STRANGERS)
            };
            let Ok(place) = Arc::clone(places).try_acquire_owned() else {
                self.note(&Refusal::new("stranger", "nobody awaits it"), pid, uid);
                continue;
            };
            let door = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                door.attend(stream, pid, uid, patience).await;
                drop(place);
            });
        }
    }

    /// Whether this process is awaited, as this user.
    fn awaits(&self, pid: i32, uid: u32) -> bool {
        let awaited = self.awaited.borrow();
        awaited.get(&pid).is_some_and(|who| who.uid == uid)
    }

    async fn attend(&self, stream: UnixStream, pid: i32, uid: u32, patience: Duration) {
        let watched = stream
            .into_std()
            .map(OwnedFd::from)
            .and_then(|fd| sys::watch_channel(SupervisorEnd::new(fd)));
        let Ok(mut channel) = watched else {
            return;
        };
        let heard = tokio::time::timeout(patience, self.hear(&mut channel, pid, uid)).await;
        let heard = heard.unwrap_or_else(|_| Err(Refusal::protocol("it did not say who it is")));
        match heard {
            Ok(Handed {
                rejoin,
                scoreboard,
                requests,
                listeners,
                outputs,
            }) => {
                let returned = Returned {
                    rejoin,
                    channel,
                    scoreboard,
                    requests,
                    listeners,
                    outputs,
                };
                // Nobody collects any more: it comes again and is refused.
                let _ = self.returned.send(returned);
            }
            Err(refusal) => self.refuse(channel.get_mut(), refusal, pid, uid),
        }
    }

    fn refuse(&self, channel: &mut SupervisorEnd, refusal: Refusal, pid: i32, uid: u32) {
        self.note(&refusal, pid, uid);
        let refused = ToWorker::Refused {
            reason: refusal.why,
        };
        // Who doesn't listen finds the connection closed.
        let _ = channel.queue(&refused).and_then(|()| channel.flush());
    }

    /// Counts a refusal, and says it where none was said a moment ago: anybody may come
    /// as often as they like.
    fn note(&self, Refusal { reason, why }: &Refusal, pid: i32, uid: u32) {
        *self.refusals.borrow_mut().entry(reason).or_default() += 1;
        let said = self.remarked.get();
        if said.is_some_and(|said| said.elapsed() < REMARKS) {
            self.unsaid.set(self.unsaid.get() + 1);
            return;
        }
        self.remarked.set(Some(Instant::now()));
        let others = match self.unsaid.take() {
            0 => String::new(),
            others => format!(" ({others} more since the last such line)"),
        };
        warn!(
            pid,
            uid, reason, "a worker that came to rejoin is refused: {why}{others}"
        );
    }

    async fn hear(
        &self,
        channel: &mut AsyncFd<SupervisorEnd>,
        pid: i32,
        uid: u32,
    ) -> Result<Handed, Refusal> {
        let ToSupervisor::Rejoin(rejoin) = next(channel).await?.0 else {
            return Err(Refusal::protocol("`rejoin` must come first"));
        };
        self.check(&rejoin, pid, uid)?;
        let mut scoreboard = None;
        if rejoin.scoreboard {
            match next(channel).await? {
                (ToSupervisor::Scoreboard(_), Some(fd)) => scoreboard = Some(fd),
                _ => return Err(Refusal::protocol("`scoreboard` must follow `rejoin`")),
            }
        }
        let mut requests = None;
        if rejoin.requests {
            match next(channel).await? {
                (ToSupervisor::Requests(_), Some(fd)) => requests = Some(fd),
                _ => return Err(Refusal::protocol("`requests` must follow `rejoin`")),
            }
        }
        let mut listeners = Vec::new();
        for _ in 0..rejoin.listeners {
            match next(channel).await? {
                (ToSupervisor::Listener(offer), Some(fd)) => listeners.push((offer, fd)),
                _ => return Err(Refusal::protocol("too few `listener` follow `rejoin`")),
            }
        }
        let mut outputs = Vec::new();
        for _ in 0..rejoin.outputs {
            match next(channel).await? {
                (ToSupervisor::Output(offer), Some(fd)) => outputs.push((offer.stream, fd)),
                _ => return Err(Refusal::protocol("too few `output` follow `rejoin`")),
            }
        }
        // Only now: one that is cut off in the middle may come again.
        if self.awaited.borrow_mut().remove(&pid).is_none() {
            return Err(Refusal::new("taken", "it is here already"));
        }
        Ok(Handed {
            rejoin,
            scoreboard,
            requests,
            listeners,
            outputs,
        })
    }

    fn check(&self, rejoin: &Rejoin, pid: i32, uid: u32) -> Result<(), Refusal> {
        if rejoin.protocol != PROTOCOL {
            let theirs = rejoin.protocol;
            let why = format!("it speaks protocol {theirs}, this supervisor {PROTOCOL}");
            return Err(Refusal::protocol(why));
        }
        if !equal(rejoin.secret.as_bytes(), self.secret.as_bytes()) {
            return Err(Refusal::new("secret", "its secret is wrong"));
        }
        if rejoin.pid != pid {
            let why = format!("it says it is process {}, and is {pid}", rejoin.pid);
            return Err(Refusal::new("peer", why));
        }
        if rejoin.listeners > MOST_LISTENERS {
            return Err(Refusal::protocol("it announces too many listeners"));
        }
        if rejoin.outputs > MOST_OUTPUTS {
            return Err(Refusal::protocol("it announces more outputs than it has"));
        }
        let name = format!("{}/{}", rejoin.pool, rejoin.slot);
        let awaited = self.awaited.borrow();
        let Some(who) = awaited.get(&pid) else {
            let why = format!("{name} is taken, or not awaited");
            return Err(Refusal::new("taken", why));
        };
        if who.uid != uid {
            let why = format!("it runs as user id {uid}, and {name} as {}", who.uid);
            return Err(Refusal::new("peer", why));
        }
        let same = who.pool == rejoin.pool
            && who.slot == rejoin.slot
            && who.incarnation == rejoin.incarnation;
        if !same {
            let why = format!("process {pid} is not the one that was in {name}");
            return Err(Refusal::new("taken", why));
        }
        Ok(())
    }
}

/// What a worker says and hands over.
struct Handed {
    rejoin: Rejoin,
    scoreboard: Option<OwnedFd>,
    requests: Option<OwnedFd>,
    listeners: Vec<(ListenerOffer, OwnedFd)>,
    outputs: Vec<(OutputStream, OwnedFd)>,
}

/// The next message, with its descriptor.
async fn next(
    channel: &mut AsyncFd<SupervisorEnd>,
) -> Result<(ToSupervisor, Option<OwnedFd>), Refusal> {
    loop {
        let received = channel
            .async_io_mut(Interest::READABLE, |channel| match channel.receive() {
                Ok(Receive::Blocked) => Err(std::io::ErrorKind::WouldBlock.into()),
                other => Ok(other),
            })
            .await;
        match received {
            Ok(Ok(Receive::Message(Received { message, fd }))) => return Ok((message, fd)),
            Ok(Ok(Receive::Unknown { .. } | Receive::Blocked)) => {}
            Ok(Ok(Receive::Closed)) => return Err(Refusal::protocol("it left")),
            Ok(Err(error)) => return Err(Refusal::protocol(error.to_string())),
            Err(error) => return Err(Refusal::protocol(error.to_string())),
        }
    }
}

/// Whether both are equal, in a time that does not depend on where they differ.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b));
    one.len() == other.len() && differences == 0
}
