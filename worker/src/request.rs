//! What is wrapped around the application's service: counting, what is refused
//! before it, `Connection: close` while draining, and a 500 where it panics or
//! fails.
//!
//! This is the path of every request: no allocation, no boxed future, no
//! reference count shared with another thread, as long as no limit is reached.

use std::cell::{Cell, OnceCell};
use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Buf;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::StartError;
use crate::access_log::Entry;
use crate::admission::{Admission, Turn};
use crate::head::Head;
use crate::limits::Limits;
use crate::output::say;
use crate::screen::{is_bad_body, screen};
use crate::serving::{Rules, Serving};
use crate::stream::Traffic;
use crate::unanswered::{BodyEnd, Unanswered};
use crate::uploads::Uploads;

/// Fewer unexplained bytes than this are spaces that a client put into its
/// headers; as many or more are the beginning of another request.
const SHORTEST_REQUEST: u64 = 16;

/// One connection's requests.
#[derive(Debug)]
pub(crate) struct Requests {
    serving: &'static Serving,
    rules: &'static Rules,
    traffic: Arc<Traffic>,
    /// The client's address, for the access log.
    client: Option<IpAddr>,
    /// The bodies of the requests, where each has its stream.
    uploads: OnceCell<Arc<Uploads>>,
    in_flight: Cell<u32>,
    /// Responses of which a part was given and the next one not asked for yet.
    offering: Cell<u32>,
    pub(crate) unanswered: Unanswered,
    /// Where in the connection's input the requests so far ended.
    consumed: Cell<u64>,
    /// When the last response ended; only noted once a drain has begun.
    last_ended: Cell<Option<Instant>>,
}

impl Requests {
    pub(crate) fn new(
        serving: &'static Serving,
        traffic: Arc<Traffic>,
        client: Option<IpAddr>,
    ) -> Rc<Self> {
        Rc::new(Self {
            serving,
            rules: serving.rules(),
            traffic,
            client,
            uploads: OnceCell::new(),
            in_flight: Cell::new(0),
            offering: Cell::new(0),
            unanswered: Unanswered::default(),
            consumed: Cell::new(0),
            last_ended: Cell::new(None),
        })
    }

    pub(crate) fn serving(&self) -> &'static Serving {
        self.serving
    }

    /// What this connection's client is held to.
    pub(crate) fn limits(&self) -> &'static Limits {
        &self.rules.limits
    }

    /// The requests come on streams, and their bodies are measured there.
    pub(crate) fn come_on_streams(&self, uploads: Arc<Uploads>) {
        // A connection speaks one protocol from its beginning to its end.
        let _ = self.uploads.set(uploads);
    }

    /// The bodies of the requests, where each has its stream.
    pub(crate) fn uploads(&self) -> Option<&Uploads> {
        self.uploads.get().map(Arc::as_ref)
    }

    /// Whether more of a response is there than its client takes.
    pub(crate) fn offers_more_than_is_taken(&self) -> bool {
        self.offering.get() > 0 || self.traffic.write_blocked()
    }

    /// Bytes that the socket has taken.
    pub(crate) fn sent(&self) -> u64 {
        self.traffic.sent()
    }

    /// Whether an empty line is the last that has come.
    pub(crate) fn input_ends_empty(&self) -> bool {
        self.traffic.ends_empty()
    }

    /// Has the connection end without regard to what its client has not read.
    pub(crate) fn reset(&self) {
        self.traffic.reset();
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
    body: BodyEnd,
    /// The stream on which its body comes, where there are streams.
    upload: Option<u32>,
    /// Its key where it is not answered at once.
    unanswered: Option<usize>,
    /// Whether more of its response was given than was asked for since.
    offers: bool,
    /// Its right to be served, where there is not one for all.
    turn: Option<Turn>,
    /// What is logged of it; none where nothing is.
    entry: Option<Box<Entry>>,
}

impl InFlight {
    fn begin(
        requests: Rc<Requests>,
        request: &Request<Incoming>,
        head: Head,
        upload: Option<u32>,
    ) -> Self {
        let has_body = !request.body().is_end_stream();
        requests.traffic.request_began(has_body);
        requests.serving.tally.request_began();
        requests.in_flight.set(requests.in_flight.get() + 1);
        let body = request.body().size_hint().exact();
        let is_http2 = request.version() == Version::HTTP_2;
        let mut end = None;
        if body.is_some() || !is_http2 {
            let head_end = requests.consumed.get() + head.length(request);
            match (body, requests.rules.limits.max_body_size) {
                (Some(body), _) => end = Some(head_end + body),
                (None, Some(most)) => requests.traffic.limit_body(head_end.saturating_add(most)),
                (None, None) => {}
            }
        }
        let body = match (upload, end) {
            _ if !has_body => BodyEnd::Here,
            (Some(stream), _) => BodyEnd::Stream(stream),
            (None, Some(end)) => BodyEnd::At(end),
            (None, None) => BodyEnd::Chunked,
        };
        Self {
            requests,
            end,
            body,
            upload,
            unanswered: None,
            offers: false,
            turn: None,
            entry: None,
        }
    }

    /// The application has not answered yet and will wake this task; what is
    /// to be answered in its place, if the time is over.
    fn wait(&mut self, began: Instant, waker: &Waker) -> Option<StatusCode> {
        let unanswered = &self.requests.unanswered;
        match self.unanswered {
            Some(key) => unanswered.look_after(key, waker),
            None => {
                self.unanswered = Some(unanswered.begin(began, self.body, waker));
                None
            }
        }
    }

    /// Whether its body has come to be too large on its stream. If not, this
    /// task is woken when it is.
    fn is_over(&self, waker: &Waker) -> bool {
        self.upload()
            .is_some_and(|(stream, uploads)| uploads.is_over(stream, waker))
    }

    fn upload(&self) -> Option<(u32, &Uploads)> {
        self.upload.zip(self.requests.uploads())
    }

    /// It is answered, or will not be.
    fn stop_waiting(&mut self) {
        if let Some(key) = self.unanswered.take() {
            self.requests.unanswered.end(key);
        }
    }

    /// Notes whether a part of its response waits for the client.
    fn offer(&mut self, offers: bool) {
        if self.offers != offers {
            self.offers = offers;
            let offering = &self.requests.offering;
            offering.set(match offers {
                true => offering.get() + 1,
                false => offering.get() - 1,
            });
        }
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
        self.stop_waiting();
        self.offer(false);
        if let Some((stream, uploads)) = self.upload() {
            uploads.leave(stream);
        }
        let requests = &self.requests;
        if self.body == BodyEnd::Chunked {
            requests.traffic.limit_body(u64::MAX);
        }
        requests.consumed.set(match self.end {
            Some(end) if self.is_pipelined() => end,
            _ => requests.traffic.received(),
        });
        requests.in_flight.set(requests.in_flight.get() - 1);
        requests.serving.tally.request_ended();
        if let Some(entry) = &self.entry {
            requests.serving.access_log.end(entry, requests.client);
        }
        if requests.serving.drain.is_on() {
            requests.last_ended.set(Some(Instant::now()));
        }
    }
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
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Future: 'static,
    S::Error: Into<StartError>,
{
    type Response = Response<Outgoing<B>>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let began = Instant::now();
        let kind = Kind::of(&request);
        let upload = match self.requests.uploads() {
            Some(uploads) => uploads.take(&mut request),
            None => Ok(None),
        };
        let head = Head::of(&request);
        let requests = Rc::clone(&self.requests);
        let mut in_flight = InFlight::begin(requests, &request, head, upload.unwrap_or(None));
        let (rules, serving) = (self.requests.rules, self.requests.serving);
        in_flight.entry = serving.access_log.begin(&request, began);
        let screened = upload.and_then(|_| screen(&mut request, head, &rules.limits));
        if let Some(entry) = &in_flight.entry {
            entry.mark(request.headers_mut());
        }
        let work = match screened {
            Err(status) => Work::refused(status),
            Ok(()) if self.requests.traffic.body_is_over() => {
                Work::refused(StatusCode::PAYLOAD_TOO_LARGE)
            }
            Ok(()) => match &rules.admission {
                None => begin(&*self.service, request, serving),
                Some(admission) => match admission.now() {
                    Some(turn) => {
                        in_flight.turn = Some(turn);
                        begin(&*self.service, request, serving)
                    }
                    None => queue(admission, Rc::clone(&self.service), request, serving),
                },
            },
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
    serving: &Serving,
) -> Work<S::Future> {
    // A service is shared between requests; one that panics may be left
    // in a state of its own making, as it would be between threads.
    match catch_unwind(AssertUnwindSafe(|| service.call(request))) {
        Ok(future) => Work::Running { future },
        Err(_) => Work::refused(panicked(serving)),
    }
}

/// A panic costs its request, and is counted.
fn panicked(serving: &Serving) -> StatusCode {
    serving.tally.panicked();
    StatusCode::INTERNAL_SERVER_ERROR
}

/// Has a request wait for its turn, if there is a place.
fn queue<S>(
    admission: &'static Admission,
    service: Rc<S>,
    request: Request<Incoming>,
    serving: &'static Serving,
) -> Work<S::Future>
where
    S: Service<Request<Incoming>> + 'static,
    S::Future: 'static,
{
    let retry_after = Some(admission.retry_after());
    let refusal = Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        retry_after,
    };
    let Some(turn) = admission.wait() else {
        return Work::Refused { refusal };
    };
    let begun = Box::pin(async move {
        match turn.await {
            Some(turn) => Ok((turn, begin(&*service, request, serving))),
            None => Err(refusal),
        }
    });
    Work::Queued { begun }
}

/// What is answered in the application's place.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    status: StatusCode,
    /// Seconds after which the client may try again.
    retry_after: Option<u64>,
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        Self {
            status,
            retry_after: None,
        }
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

/// A queued request on its way to the application.
type Begun<F> = Pin<Box<dyn Future<Output = Result<(Turn, Work<F>), Refusal>>>>;

pin_project! {
    #[project = WorkProjection]
    enum Work<F> {
        Running { #[pin] future: F },
        Queued { begun: Begun<F> },
        Refused { refusal: Refusal },
    }
}

impl<F> Work<F> {
    fn refused(status: StatusCode) -> Self {
        Self::Refused {
            refusal: status.into(),
        }
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
        let mut this = self.project();
        let waiting = this
            .in_flight
            .as_mut()
            .expect("a future is not polled after it is done");
        let polled = match waiting.is_over(cx.waker()) {
            true => Poll::Ready(Err(StatusCode::PAYLOAD_TOO_LARGE.into())),
            false => this.work.as_mut().poll(waiting, cx),
        };
        let outcome = match polled {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => match waiting.wait(*this.began, cx.waker()) {
                None => return Poll::Pending,
                Some(late) => Err(late.into()),
            },
        };
        let mut in_flight = this.in_flight.take().expect("it was there before");
        in_flight.stop_waiting();
        if let Some((stream, uploads)) = in_flight.upload() {
            uploads.answered(stream);
        }
        let traffic = &in_flight.requests.traffic;
        traffic.speak();
        let mut response = match outcome {
            Ok(_) if traffic.body_is_over() => {
                bare(StatusCode::PAYLOAD_TOO_LARGE.into(), &in_flight, *this.kind)
            }
            Ok(response) => response.map(Some),
            Err(refusal) => bare(refusal, &in_flight, *this.kind),
        };
        finish_head(&mut response, &in_flight, *this.kind);
        if let Some(entry) = &mut in_flight.entry {
            let status = response.status().as_u16();
            entry.answered(status, response.headers_mut());
        }
        let serving = in_flight.requests.serving;
        serving
            .tally
            .answered(response.status().as_u16(), this.began.elapsed());
        Poll::Ready(Ok(response.map(|body| Outgoing { body, in_flight })))
    }
}

impl<F, B, E> Work<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<StartError>,
{
    fn poll(
        mut self: Pin<&mut Self>,
        in_flight: &mut InFlight,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<B>, Refusal>> {
        loop {
            let work = match self.as_mut().project() {
                WorkProjection::Running { future } => {
                    let answer = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
                    return match answer {
                        Ok(Poll::Pending) => Poll::Pending,
                        Ok(Poll::Ready(Ok(response))) => Poll::Ready(Ok(response)),
                        Ok(Poll::Ready(Err(error))) => {
                            let traffic = &in_flight.requests.traffic;
                            Poll::Ready(Err(failure(error.into(), traffic).into()))
                        }
                        Err(_) => Poll::Ready(Err(panicked(in_flight.requests.serving).into())),
                    };
                }
                WorkProjection::Refused { refusal } => return Poll::Ready(Err(*refusal)),
                WorkProjection::Queued { begun } => match ready!(begun.as_mut().poll(cx)) {
                    Ok((turn, work)) => {
                        in_flight.turn = Some(turn);
                        work
                    }
                    Err(refusal) => return Poll::Ready(Err(refusal)),
                },
            };
            self.set(work);
        }
    }
}

/// What to answer for an application that gave an error instead of an answer.
fn failure(error: StartError, traffic: &Traffic) -> StatusCode {
    if traffic.body_is_over() {
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    if is_bad_body(&*error) {
        return StatusCode::BAD_REQUEST;
    }
    say(format_args!("a request failed: {error}"));
    StatusCode::INTERNAL_SERVER_ERROR
}

/// An answer of the library's own. Where a request was refused, nothing that
/// follows it on its connection can be trusted to be another one.
fn bare<B>(refusal: Refusal, in_flight: &InFlight, kind: Kind) -> Response<Option<B>> {
    let status = refusal.status;
    let mut response = Response::new(None);
    *response.status_mut() = status;
    if let Some(seconds) = refusal.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    let closes = match status {
        StatusCode::INTERNAL_SERVER_ERROR => false,
        StatusCode::SERVICE_UNAVAILABLE => in_flight.body != BodyEnd::Here,
        _ => true,
    };
    if closes && kind != Kind::Http2 {
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
            Some(body) => {
                let frame = catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx)));
                frame.unwrap_or_else(|panic| {
                    // The response has begun: it can only break off.
                    panicked(this.in_flight.requests.serving);
                    resume_unwind(panic)
                })
            }
            None => Poll::Ready(None),
        };
        if let Poll::Ready(frame) = &frame {
            this.in_flight.requests.traffic.speak();
            if let (Some(entry), Some(Ok(frame))) = (&mut this.in_flight.entry, frame)
                && let Some(data) = frame.data_ref()
            {
                entry.sent(data.remaining());
            }
        }
        this.in_flight.offer(matches!(frame, Poll::Ready(Some(_))));
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
