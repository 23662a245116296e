//! The sending half of a channel: a bounded queue of lines and their descriptors.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};

use crate::channel::parts::{LinePart, Octets, OutboxParts};
use crate::error::{Call, ChannelError, SystemError};
use crate::line::LINE_LIMIT;
use crate::message::Message;

/// The most bytes that wait to be sent on one channel.
pub const QUEUE_LIMIT: usize = 256 * 1024;

/// What the queue's memory returns to when it is empty.
const KEPT_BYTES: usize = 512;
const KEPT_LINES: usize = 4;

/// A line of which something is still to be sent.
struct Queued {
    /// Where it ends in the stream, with its newline.
    end: u64,
    /// The index of its `type`.
    kind: usize,
    /// Goes with the line's first bytes; gone as soon as any of them is sent.
    fd: Option<OwnedFd>,
}

/// Lines that wait to be sent.
pub(crate) struct Outbox {
    /// `bytes[sent..]` waits.
    bytes: Vec<u8>,
    sent: usize,
    /// The offset of `bytes[sent]` in the stream.
    position: u64,
    lines: VecDeque<Queued>,
}

/// The descriptor that belongs to a line.
pub(crate) enum Attached {
    /// None does.
    Nothing,
    /// This one goes with it.
    Fd(OwnedFd),
    /// The receiver was born with it, by this number.
    Inherited(RawFd),
}

/// What one send did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    /// Bytes that the kernel took.
    pub(crate) bytes: usize,
    /// Descriptors that it took with them.
    pub(crate) fds: u64,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            sent: 0,
            position: 0,
            lines: VecDeque::new(),
        }
    }

    /// What waits here; the descriptors stay here.
    pub(crate) fn parts<Out: Message>(&self) -> OutboxParts<RawFd> {
        let line = |line: &Queued| LinePart {
            end: line.end - self.position,
            kind: Out::KINDS[line.kind].to_owned(),
            fd: line.fd.as_ref().map(AsRawFd::as_raw_fd),
        };
        OutboxParts {
            bytes: Octets(self.bytes[self.sent..].to_vec()),
            lines: self.lines.iter().map(line).collect(),
        }
    }

    /// The descriptors that wait here.
    pub(crate) fn into_fds(self) -> impl Iterator<Item = OwnedFd> {
        self.lines.into_iter().filter_map(|line| line.fd)
    }

    /// Goes on with what waited elsewhere; the parts have been checked.
    pub(crate) fn from_parts<Out: Message>(parts: OutboxParts<OwnedFd>) -> Self {
        let line = |part: LinePart<OwnedFd>| Queued {
            end: part.end,
            kind: Out::index_of(&part.kind).expect("the parts have been checked"),
            fd: part.fd,
        };
        Self {
            bytes: parts.bytes.0,
            sent: 0,
            position: 0,
            lines: parts.lines.into_iter().map(line).collect(),
        }
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Puts a message at the end of the queue, or leaves the queue as it was.
    pub(crate) fn push<Out: Message>(
        &mut self,
        message: &Out,
        attached: Attached,
    ) -> Result<(), ChannelError> {
        let kind = message.kind();
        let given = u32::from(!matches!(attached, Attached::Nothing));
        let announced = message.fds();
        if announced != given {
            return Err(ChannelError::FdCount {
                kind,
                announced,
                given,
            });
        }
        self.compact();
        let before = self.bytes.len();
        let (fd, inherited) = match attached {
            Attached::Nothing => (None, None),
            Attached::Fd(fd) => (Some(fd), None),
            Attached::Inherited(number) => (None, Some(number)),
        };
        let written = self.write(message, inherited);
        let written = written.and_then(|()| self.check(kind, before));
        if written.is_err() {
            self.bytes.truncate(before);
            return written;
        }
        self.lines.push_back(Queued {
            end: self.position + self.len() as u64,
            kind: message.index(),
            fd,
        });
        Ok(())
    }

    fn write<Out: Message>(
        &mut self,
        message: &Out,
        inherited: Option<RawFd>,
    ) -> Result<(), ChannelError> {
        serde_json::to_writer(&mut self.bytes, message).map_err(|error| {
            ChannelError::NotEncodable {
                kind: message.kind(),
                detail: error.to_string(),
            }
        })?;
        if let Some(number) = inherited {
            // A message is an object with at least its type in it.
            self.bytes.pop();
            let field = format!(",\"inherited\":{number}}}");
            self.bytes.extend_from_slice(field.as_bytes());
        }
        self.bytes.push(b'\n');
        Ok(())
    }

    /// Checks the limits for a line that was written at `before`.
    fn check(&self, kind: &'static str, before: usize) -> Result<(), ChannelError> {
        let bytes = self.bytes.len() - before;
        if bytes > LINE_LIMIT {
            return Err(ChannelError::TooLong { kind, bytes });
        }
        if self.len() > QUEUE_LIMIT {
            let queued = before - self.sent;
            return Err(ChannelError::QueueFull {
                kind,
                bytes,
                queued,
            });
        }
        Ok(())
    }

    /// Sends as much as one call takes: a line with its descriptor by itself, or
    /// all that waits before the next such line. `None` when nothing waits.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>) -> Result<Option<Sent>, ChannelError> {
        let Some(first) = self.lines.front() else {
            return Ok(None);
        };
        let sent = match &first.fd {
            Some(fd) => {
                let line = &self.bytes[self.sent..][..self.until(first.end)];
                let bytes = send_with_fd(socket, line, fd)?;
                Sent { bytes, fds: 1 }
            }
            None => {
                let end = self.plain_end();
                let bytes = send_plain(socket, &self.bytes[self.sent..][..self.until(end)])?;
                Sent { bytes, fds: 0 }
            }
        };
        if sent.bytes > 0 {
            // The descriptor is on its way, even if only a part of the line is:
            // with the rest it would arrive a second time.
            if let Some(first) = self.lines.front_mut() {
                first.fd = None;
            }
        }
        self.sent += sent.bytes;
        self.position += sent.bytes as u64;
        Ok(Some(sent))
    }

    /// The next line that was sent whole, by the index of its `type`.
    pub(crate) fn next_sent(&mut self) -> Option<usize> {
        if self.lines.front()?.end > self.position {
            return None;
        }
        self.lines.pop_front().map(|line| line.kind)
    }

    /// Forgets what waits; its descriptors are closed.
    pub(crate) fn abandon(&mut self) {
        self.position += self.len() as u64;
        self.lines.clear();
        self.sent = self.bytes.len();
        self.compact();
    }

    /// Where the lines without a descriptor end, as an offset in the stream.
    fn plain_end(&self) -> u64 {
        let mut end = self.position;
        for line in self.lines.iter().take_while(|line| line.fd.is_none()) {
            end = line.end;
        }
        end
    }

    /// How many bytes wait before the offset `end` of the stream.
    fn until(&self, end: u64) -> usize {
        (end - self.position) as usize
    }

    /// Drops what was sent. The bytes that wait move only when as many were
    /// sent, so that a byte moves once on average.
    fn compact(&mut self) {
        if self.len() == 0 {
            self.bytes.clear();
            self.sent = 0;
            self.bytes.shrink_to(KEPT_BYTES);
            self.lines.shrink_to(KEPT_LINES);
        } else if self.sent >= self.len() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// Never waits, and a closed peer is an error instead of a SIGPIPE.
const FLAGS: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

fn send_plain(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, ChannelError> {
    taken(|| send(socket.as_raw_fd(), bytes, FLAGS))
}

fn send_with_fd(socket: BorrowedFd<'_>, bytes: &[u8], fd: &OwnedFd) -> Result<usize, ChannelError> {
    let fds = [fd.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    taken(|| {
        sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            &control,
            FLAGS,
            None,
        )
    })
}

/// How many bytes the kernel took; 0 when the socket is full.
fn taken(send: impl Fn() -> nix::Result<usize>) -> Result<usize, ChannelError> {
    loop {
        match send() {
            Ok(bytes) => return Ok(bytes),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(0),
            Err(errno) => return Err(ChannelError::Send(SystemError::new(Call::Sendmsg, errno))),
        }
    }
}
