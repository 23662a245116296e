//! One end of the link between a supervisor and a worker.

mod environment;
mod in_flight;
pub mod parts;

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

pub use crate::error::ChannelError;
pub use in_flight::has_room_in_flight;

pub use crate::line::LINE_LIMIT;
pub use crate::outbox::QUEUE_LIMIT;

use crate::error::{Call, SystemError};
use crate::inbox::{Fill, Inbox};
use crate::line::{self, Line};
use crate::message::{Message, ToSupervisor, ToWorker};
use crate::outbox::{Attached, Outbox};

/// One end of a channel, which sends `Out` and receives `In`.
///
/// No call but [`Self::wait`] ever blocks, whether or not the socket is in
/// non-blocking mode. Under an async runtime's edge-triggered readiness, call
/// [`Self::receive`] until it says [`Receive::Blocked`] and [`Self::flush`] when
/// the socket is writable until it says [`Flush::Done`].
pub struct Channel<Out, In> {
    socket: OwnedFd,
    outbox: Outbox,
    inbox: Inbox,
    /// What this process was born with for lines to come.
    inherited: Vec<OwnedFd>,
    counters: Counters,
    direction: PhantomData<fn(Out) -> In>,
}

/// The supervisor's end.
pub type SupervisorEnd = Channel<ToWorker, ToSupervisor>;

/// The worker's end.
pub type WorkerEnd = Channel<ToSupervisor, ToWorker>;

/// What [`Channel::receive`] found.
#[derive(Debug)]
pub enum Receive<M> {
    /// A message.
    Message(Received<M>),
    /// A message of a `type` that this version does not know. Its descriptors
    /// are closed. With an `id` it wants an error as its reply.
    Unknown {
        /// The start of its `type`, without control characters.
        kind: String,
        /// The `id` for the reply.
        id: Option<u64>,
    },
    /// Nothing more for now: the socket is empty.
    Blocked,
    /// Nothing more ever: the other side has closed its end, or an earlier call failed.
    Closed,
}

/// A message, and what came with it.
#[derive(Debug)]
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// The descriptor that it announces, close-on-exec. It is there if and only
    /// if the message's `type` carries one.
    pub fd: Option<OwnedFd>,
}

/// How far [`Channel::flush`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Nothing waits to be sent.
    Done,
    /// The socket is full: call again when it is writable.
    Blocked,
}

/// What has gone over one end of a channel since it was made. All of it only grows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that the kernel took.
    pub sent_bytes: u64,
    /// Bytes that the kernel gave.
    pub received_bytes: u64,
    /// Descriptors sent.
    pub fds_sent: u64,
    /// Descriptors received with a message that carries one.
    pub fds_received: u64,
    /// Descriptors received and closed: unannounced, or of an unknown message.
    pub fds_rejected: u64,
    /// Messages sent whole, by the index of their `type` in `Out::KINDS`.
    pub sent: Vec<u64>,
    /// Messages received, by the index of their `type` in `In::KINDS`; the
    /// entry after the last is for unknown ones.
    pub received: Vec<u64>,
}

/// Makes a channel: the supervisor's end, and the socket that is to become the
/// worker's. Both are close-on-exec.
///
/// # Errors
/// [`ChannelError::Pair`] with what the kernel lacks.
pub fn pair() -> Result<(SupervisorEnd, OwnedFd), ChannelError> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
        .map_err(|errno| ChannelError::Pair(SystemError::new(Call::Socketpair, errno)))?;
    Ok((Channel::new(ours), theirs))
}

impl<Out: Message, In: Message> Channel<Out, In> {
    /// A channel on a connected unix stream socket.
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            socket: fd,
            outbox: Outbox::new(),
            inbox: Inbox::new(),
            inherited: Vec::new(),
            counters: Counters {
                sent: vec![0; Out::KINDS.len()],
                received: vec![0; In::KINDS.len() + 1],
                ..Counters::default()
            },
            direction: PhantomData,
        }
    }

    /// Gives the socket back. What is queued or buffered is lost.
    pub fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// Puts a message at the end of the queue; [`Self::flush`] sends it.
    ///
    /// # Errors
    /// [`QueueFull`](ChannelError::QueueFull), [`TooLong`](ChannelError::TooLong),
    /// [`NotEncodable`](ChannelError::NotEncodable), or
    /// [`FdCount`](ChannelError::FdCount) for a message that announces a
    /// descriptor. The queue is then as it was.
    pub fn queue(&mut self, message: &Out) -> Result<(), ChannelError> {
        self.outbox.push(message, Attached::Nothing)
    }

    /// Puts a message and the descriptor that it announces at the end of the
    /// queue. The descriptor is closed here once it has been sent.
    ///
    /// # Errors
    /// As [`Self::queue`]; `fd` is then closed.
    pub fn queue_with_fd(&mut self, message: &Out, fd: OwnedFd) -> Result<(), ChannelError> {
        self.outbox.push(message, Attached::Fd(fd))
    }

    /// Puts a message at the end of the queue whose descriptor the other side was born
    /// with, by this number. Only to a worker with the capability
    /// [`INHERIT`](crate::capability::INHERIT).
    ///
    /// # Errors
    /// As [`Self::queue`].
    pub fn queue_inherited(&mut self, message: &Out, number: RawFd) -> Result<(), ChannelError> {
        self.outbox.push(message, Attached::Inherited(number))
    }

    /// Bytes that wait to be sent, at most [`QUEUE_LIMIT`].
    pub fn queued_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// Sends what is queued, as far as the socket takes it.
    ///
    /// # Errors
    /// [`ChannelError::Send`]. Where [`ChannelError::breaks_link`] says no, all
    /// stays queued: call again after a short time. Else the queue is dropped;
    /// what the other side sent before can still be received.
    pub fn flush(&mut self) -> Result<Flush, ChannelError> {
        loop {
            let sent = match self.outbox.send(self.socket.as_fd()) {
                Ok(Some(sent)) if sent.bytes == 0 => return Ok(Flush::Blocked),
                Ok(Some(sent)) => sent,
                Ok(None) => return Ok(Flush::Done),
                Err(error) => {
                    if error.breaks_link() {
                        self.outbox.abandon();
                    }
                    return Err(error);
                }
            };
            self.counters.sent_bytes += sent.bytes as u64;
            self.counters.fds_sent += sent.fds;
            while let Some(kind) = self.outbox.next_sent() {
                self.counters.sent[kind] += 1;
            }
        }
    }

    /// The next message. Lines that are already buffered come before the socket
    /// is read again.
    ///
    /// # Errors
    /// The other side broke a rule of the protocol, or the kernel failed. The
    /// link is broken for good: everything received and not yet handed out is
    /// dropped, its descriptors are closed, and every later call says
    /// [`Receive::Closed`].
    pub fn receive(&mut self) -> Result<Receive<In>, ChannelError> {
        if self.inbox.is_closed() {
            return Ok(Receive::Closed);
        }
        let received = self.next_line_or_bytes();
        if received.is_err() {
            self.counters.fds_rejected += self.inbox.abandon() as u64;
        }
        received
    }

    /// Whether the next [`Self::receive`] would say [`Receive::Blocked`], going by
    /// the last read: what comes later is announced by an edge. It spares the
    /// call that only finds an empty socket.
    pub fn is_drained(&self) -> bool {
        self.inbox.is_drained()
    }

    fn next_line_or_bytes(&mut self) -> Result<Receive<In>, ChannelError> {
        loop {
            if let Some(line) = self.inbox.next_line(line::parse::<In>) {
                return self.settle(line?);
            }
            let received_bytes = &mut self.counters.received_bytes;
            match self.inbox.fill(self.socket.as_fd(), received_bytes)? {
                Fill::Bytes => {}
                Fill::Blocked => return Ok(Receive::Blocked),
                Fill::Closed => return Ok(Receive::Closed),
            }
        }
    }

    /// Gives a line its descriptors and counts both.
    fn settle(&mut self, line: Line<In>) -> Result<Receive<In>, ChannelError> {
        match line {
            Line::Known {
                message,
                kind,
                fds,
                inherited,
            } => {
                let fd = match inherited {
                    None => self.inbox.claim(fds, In::KINDS[kind])?,
                    Some(number) => {
                        self.inbox.claim(0, In::KINDS[kind])?;
                        Some(self.inherited(number)?)
                    }
                };
                self.counters.fds_received += u64::from(fd.is_some());
                self.counters.received[kind] += 1;
                Ok(Receive::Message(Received { message, fd }))
            }
            Line::Unknown { kind, id, fds } => {
                let fd = self.inbox.claim(fds, &kind)?;
                self.counters.fds_rejected += u64::from(fd.is_some());
                self.counters.received[In::KINDS.len()] += 1;
                Ok(Receive::Unknown { kind, id })
            }
        }
    }

    /// Closes what this process was born with and no line has named.
    pub fn close_inherited(&mut self) {
        self.inherited = Vec::new();
    }

    /// Takes a descriptor out of those that this process was born with.
    fn inherited(&mut self, number: RawFd) -> Result<OwnedFd, ChannelError> {
        let place = self
            .inherited
            .iter()
            .position(|fd| fd.as_raw_fd() == number);
        let place = place.ok_or_else(|| ChannelError::BadField {
            detail: format!("`inherited` is {number}, which was not handed down"),
        })?;
        Ok(self.inherited.swap_remove(place))
    }

    /// Waits until there is something to receive, or, if `for_writing`, until
    /// the socket takes more to send; `false` if neither came in `timeout`. A
    /// caller that does not receive what is there is not kept waiting.
    ///
    /// # Errors
    /// [`ChannelError::Wait`].
    pub fn wait(&self, for_writing: bool, timeout: Duration) -> Result<bool, ChannelError> {
        if self.inbox.is_closed() || self.inbox.has_line() {
            return Ok(true);
        }
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, for_writing);
        let begun = Instant::now();
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            match poll(
                &mut [PollFd::new(self.socket.as_fd(), events)],
                milliseconds(left),
            ) {
                Ok(ready) if ready > 0 => return Ok(true),
                Ok(_) if begun.elapsed() >= timeout => return Ok(false),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(ChannelError::Wait(SystemError::new(Call::Poll, errno))),
            }
        }
    }

    /// What has gone over this end so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// Rounded up, so that the last part of a millisecond is not spent spinning;
/// what is longer than poll can wait is waited for in parts.
fn milliseconds(left: Duration) -> PollTimeout {
    let rounded = left.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(rounded).unwrap_or(PollTimeout::MAX)
}

impl<Out, In> AsFd for Channel<Out, In> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<Out, In> AsRawFd for Channel<Out, In> {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl<Out, In> fmt::Debug for Channel<Out, In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("socket", &self.socket)
            .field("queued_bytes", &self.outbox.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
