//! The answer to a request on its way: the application's, or the library's own
//! where the application panics, fails, takes too long or is not asked.

pub(crate) mod body;
mod content;
pub(crate) mod read_ahead;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Body;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use pin_project_lite::pin_project;
use prefork_proto::request_table::RequestStage;

use crate::StartError;
use crate::limits::concurrency::Turn;
use crate::output::rate_limit::Sparing;
use crate::process::Serving;
use crate::request::deadlines::BodyEnd;
use crate::request::in_flight::{Asks, InFlight};
use crate::request::validate::is_bad_body;
use crate::runtime::moment::Moment;
use crate::transport::traffic::Traffic;
use body::Outgoing;
use content::lacks_content;

pin_project! {
    /// The application's answer on its way.
    pub(crate) struct Answer<F> {
        #[pin]
        pub(crate) work: Work<F>,
        pub(crate) in_flight: Option<InFlight>,
        pub(crate) began: Moment,
    }
}

pin_project! {
    /// What is being done about a request.
    #[project = WorkProjection]
    pub(crate) enum Work<F> {
        Running { #[pin] future: F },
        Queued { begun: Begun<F> },
        Refused { refusal: Refusal },
    }
}

/// A queued request on its way to the application.
pub(crate) type Begun<F> = Pin<Box<dyn Future<Output = Result<(Turn, Work<F>), Refusal>>>>;

/// What is answered in the application's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// Seconds after which the client may try again.
    pub(crate) retry_after: Option<u64>,
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        Self {
            status,
            retry_after: None,
        }
    }
}

impl<F> Work<F> {
    pub(crate) fn refused(status: StatusCode) -> Self {
        Self::Refused {
            refusal: status.into(),
        }
    }
}

/// A panic costs its request, and is counted.
pub(crate) fn panicked(serving: &Serving) -> StatusCode {
    serving.tally.panicked();
    StatusCode::INTERNAL_SERVER_ERROR
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    E: Into<StartError>,
{
    type Output = Result<Response<Outgoing<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let waiting = this
            .in_flight
            .as_mut()
            .expect("a future is not polled after it is done");
        let polled = match waiting.is_over(cx.waker()) {
            true => Poll::Ready(Err(StatusCode::PAYLOAD_TOO_LARGE.into())),
            false => this.work.poll(waiting, cx),
        };
        let outcome = match polled {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => match waiting.wait(*this.began, cx.waker()) {
                None => return Poll::Pending,
                Some(late) => Err(late.into()),
            },
        };
        let in_flight = this.in_flight.take().expect("it was there before");
        Poll::Ready(Ok(match outcome {
            Ok(response) => answered(response, in_flight, *this.began),
            Err(refusal) => refused(refusal, in_flight, *this.began),
        }))
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
                        Ok(Poll::Pending) => {
                            in_flight.invite_body();
                            Poll::Pending
                        }
                        Ok(Poll::Ready(Ok(response))) => Poll::Ready(Ok(response)),
                        Ok(Poll::Ready(Err(error))) => {
                            let traffic = &in_flight.requests.traffic;
                            Poll::Ready(Err(failure(error.into(), traffic).into()))
                        }
                        Err(_) => Poll::Ready(Err(panicked(in_flight.requests.serving()).into())),
                    };
                }
                WorkProjection::Refused { refusal } => return Poll::Ready(Err(*refusal)),
                WorkProjection::Queued { begun } => match ready!(begun.as_mut().poll(cx)) {
                    Ok((turn, work)) => {
                        in_flight.turn = Some(turn);
                        in_flight.show(RequestStage::Working);
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
    static FAILED: Sparing = Sparing::of(10, Duration::from_secs(1));
    FAILED.say(format_args!("a request failed: {error}"));
    StatusCode::INTERNAL_SERVER_ERROR
}

/// The application's answer, or the library's own where the request turned out
/// to be too large. Inlined, as a response is large and moves with each call.
#[inline(always)]
fn answered<B: Body>(
    mut response: Response<B>,
    mut in_flight: InFlight,
    began: Moment,
) -> Response<Outgoing<B>> {
    if in_flight.requests.traffic.body_is_over() {
        return refused(StatusCode::PAYLOAD_TOO_LARGE.into(), in_flight, began);
    }
    let status = response.status();
    if lacks_content(status, in_flight.asks) {
        return headed(response, in_flight, began);
    }
    finish(status, response.headers_mut(), &mut in_flight, began);
    response.map(|body| Outgoing::new(Some(body), in_flight))
}

/// The application's answer where nothing may follow its head.
#[inline(never)]
fn headed<B: Body>(
    response: Response<B>,
    mut in_flight: InFlight,
    began: Moment,
) -> Response<Outgoing<B>> {
    let status = response.status();
    if !content::is_answer(status, &in_flight) {
        return refused(StatusCode::INTERNAL_SERVER_ERROR.into(), in_flight, began);
    }
    let mut response = content::cut(response, in_flight.asks);
    finish(status, response.headers_mut(), &mut in_flight, began);
    response.map(|()| Outgoing::new(None, in_flight))
}

/// An answer of the library's own. Where a request was refused, nothing that
/// follows it on its connection can be trusted to be another one.
#[cold]
fn refused<B>(refusal: Refusal, mut in_flight: InFlight, began: Moment) -> Response<Outgoing<B>> {
    let status = refusal.status;
    let mut response = Response::new(());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    let closes = match status {
        StatusCode::INTERNAL_SERVER_ERROR => false,
        StatusCode::SERVICE_UNAVAILABLE => in_flight.body() != BodyEnd::Here,
        _ => true,
    };
    if closes && !in_flight.is_http2 {
        close(headers, &in_flight);
    }
    finish(status, headers, &mut in_flight, began);
    response.map(|()| Outgoing::new(None, in_flight))
}

/// Has a response be its connection's last.
fn close(headers: &mut HeaderMap, in_flight: &InFlight) {
    in_flight.requests.traffic.expect_more();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// What every response has to go through, the application's and the library's.
#[inline(always)]
fn finish(status: StatusCode, headers: &mut HeaderMap, in_flight: &mut InFlight, began: Moment) {
    in_flight.stop_waiting();
    if let Some((stream, uploads)) = in_flight.upload() {
        uploads.answered(stream);
    }
    in_flight.requests.traffic.speak();
    finish_head(status, headers, in_flight);
    if in_flight.is_watched() {
        in_flight.answered(status, headers);
    }
    let serving = in_flight.requests.serving();
    serving
        .tally
        .answered_in(status.as_u16(), began.micros_since());
}

fn finish_head(status: StatusCode, headers: &mut HeaderMap, in_flight: &InFlight) {
    let traffic = &in_flight.requests.traffic;
    if in_flight.is_http2 {
        return;
    }
    let is_tunnel = in_flight.asks == Asks::Tunnel && status.is_success();
    if is_tunnel || status == StatusCode::SWITCHING_PROTOCOLS {
        return traffic.upgrade();
    }
    if in_flight.requests.serving().drain.is_on()
        && !in_flight.is_pipelined()
        && !in_flight.is_handed_on()
    {
        close(headers, in_flight);
    }
}
