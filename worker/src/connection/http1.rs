//! Serves one HTTP/1 connection.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::StartError;
use crate::connection::timeouts::{Late, Next, Protocol, Watch, look_or_drain};
use crate::limits::Limits;
use crate::process::drain::Terms;
use crate::request::connection_state::Requests;
use crate::request::service::Counted;
use crate::transport::stream::Stream;

/// How soon to look again at a connection that was not idle when its grace
/// ended, where the grace itself is shorter.
const SHORTEST_LOOK: Duration = Duration::from_millis(20);

/// Headers for which hyper needs no memory of each request's own. Fewer are
/// counted after it has read them.
const FREE_HEADERS: usize = 100;

/// What hyper reads at the most before a head has to end.
const FREE_BUFFER: usize = 400 << 10;

type Connection<S> = UpgradeableConnection<TokioIo<Stream>, Counted<S>>;

fn begin<S, B>(stream: Stream, service: Counted<S>, limits: &Limits) -> Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Future: 'static,
    S::Error: Into<StartError>,
    B: Body + 'static,
    B::Error: Into<StartError>,
{
    stream.speaks_http1();
    let mut builder = Builder::new();
    if limits.max_headers > FREE_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    if limits.max_header_size > FREE_BUFFER {
        builder.max_buf_size(limits.max_header_size);
    }
    builder
        .max_header_size(limits.max_header_size)
        // The time for a request's head is kept here: hyper's begins before
        // the head does.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
}

/// How far a connection came.
pub(crate) enum End {
    /// To its end.
    Over,
    /// It asks for nothing, and may do so until then.
    Idle(Stream, Instant),
    /// It is to go on in another worker.
    Leaves(Stream),
}

/// What a connection's driver has to see to.
enum Turn {
    /// The connection has come to its end.
    Over,
    /// A drain has begun, or it is time to look at the connection.
    Next(Next),
    /// It asks for nothing, and another worker is there for it.
    Leave,
}

/// Serves a connection until it is over, idle or, in a drain, to go on in another worker.
/// Where it can't go on, responses say `Connection: close` while the drain lasts (see
/// [`Counted`]) and end the connection by themselves; here it is closed when no request
/// comes. hyper's own graceful shutdown would close an idle connection with the request
/// that is already on its way.
pub(crate) async fn serve<S, B>(stream: Stream, service: Counted<S>, requests: &Requests) -> End
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Future: 'static,
    S::Error: Into<StartError>,
    B: Body + 'static,
    B::Error: Into<StartError>,
{
    let serving = requests.serving();
    let mut watch = Watch::new(Protocol::Http1, requests);
    let mut connection = begin(stream, service, requests.limits());
    loop {
        let terms = serving.drain.terms();
        let leaves = terms.is_some() && requests.goes_on();
        let look = terms.map_or(watch.next, |terms| {
            watch.next.min(next_look(requests, terms))
        });
        let mut look_or_drain = pin!(look_or_drain(serving, look, terms.is_some()));
        let turn = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            // How a connection ends is between hyper and the client; the
            // process learns nothing from it that it could act on.
            Poll::Ready(_) => Poll::Ready(Turn::Over),
            Poll::Pending if leaves && requests.can_be_handed_on() => Poll::Ready(Turn::Leave),
            Poll::Pending => look_or_drain.as_mut().poll(cx).map(Turn::Next),
        });
        let turn = turn.await;
        let (late, idles_until) = match turn {
            Turn::Over => return End::Over,
            Turn::Next(Next::Drain) => continue,
            Turn::Next(Next::Look) => (watch.look(requests), watch.idles_until()),
            Turn::Leave => (None, None),
        };
        if late == Some(Late::Stalled) {
            requests.reset();
            return End::Over;
        }
        let leaves = matches!(turn, Turn::Leave);
        let rests = idles_until.filter(|_| terms.is_none() && requests.can_rest());
        let is_over = terms.is_some_and(|terms| is_over(requests, terms));
        if late.is_none() && !leaves && rests.is_none() && !is_over {
            continue;
        }
        // Taken apart to see what it has read. Nothing is lost by that, as
        // between two requests there is nothing else to a connection.
        let Some(parts) = connection.into_parts() else {
            return End::Over;
        };
        let mut stream = parts.io.into_inner();
        let begun = !parts.read_buf.iter().all(|byte| b"\r\n".contains(byte));
        match late {
            Some(Late::Head) if begun => {
                stream.refuse(StatusCode::REQUEST_TIMEOUT).await;
                return End::Over;
            }
            Some(Late::Head) => {
                stream.close().await;
                return End::Over;
            }
            None if leaves => {
                stream.unread(parts.read_buf);
                return End::Leaves(stream);
            }
            None if let Some(until) = rests
                && parts.read_buf.is_empty() =>
            {
                return End::Idle(stream, until);
            }
            _ if !begun && !stream.has_input() => {
                if is_over && !stream.is_closing() {
                    serving.handoffs.keeps(requests.kept());
                }
                stream.close().await;
                return End::Over;
            }
            // What is there may be of a body whose application has answered before.
            _ if !requests.is_before_a_head() => {
                stream.close().await;
                return End::Over;
            }
            _ => {}
        }
        // A request has begun to arrive: it is answered, and in a drain the
        // answer closes the connection.
        requests.unread(parts.read_buf.len());
        stream.unread(parts.read_buf);
        connection = begin(stream, parts.service, requests.limits());
        tokio::task::yield_now().await;
    }
}

/// Whether an idle connection's grace is over.
fn is_over(requests: &Requests, terms: Terms) -> bool {
    !requests.busy()
        && !requests.head_begun()
        && grace_end(requests, terms) <= requests.serving().timer.now()
}

/// When a connection that stays idle is to be closed.
fn grace_end(requests: &Requests, terms: Terms) -> Instant {
    requests.last_ended().unwrap_or(terms.since) + terms.idle_grace
}

/// When to look at a draining connection next.
fn next_look(requests: &Requests, terms: Terms) -> Instant {
    let end = grace_end(requests, terms);
    let now = requests.serving().timer.now();
    if end > now {
        end
    } else {
        now + terms.idle_grace.max(SHORTEST_LOOK)
    }
}
