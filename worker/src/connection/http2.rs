//! Serves one HTTP/2 connection.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Incoming};
use hyper::rt::{self, Executor};
use hyper::server::conn::http2::Builder;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::task::AbortHandle;

use crate::StartError;
use crate::connection::timeouts::{Late, Next, Protocol, Watch, look_or_drain};
use crate::request::connection_state::Requests;
use crate::request::service::Counted;
use crate::runtime::task;
use crate::runtime::timer::{Sleep, Timer};
use crate::transport::http2::bodies::Uploads;
use crate::transport::stream::Stream;

/// The least time that a client has to acknowledge a shutdown.
const ACKNOWLEDGE: Duration = Duration::from_secs(1);

/// So many times as many headers as are allowed are read, so that they can be
/// answered and counted; beyond that, a stream ends without the library's doing.
const MARGIN: usize = 4;

/// Serves a connection to its end. A drain, or a client that has nothing to say
/// or does not come to an end with it, ends it by GOAWAY in two steps (RFC 9113,
/// 6.8), which loses no stream that the client has opened meanwhile. A client
/// that does not acknowledge the first step is not waited for once nothing of it
/// is in flight.
pub(crate) async fn serve<S, B>(mut stream: Stream, service: Counted<S>, requests: &Rc<Requests>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Future: 'static,
    S::Error: Into<StartError>,
    B: Body + 'static,
    B::Error: Into<StartError>,
{
    let serving = requests.serving();
    let uploads = Arc::new(Uploads::under(requests.limits()));
    uploads.written_by(poll_fn(|cx| Poll::Ready(cx.waker().clone())).await);
    stream.speaks_http2(&uploads);
    requests.come_on_streams(uploads);
    let mut watch = Watch::new(Protocol::Http2, requests);
    let mut connection =
        builder(requests, serving.timer).serve_connection(TokioIo::new(stream), service);
    loop {
        tokio::select! {
            biased;
            _ = &mut connection => return,
            next = look_or_drain(serving, watch.next, false) => if next == Next::Drain {
                if !requests.busy() {
                    serving.handoffs.keeps(requests.kept());
                }
                break;
            },
        }
        match watch.look(requests) {
            Some(Late::Stalled) => return requests.reset(),
            Some(Late::Idle | Late::Head) => break,
            None => {}
        }
    }
    Pin::new(&mut connection).graceful_shutdown();
    let timer = serving.timer;
    let begun = timer.now();
    let mut look = begun + ACKNOWLEDGE;
    loop {
        tokio::select! {
            biased;
            _ = &mut connection => return,
            () = timer.sleep_until(look.min(watch.next)) => {}
        }
        if watch.look(requests) == Some(Late::Stalled) {
            return requests.reset();
        }
        if timer.now() < look {
            continue;
        }
        let given = match serving.drain.terms() {
            Some(terms) => terms.idle_grace.max(ACKNOWLEDGE),
            None => ACKNOWLEDGE,
        };
        let end = requests
            .last_ended()
            .map_or(begun, |ended| ended.max(begun))
            + given;
        let now = timer.now();
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

fn builder(requests: &Rc<Requests>, timer: &'static Timer) -> Builder<Tasks> {
    let limits = requests.limits();
    let told = limits.max_header_size.saturating_mul(MARGIN);
    let mut builder = Builder::new(Tasks(Rc::clone(requests)));
    builder
        .max_concurrent_streams(limits.http2_max_streams)
        .max_pending_accept_reset_streams(limits.http2_max_resets)
        .max_header_list_size(u32::try_from(told).unwrap_or(u32::MAX))
        .initial_stream_window_size(limits.http2_stream_window)
        .initial_connection_window_size(limits.http2_connection_window);
    if let Some(interval) = limits.http2_ping_interval {
        builder
            .timer(Times(timer))
            .keep_alive_interval(interval)
            .keep_alive_timeout(limits.http2_ping_timeout);
    }
    builder
}

/// hyper's waits, by the clock that stands still while the process does.
#[derive(Debug, Clone, Copy)]
struct Times(&'static Timer);

impl rt::Timer for Times {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(self.0.sleep_until(deadline.into()))
    }

    fn now(&self) -> Instant {
        self.0.now().into_std()
    }
}

impl rt::Sleep for Sleep<'static> {}

/// Runs a connection's streams beside it, on the serving thread.
#[derive(Debug, Clone)]
struct Tasks(Rc<Requests>);

impl<F: Future + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        let task = Rc::new(OnceCell::new());
        let running = task::spawn(Task {
            future,
            requests: Rc::clone(&self.0),
            task: Rc::clone(&task),
        });
        // It was empty.
        let _ = task.set(running.abort_handle());
    }
}

pin_project! {
    /// A stream's task, of which its response is told. When it is aborted, hyper's
    /// library resets the stream and drops what its client has not taken.
    struct Task<F> {
        #[pin]
        future: F,
        requests: Rc<Requests>,
        task: Rc<OnceCell<AbortHandle>>,
    }
}

impl<F: Future> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        this.requests.run(this.task);
        this.future.poll(cx).map(drop)
    }
}
