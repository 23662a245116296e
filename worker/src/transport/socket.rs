//! The socket under a connection: counts what goes over it, and knows how far a
//! client that speaks TLS has come with what it says.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, SockRef, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::process::{Entry, Serving};
use crate::transport::traffic::Traffic;

/// The socket's kind.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl Socket {
    /// A connection, watched by the runtime.
    ///
    /// # Errors
    /// As epoll_ctl(2) says.
    pub(crate) fn watched(connection: OwnedFd) -> io::Result<Self> {
        let domain = SockRef::from(&connection).domain()?;
        Ok(match domain {
            Domain::UNIX => Self::Unix(UnixStream::from_std(connection.into())?),
            _ => Self::Tcp(TcpStream::from_std(connection.into())?),
        })
    }

    /// The connection, which the runtime watches no more.
    ///
    /// # Errors
    /// As epoll_ctl(2) says.
    pub(crate) fn unwatched(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Tcp(socket) => socket.into_std()?.into(),
            Self::Unix(socket) => socket.into_std()?.into(),
        })
    }

    /// Waits until something can be read; whether the client sends nothing any more.
    async fn readable(&self) -> io::Result<bool> {
        let ready = match self {
            Self::Tcp(socket) => socket.ready(Interest::READABLE).await?,
            Self::Unix(socket) => socket.ready(Interest::READABLE).await?,
        };
        Ok(ready.is_read_closed())
    }

    /// Tries what would have to wait for more to read.
    fn try_read<R>(&self, attempt: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Tcp(socket) => socket.try_io(Interest::READABLE, attempt),
            Self::Unix(socket) => socket.try_io(Interest::READABLE, attempt),
        }
    }
}

/// Whether a descriptor is what a listener could have given.
pub(crate) fn is_connection(fd: &OwnedFd) -> bool {
    let socket = SockRef::from(fd);
    let is_stream = socket.r#type().is_ok_and(|it| it == Type::STREAM);
    let domain = socket.domain();
    let is_known = domain.is_ok_and(|it| [Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&it));
    let listens = socket.is_listener().unwrap_or(true);
    is_stream && is_known && !listens && socket.set_nonblocking(true).is_ok()
}

/// A connection's socket.
#[derive(Debug)]
pub(crate) struct Wire {
    // Before `socket`: the entry must be gone before the descriptor is.
    entry: Entry,
    socket: Socket,
    serving: &'static Serving,
    traffic: Arc<Traffic>,
    /// How far the client has come, where it speaks TLS.
    records: Option<Records>,
}

impl Wire {
    /// Takes an accepted socket in.
    pub(crate) fn new(socket: Socket, serving: &'static Serving, traffic: Arc<Traffic>) -> Self {
        let entry = serving.admit(socket.as_raw_fd());
        Self::of((socket, entry), serving, traffic)
    }

    /// Takes one in that has its entry.
    pub(crate) fn of(
        (socket, entry): (Socket, Entry),
        serving: &'static Serving,
        traffic: Arc<Traffic>,
    ) -> Self {
        Self {
            entry,
            socket,
            serving,
            traffic,
            records: None,
        }
    }

    /// The socket with its entry.
    pub(crate) fn into_parts(self) -> (Socket, Entry) {
        (self.socket, self.entry)
    }

    /// What comes is TLS from here on.
    pub(crate) fn expect_records(&mut self) {
        self.records = Some(Records::default());
    }

    /// Waits until what has come begins with something whole, and takes that away:
    /// as many bytes as `judge` says of all that is there, at most as many as `buffer`
    /// holds. What comes after it stays.
    ///
    /// # Errors
    /// Those of `judge`; UnexpectedEof where the client closes before; recv(2).
    pub(crate) async fn take_whole(
        &self,
        buffer: &mut [u8],
        mut judge: impl FnMut(&[u8]) -> io::Result<Option<usize>>,
    ) -> io::Result<()> {
        let fd = self.as_raw_fd();
        let length = loop {
            let is_closed = self.socket.readable().await?;
            let peeked = self.socket.try_read(|| {
                let there = recv(fd, buffer, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
                // What is not whole has to wait for more, as if nothing were there.
                judge(&buffer[..there])?.ok_or(io::ErrorKind::WouldBlock.into())
            });
            match peeked {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if is_closed => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(_) => {}
                Ok(length) => break length,
            }
        };
        // All of it is there.
        let taken = recv(fd, &mut buffer[..length], MsgFlags::MSG_DONTWAIT)?;
        self.serving.tally.received(taken as u64);
        match taken == length {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn read(&mut self, read: &[u8], at_end: bool) {
        if at_end {
            self.traffic.client_closes();
            return;
        }
        self.serving.tally.received(read.len() as u64);
        if let Some(records) = &mut self.records {
            records.take(read);
            self.traffic.set_within_record(records.are_within_one());
        }
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(written)) => {
                self.serving.tally.sent(*written as u64);
                self.traffic.sent_more(*written as u64);
                self.traffic.set_write_blocked(false);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.traffic.set_write_blocked(true),
        }
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

// In line with what the stream above makes of it: that is done for every request.
impl AsyncRead for Wire {
    #[inline(always)]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = match &mut this.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        };
        if let Poll::Ready(Ok(())) = result {
            let at_end = buf.filled().len() == before && buf.remaining() > 0;
            this.read(&buf.filled()[before..], at_end);
        }
        result
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match &mut this.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        };
        this.wrote(&result);
        result
    }

    #[inline(always)]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match &mut this.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bytes),
        };
        this.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket keeps nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// Bytes of a record's header: its type, a version, and the length of what
/// follows (RFC 8446, 5.1).
const HEADER: usize = 5;

/// Follows the records that a client sends, so that one whose end is still to
/// come is known: what is in it can't be read before, but it has begun.
#[derive(Debug, Default)]
struct Records {
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    begun: usize,
    /// Bytes of the record's content that are still to come.
    missing: usize,
}

impl Records {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(bytes.len());
                self.missing -= taken;
                bytes = &bytes[taken..];
                continue;
            }
            self.header[self.begun] = bytes[0];
            self.begun += 1;
            bytes = &bytes[1..];
            if self.begun == HEADER {
                self.begun = 0;
                let [.., high, low] = self.header;
                self.missing = usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }

    fn are_within_one(&self) -> bool {
        self.begun > 0 || self.missing > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_begun_until_its_last_byte() {
        let stream = [
            &[0x16, 3, 1, 0, 3, 1, 2, 3][..],
            // One without content, and one that is longer than 255 bytes.
            &[0x14, 3, 3, 0, 0],
            &[0x17, 3, 3, 1, 4],
            &[7; 260],
        ]
        .concat();
        let ends = [8, 13, 13 + 5 + 260];
        for piece in [1, 2, 3, 7, 300] {
            let mut records = Records::default();
            let mut taken = 0;
            for bytes in stream.chunks(piece) {
                records.take(bytes);
                taken += bytes.len();
                assert_eq!(records.are_within_one(), !ends.contains(&taken), "{taken}");
            }
        }
    }
}
