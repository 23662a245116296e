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

/// Serves a connection to its end. While a drain lasts, responses say
/// `Connection: close` (see [`Counted`]) and end the connection by themselves;
/// here it is closed when no request comes. hyper's own graceful shutdown
/// would close an idle connection with the request that is already on its way.
pub(crate) async fn serve<S, B>(stream: Stream, service: Counted<S>, requests: &Requests)
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
        let look = terms.map_or(watch.next, |terms| {
            watch.next.min(next_look(requests, terms))
        });
        let mut look_or_drain = pin!(look_or_drain(serving, look, terms.is_some()));
        let next = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            // How a connection ends is between hyper and the client; the
            // process learns nothing from it that it could act on.
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => look_or_drain.as_mut().poll(cx).map(Some),
        });
        match next.await {
            None => return,
            Some(Next::Drain) => continue,
            Some(Next::Look) => {}
        }
        let late = watch.look(requests);
        if late == Some(Late::Stalled) {
            return requests.reset();
        }
        if late.is_none() && !terms.is_some_and(|terms| is_over(requests, terms)) {
            continue;
        }
        // Taken apart to see what it has read. Nothing is lost by that, as
        // between two requests there is nothing else to a connection.
        let Some(parts) = connection.into_parts() else {
            return;
        };
        let mut stream = parts.io.into_inner();
        let begun = !parts.read_buf.iter().all(|byte| b"\r\n".contains(byte));
        match late {
            Some(Late::Head) if begun => {
                return stream.refuse(StatusCode::REQUEST_TIMEOUT).await;
            }
            Some(Late::Head) => return stream.close().await,
            _ if !begun && !stream.has_input() => return stream.close().await,
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
