//! Serves one HTTP/2 connection.

use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until};

use crate::StartError;
use crate::patience::{Late, Protocol, Watch};
use crate::request::{Counted, Requests};
use crate::stream::Stream;

/// The least time that a client has to acknowledge a shutdown.
const ACKNOWLEDGE: Duration = Duration::from_secs(1);

/// Serves a connection to its end. A drain, or a client that has nothing to
/// say, ends it by GOAWAY in two steps (RFC 9113, 6.8), which loses no stream
/// that the client has opened meanwhile. A client that does not acknowledge
/// the first step is not waited for once nothing of it is in flight.
pub(crate) async fn serve<S, B>(stream: Stream, service: Counted<S>, requests: &Requests)
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Future: 'static,
    S::Error: Into<StartError>,
    B: Body + 'static,
    B::Error: Into<StartError>,
{
    let serving = requests.serving();
    let mut watch = Watch::new(Protocol::Http2, requests);
    let mut connection = Builder::new(Local).serve_connection(TokioIo::new(stream), service);
    loop {
        tokio::select! {
            biased;
            _ = &mut connection => return,
            _ = serving.drain.begun() => break,
            () = sleep_until(watch.next) => {}
        }
        if watch.look(requests) == Some(Late::Idle) {
            break;
        }
    }
    Pin::new(&mut connection).graceful_shutdown();
    let begun = Instant::now();
    let mut look = begun + ACKNOWLEDGE;
    loop {
        tokio::select! {
            biased;
            _ = &mut connection => return,
            () = sleep_until(look) => {}
        }
        let given = match serving.drain.terms() {
            Some(terms) => terms.idle_grace.max(ACKNOWLEDGE),
            None => ACKNOWLEDGE,
        };
        let end = requests
            .last_ended()
            .map_or(begun, |ended| ended.max(begun))
            + given;
        let now = Instant::now();
        if requests.busy() {
            look = now + given;
        } else if end > now {
            look = end;
        } else {
            break;
        }
    }
    requests.finish();
    let _ = connection.await;
}

/// Runs a connection's streams beside it, on the serving thread.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
