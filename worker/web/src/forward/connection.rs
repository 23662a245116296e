//! Connections to the workers of a pool behind.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use prefork_worker::front::UpstreamAddress;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;

use super::body::Upload;

/// How long a connection may have been idle to be used again. It is less than any
/// program waits before it closes one, so that no request is sent into a connection that
/// is just being closed.
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// The most of a response's head.
const MAX_HEAD: usize = 64 << 10;

/// The most headers of a response.
const MAX_HEADERS: usize = 256;

/// The most that is read before the head of a response is there: interim responses, the
/// head itself, and what has come of the body with it. A program that sends interim
/// responses without end would keep everybody waiting for as long as they are parsed.
const MOST_BEFORE_HEAD: u64 = 1 << 20;

/// The socket of a connection.
#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

/// Connects to where a worker listens.
async fn connect(address: &UpstreamAddress) -> io::Result<Socket> {
    Ok(match address {
        UpstreamAddress::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
        UpstreamAddress::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Socket::Tcp(stream)
        }
    })
}

/// A connection to a worker; closed when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Upload>,
    wire: Arc<Wire>,
    _task: Task,
    /// Since when it is idle.
    since: Instant,
}

/// Ends the task that serves a connection, and the connection with it.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is to be known of a connection from outside.
#[derive(Debug)]
struct Wire {
    /// The socket, or -1 once it is closed.
    fd: AtomicI32,
    /// Bytes that the worker has sent.
    received: AtomicU64,
    /// How many they may become, while the head of a response is awaited.
    most: AtomicU64,
}

impl Wire {
    fn has_too_much(&self) -> bool {
        self.received.load(Relaxed) > self.most.load(Relaxed)
    }
}

impl Connection {
    /// Connects to a worker.
    ///
    /// # Errors
    /// What connect(2) says.
    pub(super) async fn open(address: &UpstreamAddress) -> io::Result<Self> {
        let socket = connect(address).await?;
        let wire = Arc::new(Wire {
            fd: AtomicI32::new(socket.as_raw_fd()),
            received: AtomicU64::new(0),
            most: AtomicU64::new(u64::MAX),
        });
        let watched = Watched {
            socket,
            wire: Arc::clone(&wire),
        };
        let (sender, connection) = Builder::new()
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(watched))
            .await
            .map_err(io::Error::other)?;
        let task = tokio::task::spawn_local(async move {
            // How it ends is told to whoever has sent a request on it.
            let _ = connection.with_upgrades().await;
        });
        Ok(Self {
            sender,
            wire,
            _task: Task(task.abort_handle()),
            since: Instant::now(),
        })
    }

    /// Bytes that the worker has sent on it so far.
    pub(super) fn received(&self) -> u64 {
        self.wire.received.load(Relaxed)
    }

    /// The head of a response is awaited.
    pub(super) fn await_head(&self) {
        let most = self.received().saturating_add(MOST_BEFORE_HEAD);
        self.wire.most.store(most, Relaxed);
    }

    /// The head is there: the body may be of any length.
    pub(super) fn await_body(&self) {
        self.wire.most.store(u64::MAX, Relaxed);
    }

    /// Whether more has come than may come before the head of a response.
    pub(super) fn has_too_much(&self) -> bool {
        self.wire.has_too_much()
    }

    /// It is idle from now on.
    pub(super) fn rest(&mut self) {
        self.since = Instant::now();
    }

    /// Whether a request may be sent on it: it is not closed, nothing has come on it
    /// that nobody asked for, and it has not been idle for long.
    pub(super) fn is_usable(&self) -> bool {
        self.sender.is_ready() && !self.is_stale() && self.is_silent()
    }

    /// Whether it has been idle for too long.
    pub(super) fn is_stale(&self) -> bool {
        self.since.elapsed() > IDLE || self.sender.is_closed()
    }

    fn is_silent(&self) -> bool {
        let fd = self.wire.fd.load(Relaxed);
        let look = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        fd >= 0 && recv(fd, &mut [0], look) == Err(Errno::EAGAIN)
    }
}

/// A socket of which is known what was received.
#[derive(Debug)]
struct Watched {
    socket: Socket,
    wire: Arc<Wire>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.wire.fd.store(-1, Relaxed);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.wire.has_too_much() {
            let why = "too much before the head of a response";
            return Poll::Ready(Err(io::Error::other(why)));
        }
        let before = buffer.filled().len();
        let read = match &mut self.socket {
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        let received = (buffer.filled().len() - before) as u64;
        self.wire.received.fetch_add(received, Relaxed);
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Neither socket keeps anything back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
