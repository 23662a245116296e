//! HTTP answers: whole ones, streams of JSON lines, and rejections.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use prefork_api::{ApiError, ErrorCode};
use serde::Serialize;
use tokio::sync::mpsc;

/// What a server answers.
pub(crate) type Answer = Response<Payload>;

/// The media type of the Prometheus text format 0.0.4.
pub(crate) const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The media type of OpenMetrics' text format.
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of a JSON document.
pub(crate) const JSON: &str = "application/json";
/// The media type of JSON lines.
pub(crate) const JSON_LINES: &str = "application/x-ndjson";
/// The media type of a sentence.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// Fetch, 3.7: who may load it.
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// An answer's body.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Known as a whole; empty once it is taken.
    Whole(Bytes),
    /// JSON lines as they come, until the sender is dropped.
    Lines(mpsc::Receiver<Bytes>),
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Lines(lines) => lines
                .poll_recv(cx)
                .map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}

/// An answer of one piece. What is true now isn't for caches.
pub(crate) fn whole(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<Bytes>,
) -> Answer {
    with_headers(status, media_type, Payload::Whole(body.into()))
}

/// A JSON document, ended by a newline.
pub(crate) fn json(status: StatusCode, document: &impl Serialize) -> Answer {
    whole(status, JSON, json_line(document))
}

/// A stream of JSON lines.
pub(crate) fn lines(lines: mpsc::Receiver<Bytes>) -> Answer {
    with_headers(StatusCode::OK, JSON_LINES, Payload::Lines(lines))
}

fn with_headers(status: StatusCode, media_type: &'static str, payload: Payload) -> Answer {
    let mut answer = Response::new(payload);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Nothing of it is for pages of other sites, nor for guesses at what it is.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CORP, HeaderValue::from_static("same-origin"));
    answer
}

/// A value as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> Bytes {
    let mut line =
        serde_json::to_vec(value).expect("the API's types hold nothing that JSON cannot say");
    line.push(b'\n');
    line.into()
}

/// Why a request is not done, as HTTP says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// The status.
    pub(crate) status: StatusCode,
    /// The body.
    pub(crate) error: ApiError,
    /// The methods that the path does take, for a 405.
    pub(crate) allow: Option<&'static str>,
}

impl Rejection {
    /// A rejection with the error code's own status.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError::new(code, message).into()
    }

    /// A rejection with a status finer than its error code's.
    pub(crate) fn with_status(
        status: StatusCode,
        code: ErrorCode,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            ..Self::new(code, message)
        }
    }

    /// The path exists, the method doesn't.
    pub(crate) fn method(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::with_status(
                StatusCode::METHOD_NOT_ALLOWED,
                ErrorCode::Usage,
                format!("this path takes {allow}"),
            )
        }
    }
}

impl From<ApiError> for Rejection {
    fn from(error: ApiError) -> Self {
        Self {
            status: StatusCode::from_u16(error.code.http_status())
                .expect("every error code's status is a valid one"),
            error,
            allow: None,
        }
    }
}

impl From<Rejection> for Answer {
    fn from(rejection: Rejection) -> Self {
        let mut answer = json(rejection.status, &rejection.error);
        if let Some(allow) = rejection.allow {
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(allow));
        }
        answer
    }
}
