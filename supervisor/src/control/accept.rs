//! Accepting and serving HTTP/1.1 connections within bounds: on their number,
//! on the time a peer may take, and on the process's descriptors.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::answer::{Answer, Payload};
use super::gate::Gate;
use super::places::{Place, Places, Sent, sent};
use super::stall::Unstalled;
use crate::kernel::fd_reserve::{Loan, Reserve, is_exhausted};

/// How long a peer may take to send a request's head, and how long a
/// connection may idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// `accept` fails at once for ever while descriptors are out: wait this long.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// What one server may take of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections served at a time. One more takes the place of one that only holds it, or
    /// waits in the kernel's queue.
    pub(crate) connections: usize,
    /// How long a peer may take nothing of what is written to it.
    pub(crate) stall: Duration,
    /// How long an answer may take before its connection may go for another one; `None`
    /// for as long as it takes.
    pub(crate) slow: Option<Duration>,
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
    gate: Gate,
    service_for: impl Fn(&L::Stream) -> Option<S>,
) -> Infallible
where
    L: Listen,
    S: Service<hyper::Request<Incoming>, Response = Answer, Error = Infallible> + 'static,
    S::Future: 'static,
{
    let places = Places::new(bounds.connections, bounds.slow);
    loop {
        gate.opened().await;
        // Nobody goes for a place that nobody wants.
        let accepted = tokio::select! {
            accepted = accept(&listener, &reserve) => Some(accepted),
            () = gate.closed() => None,
        };
        let Some((stream, loan)) = accepted else {
            continue;
        };
        let Some(service) = service_for(&stream) else {
            continue;
        };
        places.room().await;
        let place = Rc::new(places.take());
        // While descriptors are short, each connection gives its own back
        // after one answer.
        let keep_alive = !reserve.is_lending();
        let (visitor, gate) = (gate.enter(), gate.clone());
        let asked = Rc::new(Notify::new());
        let noted = Noted {
            service,
            asked: Rc::clone(&asked),
            place: Rc::clone(&place),
        };
        spawn_local(async move {
            let io = TokioIo::new(Unstalled::new(stream, bounds.stall));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(keep_alive)
                .serve_connection(io, noted);
            // A peer that leaves or breaks HTTP concerns nobody but itself.
            let mut connection = pin!(connection);
            let served = async {
                let ended = tokio::select! {
                    _ = connection.as_mut() => true,
                    () = gate.closed() => false,
                };
                if !ended {
                    // One that has only just connected is still answered.
                    tokio::select! {
                        _ = connection.as_mut() => {}
                        () = asked.notified() => {
                            connection.as_mut().graceful_shutdown();
                            let _ = connection.await;
                        }
                    }
                }
            };
            tokio::select! {
                () = served => {}
                () = place.told_to_go() => {}
            }
            drop((loan, place, visitor));
        });
    }
}

/// A service that notes whether it was ever asked.
struct Noted<S> {
    service: S,
    asked: Rc<Notify>,
    place: Rc<Place>,
}

impl<S> Service<hyper::Request<Incoming>> for Noted<S>
where
    S: Service<hyper::Request<Incoming>, Response = Answer, Error = Infallible>,
    S::Future: 'static,
{
    type Response = hyper::Response<Sent<Payload>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        // Kept for whoever looks later.
        self.asked.notify_one();
        Box::pin(sent(self.place.answer(), self.service.call(request)))
    }
}

/// The next connection, and what the reserve lent for it.
async fn accept<L: Listen>(listener: &L, reserve: &Rc<Reserve>) -> (L::Stream, Option<Loan>) {
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
    reserve: &Rc<Reserve>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<(L::Stream, Option<Loan>)>> {
    match listener.poll_accept(cx) {
        // The kernel looks for a descriptor before it looks for a connection,
        // so that this comes even when nobody waits: then the loan ends here.
        Poll::Ready(Err(error)) if is_exhausted(&error) => match reserve.lend() {
            Some(loan) => listener
                .poll_accept(cx)
                .map_ok(|stream| (stream, Some(loan))),
            None => Poll::Ready(Err(error)),
        },
        first => first.map_ok(|stream| (stream, None)),
    }
}
