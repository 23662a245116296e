//! Accepting and serving HTTP/1.1 connections within bounds: on their number,
//! on the time a peer may take, and on the process's descriptors.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use super::answer::Answer;
use super::stall::Unstalled;
use crate::reserve::{Reserve, is_exhausted};

/// How long a peer may take to send a request's head, and how long a
/// connection may idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// `accept` fails at once for ever while descriptors are out: wait this long.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// What one server may take of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections served at a time; the rest wait in the kernel's queue.
    pub(crate) connections: usize,
    /// How long a peer may take nothing of what is written to it.
    pub(crate) stall: Duration,
}

/// A listening socket of either family.
pub(crate) trait Listen {
    /// What it accepts.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;

    /// The next connection.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Stream>>;
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        UnixListener::poll_accept(self, cx).map_ok(|(stream, _)| stream)
    }
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        TcpListener::poll_accept(self, cx).map_ok(|(stream, _)| stream)
    }
}

/// Serves every connection with the service that `service_for` makes for it;
/// where it makes none, the connection is closed. Runs on a `LocalSet`, until dropped.
pub(crate) async fn serve<L, S>(
    listener: L,
    reserve: Rc<Reserve>,
    bounds: Bounds,
    service_for: impl Fn(&L::Stream) -> Option<S>,
) -> Infallible
where
    L: Listen,
    S: Service<hyper::Request<Incoming>, Response = Answer, Error = Infallible> + 'static,
{
    let places = Arc::new(Semaphore::new(bounds.connections));
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (stream, lent) = accept(&listener, &reserve).await;
        let Some(service) = service_for(&stream) else {
            continue;
        };
        let reserve = Rc::clone(&reserve);
        spawn_local(async move {
            let io = TokioIo::new(Unstalled::new(stream, bounds.stall));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                // A borrowed descriptor goes back after one answer.
                .keep_alive(!lent)
                .serve_connection(io, service);
            // A peer that leaves or breaks HTTP concerns nobody but itself.
            let _ = connection.await;
            reserve.refill();
            drop(place);
        });
    }
}

/// The next connection, and whether the reserve paid for it.
async fn accept<L: Listen>(listener: &L, reserve: &Reserve) -> (L::Stream, bool) {
    loop {
        match poll_fn(|cx| poll_accept(listener, reserve, cx)).await {
            Ok(accepted) => return accepted,
            // The peer left the queue: there may be another one behind it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(EXHAUSTED_PAUSE).await,
        }
    }
}

fn poll_accept<L: Listen>(
    listener: &L,
    reserve: &Reserve,
    cx: &mut Context<'_>,
) -> Poll<io::Result<(L::Stream, bool)>> {
    match listener.poll_accept(cx) {
        // The kernel looks for a descriptor before it looks for a connection,
        // so that this comes even when nobody waits.
        Poll::Ready(Err(error)) if is_exhausted(&error) && reserve.lend() => {
            let second = listener.poll_accept(cx);
            if !matches!(second, Poll::Ready(Ok(_))) {
                reserve.refill();
            }
            second.map_ok(|stream| (stream, true))
        }
        first => first.map_ok(|stream| (stream, false)),
    }
}
