//! The way of a worker whose supervisor is gone to the next one.

use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use prefork_proto::channel::WorkerEnd;
use prefork_proto::message::{
    Hello, OutputOffer, PROTOCOL, Rejoin, RejoinOffer, RejoinState, ScoreboardOffer, ToSupervisor,
    ToWorker, Welcome,
};
use prefork_proto::scoreboard::{ABI, BYTES};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::accept::accept_state::{Gate, State};
use crate::accept::listener::Listener;
use crate::app::context::Context;
use crate::channel::handshake::unknown;
use crate::channel::link::{Heard, Link};
use crate::error::WorkerError;
use crate::output::{End, Keeper};
use crate::process::Serving;

/// The longest wait before the second try, and before any of the later ones.
/// Up to half of a wait is left to chance, so that workers that became orphans
/// together don't come together.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// How long a supervisor may take to answer: it may wait for other workers first.
const ANSWER: Duration = Duration::from_secs(5);

/// What a worker shows and hands to the next supervisor, and where.
#[derive(Debug)]
pub(crate) struct Papers {
    pub(crate) offer: RejoinOffer,
    pub(crate) hello: Hello,
    pub(crate) context: Context,
    pub(crate) gate: Rc<Gate>,
    pub(crate) serving: &'static Serving,
    /// Owned by what accepts from them, which closes them when it is done.
    pub(crate) listeners: Vec<Weak<Listener>>,
    /// Of the reading ends of what this process prints to, if it has them.
    pub(crate) keeper: Option<&'static Keeper>,
}

/// What the next supervisor answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The link goes on as one that is past its `ready`.
    Welcome(Box<Link>, Box<Welcome>),
    /// It has no use for this worker; the text says why.
    Refused(String),
}

impl Papers {
    /// Tries until a supervisor answers, however long that takes; gives the
    /// papers back for the next time.
    pub(crate) async fn find_supervisor(self: Box<Self>) -> (Box<Self>, Answer) {
        let mut wait = FIRST_WAIT;
        loop {
            // Whatever was wrong, nothing is lost by another try.
            if let Ok(Ok(answer)) = timeout(ANSWER, self.knock()).await {
                return (self, answer);
            }
            if let Some(keeper) = self.keeper {
                keeper.let_go();
            }
            sleep(wait.mul_f64(1.0 - fastrand::f64() / 2.0)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn knock(&self) -> Result<Answer, WorkerError> {
        let stream = UnixStream::connect(&self.offer.path).await;
        let socket = stream.and_then(UnixStream::into_std);
        let socket = OwnedFd::from(socket.map_err(WorkerError::Rejoin)?);
        let mut link = Link::new(WorkerEnd::new(socket))?;
        if let Some(keeper) = self.keeper {
            // Before anyone can answer.
            keeper.ask(link.channel()).map_err(WorkerError::Rejoin)?;
        }
        self.show(&mut link)?;
        loop {
            match link.hear().await? {
                Heard::Message(ToWorker::Welcome(welcome), _) if welcome.protocol == PROTOCOL => {
                    return Ok(Answer::Welcome(Box::new(link), Box::new(welcome)));
                }
                Heard::Message(ToWorker::Welcome(welcome), _) => {
                    return Err(WorkerError::Protocol {
                        theirs: welcome.protocol,
                        ours: PROTOCOL,
                    });
                }
                Heard::Message(ToWorker::Refused { reason }, _) => {
                    return Ok(Answer::Refused(reason));
                }
                Heard::Message(message, _) => {
                    return Err(WorkerError::out_of_order("`welcome`", &message));
                }
                Heard::Unknown { kind, id } => {
                    if let Some(reply) = unknown(&kind, id) {
                        link.say(&reply)?;
                    }
                }
                Heard::Closed => return Err(WorkerError::ClosedEarly),
            }
        }
    }

    /// Says who this is, and hands over the scoreboard, the request table, the listeners
    /// and the reading ends of the output.
    fn show(&self, link: &mut Link) -> Result<(), WorkerError> {
        let memory = self.serving.tally.memory();
        let table = self.serving.request_table.as_ref();
        let listeners = self.listeners();
        let outputs = self.keeper.map(Keeper::duplicates).transpose();
        let outputs = outputs.map_err(WorkerError::Rejoin)?.unwrap_or_default();
        let rejoin = Rejoin {
            protocol: PROTOCOL,
            secret: self.offer.secret.clone(),
            pid: self.hello.pid,
            pool: self.context.pool().to_owned(),
            slot: self.context.slot(),
            generation: self.context.generation(),
            incarnation: self.context.incarnation(),
            program: self.hello.program.clone(),
            version: self.hello.version.clone(),
            capabilities: self.hello.capabilities.clone(),
            listeners: u32::try_from(listeners.len()).expect("fewer listeners than descriptors"),
            scoreboard: memory.is_some(),
            requests: table.is_some(),
            outputs: u32::try_from(outputs.len()).expect("there are two streams"),
            state: self.state(),
        };
        link.say(&ToSupervisor::Rejoin(rejoin))?;
        if let Some(memory) = memory {
            let offer = ScoreboardOffer {
                abi: ABI,
                bytes: BYTES,
                fds: 1,
            };
            let memory = memory.try_clone_to_owned().map_err(WorkerError::Rejoin)?;
            link.hand_over(&ToSupervisor::Scoreboard(offer), memory)?;
        }
        if let Some(table) = table {
            let memory = table.memory().try_clone_to_owned();
            let memory = memory.map_err(WorkerError::Rejoin)?;
            link.hand_over(&ToSupervisor::Requests(table.offer()), memory)?;
        }
        for listener in listeners {
            let fd = listener.duplicate().map_err(WorkerError::Rejoin)?;
            link.hand_over(&ToSupervisor::Listener(listener.offer()), fd)?;
        }
        for End { stream, pipe } in outputs {
            let offer = OutputOffer { stream, fds: 1 };
            link.hand_over(&ToSupervisor::Output(offer), pipe)?;
        }
        Ok(())
    }

    /// Those that another process can go on accepting from. A drain may be the
    /// last holder of its listeners, so it hands them over, too; but one that
    /// empties their queues has been told that they end with it.
    fn listeners(&self) -> Vec<Rc<Listener>> {
        match self.gate.state() {
            State::Open | State::Shut => self.listeners.iter().filter_map(Weak::upgrade).collect(),
            State::Sweeping | State::Retiring => Vec::new(),
        }
    }

    fn state(&self) -> RejoinState {
        if self.serving.drain.is_on() {
            RejoinState::Draining
        } else if self.gate.state() == State::Shut {
            RejoinState::Paused
        } else {
            RejoinState::Ready
        }
    }
}
