//! What may follow a response's head: nothing where the request was a HEAD, where
//! the status says so, or where a tunnel begins (RFC 9110, 6.4.1).
//!
//! hyper cuts content on HTTP/1 and sends it on HTTP/2, where a client takes it for
//! a breach of the protocol. So it is cut here, for both, and what stays in the head
//! is what the same section allows.

use std::sync::Once;

use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use hyper::{Response, StatusCode};

use crate::output::say;
use crate::request::in_flight::{Asks, InFlight};

/// Whether nothing follows the head of a response with this status.
#[inline]
pub(crate) fn lacks_content(status: StatusCode, asks: Asks) -> bool {
    match asks {
        Asks::Content if status == StatusCode::OK => false,
        Asks::Head => true,
        Asks::Tunnel if status.is_success() => true,
        _ => status.is_informational() || has_none(status),
    }
}

/// Statuses whose responses have no content, and no length but 0.
fn has_none(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    )
}

/// Whether a response with this status may be the answer. 1xx are not: another
/// one has to follow, except for 101 where it was asked for (RFC 9110, 15.2),
/// which HTTP/2 does not know (RFC 9113, 8.6).
pub(crate) fn is_answer(status: StatusCode, in_flight: &InFlight) -> bool {
    let is_switch = status == StatusCode::SWITCHING_PROTOCOLS
        && in_flight.asks == Asks::Upgrade
        && !in_flight.is_http2;
    if status.is_informational() && !is_switch {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            say(format_args!(
                "the application answered with status {}, which is no answer to what was asked; \
                 the client gets 500 (said once)",
                status.as_u16()
            ));
        });
        return false;
    }
    true
}

/// Takes the content away. What is said of its length stays where it is the
/// length that a GET would get, and is put there where only the content tells.
pub(crate) fn cut<B: Body>(response: Response<B>, asks: Asks) -> Response<()> {
    let status = response.status();
    let (mut head, body) = response.into_parts();
    let length = body.size_hint().exact();
    let is_empty = body.is_end_stream() || length == Some(0);
    let headers = &mut head.headers;
    if status == StatusCode::NOT_MODIFIED {
        // A length would be that of what has not been modified.
    } else if asks != Asks::Head || has_none(status) {
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRANSFER_ENCODING);
    } else if let Some(length @ 1..) = length.filter(|_| !tells_length(headers)) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    if asks != Asks::Head && !is_empty {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            say(format_args!(
                "the application gave content with status {}, which has none; it is not sent \
                 (said once)",
                status.as_u16()
            ));
        });
    }
    Response::from_parts(head, ())
}

fn tells_length(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING)
}
