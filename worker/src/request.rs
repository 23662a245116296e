//! What is wrapped around the application's service: counting, what is refused
//! before it, `Connection: close` while draining, and a 500 where it panics or
//! fails.
//!
//! This is the path of every request: no allocation, no boxed future, no
//! reference count shared with another thread.

use std::cell::Cell;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::StartError;
use crate::output::say;
use crate::screen::{is_bad_body, screen};
use crate::serving::Serving;
use crate::stream::Traffic;

/// Fewer unexplained bytes than this are spaces that a client put into its
/// headers; as many or more are the beginning of another request.
const SHORTEST_REQUEST: u64 = 16;

/// One connection's requests.
#[derive(Debug)]
pub(crate) struct Requests {
    serving: &'static Serving,
    traffic: Arc<Traffic>,
    in_flight: Cell<u32>,
    /// Where in the connection's input the requests so far ended.
    consumed: Cell<u64>,
    /// When the last response ended; only noted once a drain has begun.
    last_ended: Cell<Option<Instant>>,
}

impl Requests {
    pub(crate) fn new(serving: &'static Serving, traffic: Arc<Traffic>) -> Rc<Self> {
        Rc::new(Self {
            serving,
            traffic,
            in_flight: Cell::new(0),
            consumed: Cell::new(0),
            last_ended: Cell::new(None),
        })
    }

    pub(crate) fn serving(&self) -> &'static Serving {
        self.serving
    }

    /// Whether a request is being answered or its answer is still being sent.
    pub(crate) fn busy(&self) -> bool {
        self.in_flight.get() > 0 || self.traffic.write_blocked()
    }

    /// Bytes that the connection has received.
    pub(crate) fn received(&self) -> u64 {
        self.traffic.received()
    }

    /// Where in the connection's input the requests so far ended, in bytes.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed.get()
    }

    /// Whether something has come after the last request.
    pub(crate) fn head_begun(&self) -> bool {
        self.traffic.received() > self.consumed.get() || self.traffic.is_within_record()
    }

    /// As many bytes were read and belong to no request yet.
    pub(crate) fn unread(&self, bytes: usize) {
        let consumed = self.traffic.received().saturating_sub(bytes as u64);
        self.consumed.set(consumed);
    }

    /// Has the connection end without waiting for its client.
    pub(crate) fn finish(&self) {
        self.traffic.finish();
    }

    /// When the last response ended, if that was after a drain began.
    pub(crate) fn last_ended(&self) -> Option<Instant> {
        self.last_ended.get()
    }
}

/// A request from its head to the end of its response's body.
struct InFlight {
    requests: Rc<Requests>,
    /// Where in the connection's input it ends; none where that can't be told.
    end: Option<u64>,
}

impl InFlight {
    fn begin(requests: Rc<Requests>, request: &Request<Incoming>) -> Self {
        let has_body = !request.body().is_end_stream();
        requests.traffic.request_began(has_body);
        requests.serving.tally.request_began();
        requests.in_flight.set(requests.in_flight.get() + 1);
        let end = request
            .body()
            .size_hint()
            .exact()
            .map(|body| requests.consumed.get() + head_length(request) + body);
        Self { requests, end }
    }

    /// Whether the client has sent its next request without waiting for this
    /// one's response. What it has sent must be answered, so this response
    /// can't be the connection's last.
    fn is_pipelined(&self) -> bool {
        self.end.is_some_and(|end| {
            self.requests.traffic.received() >= end.saturating_add(SHORTEST_REQUEST)
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let requests = &self.requests;
        requests.consumed.set(match self.end {
            Some(end) if self.is_pipelined() => end,
            _ => requests.traffic.received(),
        });
        requests.in_flight.set(requests.in_flight.get() - 1);
        requests.serving.tally.request_ended();
        if requests.serving.drain.is_on() {
            requests.last_ended.set(Some(Instant::now()));
        }
    }
}

/// How many bytes the request's head took on the wire, if its client wrote it
/// without needless space.
fn head_length(request: &Request<Incoming>) -> u64 {
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + 3);
    let authority = uri.authority().map_or(0, |name| name.as_str().len());
    let line = request.method().as_str().len() + scheme + authority + path + " HTTP/1.1 \r\n".len();
    let headers: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    (line + headers + "\r\n".len()) as u64
}

/// The application's service as one connection sees it.
#[derive(Debug)]
pub(crate) struct Counted<S> {
    service: Rc<S>,
    requests: Rc<Requests>,
}

impl<S> Counted<S> {
    pub(crate) fn new(service: Rc<S>, requests: Rc<Requests>) -> Self {
        Self { service, requests }
    }
}

impl<S, B> Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<StartError>,
{
    type Response = Response<Outgoing<B>>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let began = Instant::now();
        let kind = Kind::of(&request);
        let in_flight = InFlight::begin(Rc::clone(&self.requests), &request);
        let work = match screen(&mut request) {
            Ok(()) => begin(&*self.service, request),
            Err(status) => Work::Refused { status },
        };
        Answer {
            work,
            in_flight: Some(in_flight),
            kind,
            began,
        }
    }
}

fn begin<S: Service<Request<Incoming>>>(
    service: &S,
    request: Request<Incoming>,
) -> Work<S::Future> {
    // A service is shared between requests; one that panics may be left
    // in a state of its own making, as it would be between threads.
    match catch_unwind(AssertUnwindSafe(|| service.call(request))) {
        Ok(future) => Work::Running { future },
        Err(_) => Work::Panicked,
    }
}

/// What decides whether a response may say `Connection: close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// It asks for a tunnel, which begins where a success response ends.
    Connect,
    /// HTTP/2 knows no such header.
    Http2,
}

impl Kind {
    fn of(request: &Request<Incoming>) -> Self {
        if request.version() == Version::HTTP_2 {
            Self::Http2
        } else if request.method() == Method::CONNECT {
            Self::Connect
        } else {
            Self::Plain
        }
    }
}

pin_project! {
    #[project = WorkProjection]
    enum Work<F> {
        Running { #[pin] future: F },
        Panicked,
        Refused { status: StatusCode },
    }
}

pin_project! {
    /// The application's answer on its way.
    pub(crate) struct Answer<F> {
        #[pin]
        work: Work<F>,
        in_flight: Option<InFlight>,
        kind: Kind,
        began: Instant,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<StartError>,
{
    type Output = Result<Response<Outgoing<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = match this.work.project() {
            WorkProjection::Running { future } => {
                match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(Ok(response))) => Ok(response),
                    Ok(Poll::Ready(Err(error))) => Err(failure(error.into())),
                    Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
                }
            }
            WorkProjection::Panicked => Err(StatusCode::INTERNAL_SERVER_ERROR),
            WorkProjection::Refused { status } => Err(*status),
        };
        let in_flight = this
            .in_flight
            .take()
            .expect("a future is not polled after it is done");
        in_flight.requests.traffic.speak();
        let mut response = match outcome {
            Ok(response) => response.map(Some),
            Err(status) => bare(status, &in_flight, *this.kind),
        };
        finish_head(&mut response, &in_flight, *this.kind);
        let serving = in_flight.requests.serving;
        serving
            .tally
            .answered(response.status().as_u16(), this.began.elapsed());
        Poll::Ready(Ok(response.map(|body| Outgoing { body, in_flight })))
    }
}

/// What to answer for an application that gave an error instead of an answer.
fn failure(error: StartError) -> StatusCode {
    if is_bad_body(&*error) {
        return StatusCode::BAD_REQUEST;
    }
    say(format_args!("a request failed: {error}"));
    StatusCode::INTERNAL_SERVER_ERROR
}

/// An answer of the library's own. Where a request was refused, nothing that
/// follows it on its connection can be trusted to be another one.
fn bare<B>(status: StatusCode, in_flight: &InFlight, kind: Kind) -> Response<Option<B>> {
    let mut response = Response::new(None);
    *response.status_mut() = status;
    if kind != Kind::Http2 && status != StatusCode::INTERNAL_SERVER_ERROR {
        in_flight.requests.traffic.expect_more();
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn finish_head<B>(response: &mut Response<B>, in_flight: &InFlight, kind: Kind) {
    let status = response.status();
    let traffic = &in_flight.requests.traffic;
    match kind {
        Kind::Http2 => return,
        Kind::Connect if status.is_success() => return traffic.upgrade(),
        _ if status == StatusCode::SWITCHING_PROTOCOLS => return traffic.upgrade(),
        Kind::Plain | Kind::Connect => {}
    }
    if in_flight.requests.serving.drain.is_on() && !in_flight.is_pipelined() {
        traffic.expect_more();
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

pin_project! {
    /// A response's body; the request is in flight until it is gone.
    pub(crate) struct Outgoing<B> {
        #[pin]
        body: Option<B>,
        in_flight: InFlight,
    }
}

impl<B: Body> Body for Outgoing<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = match this.body.as_pin_mut() {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        };
        if frame.is_ready() {
            this.in_flight.requests.traffic.speak();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
