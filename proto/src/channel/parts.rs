//! A channel taken apart, so that another program in the same process goes on
//! with it: what was read and not handed out, and what is still to be sent.
//!
//! Descriptors are `Fd`: numbers in what is written down, owned in what is put
//! together again.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Channel, Message};
use crate::inbox::Inbox;
use crate::outbox::Outbox;

/// Everything that a [`Channel`] is, apart from its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts<Fd> {
    /// The connected socket.
    pub socket: Fd,
    /// What was received and not handed out.
    pub inbox: InboxParts<Fd>,
    /// What waits to be sent.
    pub outbox: OutboxParts<Fd>,
}

/// What was received and not handed out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxParts<Fd> {
    /// Whole lines and the beginning of one.
    pub bytes: Octets,
    /// Descriptors that no line has taken yet, the oldest first.
    pub arrivals: Vec<ArrivalPart<Fd>>,
    /// Whether nothing more will ever be received.
    pub closed: bool,
}

/// A descriptor that no line has taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivalPart<Fd> {
    /// The descriptor.
    pub fd: Fd,
    /// Where the bytes that it came with end at the latest, counted from the
    /// first of `bytes`.
    pub end: u64,
    /// Whether more of them may come with the next read.
    pub open: bool,
}

/// What waits to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxParts<Fd> {
    /// The lines, without what the kernel has taken of the first one.
    pub bytes: Octets,
    /// Each of them, in their order.
    pub lines: Vec<LinePart<Fd>>,
}

/// A line that waits to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinePart<Fd> {
    /// Where it ends, with its newline, counted from the first of `bytes`.
    pub end: u64,
    /// Its `type`.
    pub kind: String,
    /// Its descriptor; gone as soon as any byte of the line is sent.
    pub fd: Option<Fd>,
}

/// Why parts don't make a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// A queued line is of a `type` that this version can't send.
    #[error("a line of type {kind:?} waits to be sent, which this version does not know")]
    UnknownKind {
        /// The type.
        kind: String,
    },
    /// The lines' ends do not cover the bytes.
    #[error("the lines that wait to be sent end at {ends:?} of {bytes} bytes")]
    Lines {
        /// Where each line ends.
        ends: Vec<u64>,
        /// How many bytes wait.
        bytes: usize,
    },
    /// More was buffered than a channel ever holds.
    #[error("{bytes} bytes were buffered, more than a channel holds")]
    TooLong {
        /// How many.
        bytes: usize,
    },
}

/// Bytes that are text for the most part. In JSON each byte is the character
/// of that number, so that a document stays short and readable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Octets(pub Vec<u8>);

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|byte| char::from(*byte)).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        bytes
            .map(Self)
            .map_err(|_| serde::de::Error::custom("a character above U+00FF stands for no byte"))
    }
}

impl<Fd> Parts<Fd> {
    /// The same with other descriptors: each is passed through `change` once.
    ///
    /// # Errors
    /// The first error of `change`.
    pub fn try_map<To, E>(
        self,
        mut change: impl FnMut(Fd) -> Result<To, E>,
    ) -> Result<Parts<To>, E> {
        let socket = change(self.socket)?;
        let mut arrivals = Vec::new();
        for ArrivalPart { fd, end, open } in self.inbox.arrivals {
            let fd = change(fd)?;
            arrivals.push(ArrivalPart { fd, end, open });
        }
        let mut lines = Vec::new();
        for LinePart { end, kind, fd } in self.outbox.lines {
            let fd = fd.map(&mut change).transpose()?;
            lines.push(LinePart { end, kind, fd });
        }
        Ok(Parts {
            socket,
            inbox: InboxParts {
                bytes: self.inbox.bytes,
                arrivals,
                closed: self.inbox.closed,
            },
            outbox: OutboxParts {
                bytes: self.outbox.bytes,
                lines,
            },
        })
    }

    /// Every descriptor.
    pub fn fds(&self) -> impl Iterator<Item = &Fd> {
        let arrivals = self.inbox.arrivals.iter().map(|arrival| &arrival.fd);
        let lines = self.outbox.lines.iter();
        std::iter::once(&self.socket)
            .chain(arrivals)
            .chain(lines.filter_map(|line| line.fd.as_ref()))
    }
}

impl<Out: Message, In: Message> Channel<Out, In> {
    /// What there is of this channel, with its descriptors by number. They stay
    /// the channel's own.
    pub fn parts(&self) -> Parts<RawFd> {
        Parts {
            socket: self.socket.as_raw_fd(),
            inbox: self.inbox.parts(),
            outbox: self.outbox.parts::<Out>(),
        }
    }

    /// The channel taken apart, to be put together again by [`Self::from_parts`].
    pub fn into_parts(self) -> Parts<OwnedFd> {
        let parts = self.parts();
        let fds = self.inbox.into_fds().chain(self.outbox.into_fds());
        let fds = fds.chain([self.socket]);
        let mut owned: HashMap<RawFd, OwnedFd> = fds.map(|fd| (fd.as_raw_fd(), fd)).collect();
        let take = |number| owned.remove(&number).ok_or(number);
        parts
            .try_map(take)
            .expect("every descriptor is the channel's own and has its own number")
    }

    /// A channel that goes on where another was taken apart. Its counters begin
    /// at 0, but for a line that was partly sent: that is counted here.
    ///
    /// # Errors
    /// [`PartsError`] where the parts are of no channel of this version; their
    /// descriptors are then closed.
    pub fn from_parts(parts: Parts<OwnedFd>) -> Result<Self, PartsError> {
        check::<Out, _>(&parts)?;
        let mut channel = Self::new(parts.socket);
        channel.inbox = Inbox::from_parts(parts.inbox);
        channel.outbox = Outbox::from_parts::<Out>(parts.outbox);
        Ok(channel)
    }
}

/// Whether the parts are of a channel that sends `Out`.
///
/// # Errors
/// [`PartsError`].
pub fn check<Out: Message, Fd>(parts: &Parts<Fd>) -> Result<(), PartsError> {
    for (bytes, limit) in [
        (parts.inbox.bytes.0.len(), super::LINE_LIMIT),
        (parts.outbox.bytes.0.len(), super::QUEUE_LIMIT),
    ] {
        if bytes > limit {
            return Err(PartsError::TooLong { bytes });
        }
    }
    let lines = &parts.outbox.lines;
    for line in lines {
        if !Out::KINDS.contains(&line.kind.as_str()) {
            let kind = line.kind.clone();
            return Err(PartsError::UnknownKind { kind });
        }
    }
    let bytes = parts.outbox.bytes.0.len();
    let ends: Vec<u64> = lines.iter().map(|line| line.end).collect();
    let grow = ends.windows(2).all(|pair| pair[0] < pair[1]);
    let whole = ends.last().copied().unwrap_or(0) == bytes as u64;
    if !grow || !whole || ends.first() == Some(&0) {
        return Err(PartsError::Lines { ends, bytes });
    }
    Ok(())
}
