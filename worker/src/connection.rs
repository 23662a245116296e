//! Serves one connection from its first byte to its end, drain included.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until};

use crate::StartError;
use crate::request::{Counted, Requests};
use crate::serving::{Serving, Terms};
use crate::stream::Stream;

/// What an HTTP/2 client sends first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How soon to look again at a connection that was not idle when its grace
/// ended, where the grace itself is shorter.
const SHORTEST_LOOK: Duration = Duration::from_millis(20);

/// Serves a connection until it is closed or handed to the application.
///
/// The protocol is told apart here and not by hyper-util's auto server,
/// because a drain treats the two differently and must know what a connection
/// has read before it closes it.
pub(crate) async fn serve<S, B>(mut stream: Stream, serving: &'static Serving, service: Rc<S>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Future: 'static,
    S::Error: Into<StartError>,
    B: Body + 'static,
    B::Error: Into<StartError>,
{
    let requests = Requests::new(serving, stream.traffic());
    let counted = Counted::new(service, Rc::clone(&requests));
    match first_bytes(&mut stream, serving).await {
        First::Http1(read) => {
            stream.unread(read);
            http1(stream, counted, &requests).await;
        }
        First::Http2(read) => {
            stream.unread(read);
            http2(stream, counted, serving).await;
        }
        First::Gone => {}
        First::Idle => stream.close().await,
    }
}

/// How a connection begins.
enum First {
    Http1(Bytes),
    Http2(Bytes),
    /// The client left without a word.
    Gone,
    /// The drain's grace ended without a word.
    Idle,
}

async fn first_bytes(stream: &mut Stream, serving: &'static Serving) -> First {
    let mut read = BytesMut::with_capacity(1024);
    let accepted = Instant::now();
    loop {
        let filled = if read.is_empty() {
            tokio::select! {
                biased;
                filled = stream.fill(&mut read) => filled,
                () = grace_ends(serving, accepted) => {
                    if stream.has_input() {
                        // It is there, and the next turn of the loop brings it.
                        tokio::task::yield_now().await;
                        continue;
                    }
                    return First::Idle;
                }
            }
        } else {
            stream.fill(&mut read).await
        };
        if !matches!(filled, Ok(1..)) {
            return First::Gone;
        }
        let compared = read.len().min(PREFACE.len());
        if read[..compared] != PREFACE[..compared] {
            return First::Http1(read.freeze());
        }
        if compared == PREFACE.len() {
            return First::Http2(read.freeze());
        }
    }
}

/// Waits until a drain has begun and its grace for idle connections is over; a
/// drain may also accept what waited.
async fn grace_ends(serving: &Serving, accepted: Instant) {
    let terms = serving.drain.begun().await;
    sleep_until(terms.since.max(accepted) + terms.idle_grace).await;
}

type Http1<S> = http1::UpgradeableConnection<TokioIo<Stream>, Counted<S>>;

fn begin_http1<S, B>(stream: Stream, service: Counted<S>) -> Http1<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<StartError>,
    B: Body + 'static,
    B::Error: Into<StartError>,
{
    http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
}

/// Serves HTTP/1. While a drain lasts, responses say `Connection: close` (see
/// [`Counted`]) and end the connection by themselves; here it is closed when
/// no request comes. hyper's own graceful shutdown would close an idle
/// connection with the request that is already on its way.
async fn http1<S, B>(stream: Stream, service: Counted<S>, requests: &Requests)
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<StartError>,
    B: Body + 'static,
    B::Error: Into<StartError>,
{
    let mut connection = begin_http1(stream, service);
    // How a connection ends is between hyper and the client; the process
    // learns nothing from it that it could act on.
    let terms = tokio::select! {
        biased;
        _ = &mut connection => return,
        terms = requests.serving().drain.begun() => terms,
    };
    loop {
        let look = next_look(requests, terms);
        tokio::select! {
            biased;
            _ = &mut connection => return,
            () = sleep_until(look) => {}
        }
        if requests.busy() || grace_end(requests, terms) > Instant::now() {
            continue;
        }
        // Idle: taken apart to see what it has read. Nothing is lost by that,
        // as between two requests there is nothing else to a connection.
        let Some(parts) = connection.into_parts() else {
            return;
        };
        let mut stream = parts.io.into_inner();
        let begun = !parts.read_buf.iter().all(|byte| b"\r\n".contains(byte));
        if !begun && !stream.has_input() {
            return stream.close().await;
        }
        // A request has begun to arrive: it is answered, and the answer
        // closes the connection.
        stream.unread(parts.read_buf);
        connection = begin_http1(stream, parts.service);
        if begun {
            let _ = connection.await;
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// When a connection that stays idle is to be closed.
fn grace_end(requests: &Requests, terms: Terms) -> Instant {
    requests.last_ended().unwrap_or(terms.since) + terms.idle_grace
}

/// When to look at a connection next.
fn next_look(requests: &Requests, terms: Terms) -> Instant {
    if requests.busy() {
        Instant::now() + terms.idle_grace.max(SHORTEST_LOOK)
    } else {
        grace_end(requests, terms)
    }
}

/// Serves HTTP/2. A drain sends GOAWAY in two steps (RFC 9113, 6.8), which
/// loses no stream that the client has opened meanwhile.
async fn http2<S, B>(stream: Stream, service: Counted<S>, serving: &'static Serving)
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Future: 'static,
    S::Error: Into<StartError>,
    B: Body + 'static,
    B::Error: Into<StartError>,
{
    let mut connection = http2::Builder::new(Local).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        _ = &mut connection => return,
        _ = serving.drain.begun() => {}
    }
    Pin::new(&mut connection).graceful_shutdown();
    let _ = connection.await;
}

/// Runs an HTTP/2 connection's streams beside it, on the serving thread.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
