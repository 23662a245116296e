//! What is wrapped around the application's service: what is refused before it
//! is asked, who waits for a turn, and what every request is known by.
//!
//! This is the path of every request: no allocation, no boxed future, no
//! reference count shared with another thread, as long as no limit is reached.
//! Requests and responses are large, so each is moved as seldom as can be.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use hyper::body::{Body, Incoming};
use hyper::header::EXPECT;
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use prefork_proto::request_table::RequestStage;

use crate::StartError;
use crate::limits::concurrency::Admission;
use crate::process::Serving;
use crate::request::connection_state::Requests;
use crate::request::head::Head;
use crate::request::in_flight::InFlight;
use crate::request::validate::screen;
use crate::response::body::Outgoing;
use crate::response::{Answer, Refusal, Work, panicked};
use crate::runtime::moment::Moment;

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
    B: Body,
{
    type Response = Response<Outgoing<B>>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let began = Moment::now();
        let requests = &self.requests;
        let (rules, serving) = (requests.rules(), requests.serving());
        let upload = match requests.uploads() {
            Some(uploads) => uploads.take(&mut request),
            None => Ok(None),
        };
        let head = Head::of(&request);
        let told = requests.told(request.headers_mut());
        let mut in_flight = InFlight::begin(Rc::clone(requests), told, &request, &head, began);
        in_flight.upload = upload.unwrap_or(None);
        in_flight.expects_continue = in_flight.upload.is_some() && expects_continue(&request);
        in_flight.log(serving.access_log.begin(&request, began));
        let screened = upload.and_then(|_| screen(&mut request, &head, &rules.limits));
        if let Some(entry) = &in_flight.entry {
            entry.mark(request.headers_mut());
        }
        if serving.tells_peer {
            request.extensions_mut().insert(in_flight.peer().clone());
        }
        let work = match screened {
            Err(status) => Work::refused(status),
            Ok(()) if requests.traffic.body_is_over() => {
                Work::refused(StatusCode::PAYLOAD_TOO_LARGE)
            }
            Ok(()) => match &rules.admission {
                None => begin(&*self.service, request, serving),
                Some(admission) => match admission.now() {
                    Some(turn) => {
                        in_flight.turn = Some(turn);
                        begin(&*self.service, request, serving)
                    }
                    None => {
                        in_flight.show(RequestStage::Queued);
                        queue(admission, Rc::clone(&self.service), request, serving)
                    }
                },
            },
        };
        Answer {
            work,
            in_flight: Some(in_flight),
            began,
        }
    }
}

/// Whether its client keeps the body back until it is told to go on (RFC 9110, 10.1.1).
fn expects_continue(request: &Request<Incoming>) -> bool {
    let expected = request.headers().get(EXPECT);
    expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Has the application begin to work on a request.
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
    let Some(turn) = admission.wait(serving.timer) else {
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
