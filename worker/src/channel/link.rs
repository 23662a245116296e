//! The channel under the runtime: waits, where the channel itself never does.

use std::time::Duration;

use prefork_proto::channel::{Flush, Receive, WorkerEnd};
use prefork_proto::error::ChannelError;
use prefork_proto::message::{Reply, ToSupervisor, ToWorker};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::WorkerError;
use crate::sys;

/// How long to wait where there is no room for what is to be sent. A full
/// socket could tell when it has room again, but would then do so each time the
/// supervisor reads, and wake the worker for nothing.
const AGAIN: Duration = Duration::from_millis(20);

/// How long a worker that leaves waits for the supervisor to take its last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The worker's end of the channel. The supervisor is never waited for: what
/// it does not take is queued, and refused when the queue is full.
#[derive(Debug)]
pub(crate) struct Link {
    channel: AsyncFd<WorkerEnd>,
    /// When to try again what waits, if something does: the socket is full, or
    /// the kernel lacks memory or the like.
    again: Option<Instant>,
}

/// Something from the supervisor.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message, with the descriptor that it announces.
    Message(ToWorker, Option<OwnedFd>),
    /// A request of a type that this version does not know.
    Unknown { kind: String, id: Option<u64> },
    /// The supervisor's end is closed.
    Closed,
}

impl Link {
    pub(crate) fn new(channel: WorkerEnd) -> Result<Self, WorkerError> {
        Ok(Self {
            channel: sys::watch(channel).map_err(WorkerError::Watch)?,
            again: None,
        })
    }

    /// The socket.
    pub(crate) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.get_ref().as_fd()
    }

    /// Closes what this process was born with and the supervisor has not named.
    pub(crate) fn close_inherited(&mut self) {
        self.channel.get_mut().close_inherited();
    }

    /// Whether all that was said has been taken.
    pub(crate) fn is_clear(&self) -> bool {
        self.again.is_none()
    }

    /// Says something. What finds no room in the queue is dropped: the
    /// supervisor does not read, and learns by its own deadlines what it missed.
    ///
    /// # Errors
    /// The link is broken.
    pub(crate) fn say(&mut self, message: &ToSupervisor) -> Result<(), ChannelError> {
        match self.channel.get_mut().queue(message) {
            Err(error) if error.breaks_link() => return Err(error),
            Err(error) => {
                if let ToSupervisor::Reply(reply) = message
                    && matches!(
                        error,
                        ChannelError::TooLong { .. } | ChannelError::NotEncodable { .. }
                    )
                {
                    let reply = Reply::failed(reply.id, error.reason(), error.to_string());
                    return self.say(&ToSupervisor::Reply(reply));
                }
                return Ok(());
            }
            Ok(()) => {}
        }
        self.flush()
    }

    /// Says something that a descriptor goes with.
    ///
    /// # Errors
    /// The link is broken, or it can't be said.
    pub(crate) fn hand_over(
        &mut self,
        message: &ToSupervisor,
        fd: OwnedFd,
    ) -> Result<(), ChannelError> {
        self.channel.get_mut().queue_with_fd(message, fd)?;
        self.flush()
    }

    fn flush(&mut self) -> Result<(), ChannelError> {
        self.again = match self.channel.get_mut().flush() {
            Ok(Flush::Done) => None,
            Err(error) if error.breaks_link() => return Err(error),
            Ok(Flush::Blocked) | Err(_) => Some(Instant::now() + AGAIN),
        };
        Ok(())
    }

    /// The supervisor's next message; sends what waits meanwhile. Safe to cancel.
    ///
    /// # Errors
    /// The link is broken, or the supervisor broke the protocol.
    pub(crate) async fn hear(&mut self) -> Result<Heard, WorkerError> {
        loop {
            if let Some(heard) = heard(self.channel.get_mut().receive()?) {
                return Ok(heard);
            }
            // Kept between the calls, as most of them are cancelled before it.
            let again = self.again;
            let mut ready = tokio::select! {
                ready = self.channel.readable_mut() => ready.map_err(WorkerError::Watch)?,
                () = at(again) => {
                    self.flush()?;
                    continue;
                }
            };
            // Read once more before the readiness is given up, as input may
            // have come since the first try.
            match heard(ready.get_inner_mut().receive()?) {
                Some(heard) => return Ok(heard),
                None => ready.clear_ready(),
            }
        }
    }

    /// Takes leave for this reason, if there is anyone to take leave of.
    pub(crate) async fn farewell(&mut self, reason: String) {
        if self.say(&ToSupervisor::Bye { reason }).is_ok() {
            self.finish().await;
        }
    }

    /// Gives the supervisor a moment to take what was said last.
    pub(crate) async fn finish(&mut self) {
        let _ = timeout(LAST_WORDS, async {
            while !self.is_clear() {
                // What it still asks is too late; a broken link ends the wait.
                if let Err(_) | Ok(Heard::Closed) = self.hear().await {
                    return;
                }
            }
        })
        .await;
    }
}

/// Waits until then, or for ever.
pub(crate) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn heard(received: Receive<ToWorker>) -> Option<Heard> {
    match received {
        Receive::Message(received) => Some(Heard::Message(received.message, received.fd)),
        Receive::Unknown { kind, id } => Some(Heard::Unknown { kind, id }),
        Receive::Closed => Some(Heard::Closed),
        Receive::Blocked => None,
    }
}
