//! Why a request has no answer of the pool's, and what is answered instead.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::X_REQUEST_ID;
use crate::page::Page;

/// Why a request has no answer of the pool's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No worker of the pool is ready, and none came to be in time.
    NoWorker,
    /// As many wait already as may.
    QueueFull,
    /// All workers were busy for too long.
    QueueTimeout,
    /// No connection to any worker could be made.
    Connect,
    /// The worker ended the connection before it had answered.
    Closed,
    /// What the worker answered is no answer.
    BadResponse,
    /// The worker did not answer in time.
    Timeout,
    /// The worker's answer broke off after it had begun.
    Cut,
}

impl Failure {
    /// The value of the metric's label `reason`.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NoWorker => "no_worker",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::BadResponse => "bad_response",
            Self::Timeout => "timeout",
            Self::Cut => "cut",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::NoWorker | Self::QueueFull | Self::QueueTimeout => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Connect | Self::Closed | Self::BadResponse | Self::Cut => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::NoWorker => "nothing is there at the moment that could answer",
            Self::QueueFull | Self::QueueTimeout => "too many requests wait for an answer",
            Self::Connect => "what is to answer cannot be reached",
            Self::Closed | Self::Cut => "what was to answer ended before it did",
            Self::BadResponse => "what came as an answer makes no sense",
            Self::Timeout => "no answer came in time",
        }
    }

    /// What the client is told, with what to look for in the log.
    pub(super) fn answer(self, request: &HeaderMap, id: &HeaderValue) -> Response<Full<Bytes>> {
        let (status, sentence) = (self.status(), self.sentence());
        let code = status.as_u16();
        // A request id has nothing in it that would be markup (see `request_id`).
        let id_text = id.to_str().unwrap_or_default();
        let html = format!(
            "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{code}</title>\n\
             <h1>{code}</h1>\n<p>{sentence}</p>\n<p>request {id_text}</p>\n"
        );
        let text = format!("{code}: {sentence}\nrequest {id_text}\n");
        let page = Page {
            status,
            html: html.into(),
            text: text.into(),
        };
        let mut response = page.answer(request);
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, id.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
