//! The receiving half of a channel: bytes into lines, and descriptors to the
//! lines that announce them.
//!
//! The kernel ends a `recvmsg` with the segment that carries descriptors, so
//! the bytes of that read may begin with earlier segments but end with the one
//! that the descriptor came with, or inside it if the buffer was full. A
//! descriptor therefore belongs to a line that overlaps the read, or overlaps the
//! rest of the segment. A line is looked for before each read, so the oldest
//! descriptor can only be for this line or a later one: a line that announces one
//! takes it, and one whose bytes all lie in finished lines has been announced by none.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;

use crate::channel::parts::{ArrivalPart, InboxParts, Octets};
use crate::error::{Call, ChannelError, SystemError};
use crate::line::{FDS_PER_LINE, LINE_LIMIT};
use crate::sys;

/// What the buffer starts with and returns to: room for a few ordinary lines,
/// and little enough for a thousand channels.
const SMALL_BUFFER: usize = 1024;

/// A descriptor that no line has taken yet.
struct Arrival {
    fd: OwnedFd,
    /// Where the bytes that it came with end, at the latest, as an offset in the stream.
    end: u64,
    /// Whether more of them may still come, with the next read.
    open: bool,
}

/// What was read and not yet handed out.
pub(crate) struct Inbox {
    /// Initialized throughout; `start..end` is what waits in it.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// No newline lies in `start..scanned`.
    scanned: usize,
    /// The offset of `buffer[start]` in the stream.
    position: u64,
    arrivals: VecDeque<Arrival>,
    closed: bool,
    /// The last read took all that the socket had.
    drained: bool,
}

/// How a read from the socket went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Bytes came.
    Bytes,
    /// Nothing is there yet.
    Blocked,
    /// The other side has closed its end, between two lines.
    Closed,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            scanned: 0,
            position: 0,
            arrivals: VecDeque::new(),
            closed: false,
            drained: false,
        }
    }

    /// What waits here; the descriptors stay here.
    pub(crate) fn parts(&self) -> InboxParts<RawFd> {
        let number = |arrival: &Arrival| ArrivalPart {
            fd: arrival.fd.as_raw_fd(),
            end: arrival.end.saturating_sub(self.position),
            open: arrival.open,
        };
        InboxParts {
            bytes: Octets(self.buffer[self.start..self.end].to_vec()),
            arrivals: self.arrivals.iter().map(number).collect(),
            closed: self.closed,
        }
    }

    /// The descriptors that wait here.
    pub(crate) fn into_fds(self) -> impl Iterator<Item = OwnedFd> {
        self.arrivals.into_iter().map(|arrival| arrival.fd)
    }

    /// Goes on with what waited elsewhere.
    pub(crate) fn from_parts(parts: InboxParts<OwnedFd>) -> Self {
        let arrival = |part: ArrivalPart<OwnedFd>| Arrival {
            fd: part.fd,
            end: part.end,
            // A read ends with its segment or with the buffer; that this
            // buffer has another size changes nothing for what has come.
            open: part.open,
        };
        let buffer = parts.bytes.0;
        Self {
            start: 0,
            end: buffer.len(),
            scanned: 0,
            buffer,
            position: 0,
            arrivals: parts.arrivals.into_iter().map(arrival).collect(),
            closed: parts.closed,
            drained: false,
        }
    }

    /// Whether neither a line waits nor anything in the socket, at the time of
    /// the last read. A read ends early only where the socket is empty or with
    /// the segment that carries descriptors.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained && !self.has_line()
    }

    /// Whether nothing more will ever be received.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Where the next line lies in the buffer, without its newline, if all of it is there.
    fn find_line(&self) -> Option<std::ops::Range<usize>> {
        let newline = memchr::memchr(b'\n', &self.buffer[self.scanned..self.end])?;
        Some(self.start..self.scanned + newline)
    }

    /// Whether a whole line waits.
    pub(crate) fn has_line(&self) -> bool {
        self.find_line().is_some()
    }

    /// Takes the next whole line out, has `read` make something of its bytes,
    /// and returns that. Afterwards [`Self::claim`] settles its descriptors.
    pub(crate) fn next_line<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let Some(line) = self.find_line() else {
            self.scanned = self.end;
            return None;
        };
        let after = line.end + 1;
        self.position += (after - line.start) as u64;
        let made = read(&self.buffer[line]);
        self.start = after;
        self.scanned = after;
        if self.start == self.end {
            self.reset();
        }
        Some(made)
    }

    /// Takes the descriptor of the line that was just read, if it announces one.
    pub(crate) fn claim(
        &mut self,
        announced: u32,
        kind: &str,
    ) -> Result<Option<OwnedFd>, ChannelError> {
        let mut claimed = None;
        if announced > 0 {
            claimed = self.arrivals.pop_front().map(|arrival| arrival.fd);
            if claimed.is_none() {
                return Err(ChannelError::FdsMissing { kind: kind.into() });
            }
        }
        self.none_behind()?;
        Ok(claimed)
    }

    /// Checks that no descriptor lies wholly behind what has been handed out.
    fn none_behind(&self) -> Result<(), ChannelError> {
        let behind = |arrival: &&Arrival| !arrival.open && arrival.end <= self.position;
        match self.arrivals.iter().take_while(behind).count() {
            0 => Ok(()),
            fds => Err(ChannelError::FdsUnclaimed { fds }),
        }
    }

    /// Reads once from the socket. No whole line may be waiting.
    pub(crate) fn fill(
        &mut self,
        socket: BorrowedFd<'_>,
        received: &mut u64,
    ) -> Result<Fill, ChannelError> {
        self.make_room()?;
        let read = loop {
            match sys::receive(socket, &mut self.buffer[self.end..]) {
                Ok(read) => break read,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.arrive(Vec::new(), false);
                    self.none_behind()?;
                    return Ok(Fill::Blocked);
                }
                // The peer died with unread input. What it had sent has been read
                // by now, and the end of the stream follows: this is it.
                Err(Errno::ECONNRESET) => return self.end_of_stream(),
                Err(errno) => {
                    return Err(ChannelError::Receive(SystemError::new(
                        Call::Recvmsg,
                        errno,
                    )));
                }
            }
        };
        *received += read.bytes as u64;
        self.end += read.bytes;
        let arrived = read.fds.len();
        self.drained = arrived == 0 && read.bytes > 0 && self.end < self.buffer.len();
        self.arrive(read.fds, self.end == self.buffer.len());
        if read.fds_lost {
            return Err(ChannelError::FdsTruncated { arrived });
        }
        if arrived > FDS_PER_LINE as usize {
            return Err(ChannelError::FdsUnclaimed { fds: arrived });
        }
        if read.bytes == 0 {
            return self.end_of_stream();
        }
        Ok(Fill::Bytes)
    }

    /// Notes what came with a read that ends where the buffer now does. A read
    /// that filled the buffer may have ended inside its last segment.
    fn arrive(&mut self, fds: Vec<OwnedFd>, full: bool) {
        let end = self.position + (self.end - self.start) as u64;
        if let Some(last) = self.arrivals.back_mut()
            && last.open
        {
            last.end = end;
            last.open = full && fds.is_empty();
        }
        let arrivals = fds.into_iter().map(|fd| Arrival {
            fd,
            end,
            open: full,
        });
        self.arrivals.extend(arrivals);
    }

    fn end_of_stream(&mut self) -> Result<Fill, ChannelError> {
        self.closed = true;
        self.arrive(Vec::new(), false);
        match self.end - self.start {
            0 => self.none_behind().map(|()| Fill::Closed),
            bytes => Err(ChannelError::Truncated { bytes }),
        }
    }

    /// Gives up: forgets what waits and returns how many descriptors were closed with it.
    pub(crate) fn abandon(&mut self) -> usize {
        self.closed = true;
        self.reset();
        self.arrivals.drain(..).count()
    }

    /// Makes room for at least one byte more of a line that is not complete,
    /// unless the line is longer than a line may be already.
    fn make_room(&mut self) -> Result<(), ChannelError> {
        // Every descriptor but an open one belongs to the one incomplete line, so
        // a peer that sends them byte by byte ends here and not at RLIMIT_NOFILE.
        let waiting = self.arrivals.iter().filter(|a| !a.open).count();
        if waiting > FDS_PER_LINE as usize {
            return Err(ChannelError::FdsUnclaimed { fds: waiting });
        }
        if self.end < self.buffer.len() {
            return Ok(());
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.scanned -= self.start;
            self.end -= self.start;
            self.start = 0;
        } else if self.end == LINE_LIMIT {
            return Err(ChannelError::LineTooLong);
        } else {
            let size = (self.buffer.len() * 2).clamp(SMALL_BUFFER, LINE_LIMIT);
            self.buffer.resize(size, 0);
        }
        Ok(())
    }

    /// Back to the start of the buffer, and to a small one after a long line.
    fn reset(&mut self) {
        self.start = 0;
        self.end = 0;
        self.scanned = 0;
        if self.buffer.len() > SMALL_BUFFER {
            self.buffer.truncate(SMALL_BUFFER);
            self.buffer.shrink_to_fit();
        }
    }
}
