//! Answers of the web server's own, as HTML for browsers and text for the rest.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use hyper::{Method, Response, StatusCode};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// One page in both forms.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) html: Bytes,
    pub(crate) text: Bytes,
}

impl Page {
    /// The form that the request prefers. A response to HEAD keeps its body
    /// here and loses it on its way, where its length is told nevertheless.
    pub(crate) fn answer(&self, request: &HeaderMap) -> Response<Full<Bytes>> {
        let (kind, body) = if wants_html(request) {
            (HTML, &self.html)
        } else {
            (TEXT, &self.text)
        };
        let mut response = Response::new(Full::new(body.clone()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(VARY, HeaderValue::from_static("accept"));
        response
    }
}

fn wants_html(request: &HeaderMap) -> bool {
    request
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
}

/// There is nothing at this path.
pub(crate) fn not_found(request: &HeaderMap) -> Response<Full<Bytes>> {
    Page {
        status: StatusCode::NOT_FOUND,
        html: Bytes::from_static(include_str!("not_found.html").as_bytes()),
        text: Bytes::from_static(b"404: there is nothing here\n"),
    }
    .answer(request)
}

/// The answer to a method that is neither GET nor HEAD, if it is none of them.
pub(crate) fn not_allowed(method: &Method) -> Option<Response<Full<Bytes>>> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let text = Bytes::from_static(b"405: GET and HEAD work here\n");
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(response)
}
