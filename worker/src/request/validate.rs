//! What a request has to be before the application sees it, beyond what hyper
//! sees to itself. A request that two servers could read in two ways is
//! refused, and its connection ends with the refusal (RFC 9112, 11.2).

use std::error::Error;
use std::io;

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode, Version};

use crate::limits::Limits;
use crate::request::authority::{is_authority, is_same, names_port};
use crate::request::head::{Head, Hosts, TargetPath};

/// The longest method that is looked at: no registered one has more than half
/// of it (RFC 9110, 9.1, asks for 501 where a method is not known).
const LONGEST_METHOD: usize = 40;

/// Looks at a request's head; says what to answer instead of serving it.
/// Nothing is allocated for a request that is as it should be.
pub(crate) fn screen(
    request: &mut Request<Incoming>,
    head: &Head,
    limits: &Limits,
) -> Result<(), StatusCode> {
    screen_sizes(request, head, limits)?;
    if head.method > LONGEST_METHOD {
        return Err(StatusCode::NOT_IMPLEMENTED);
    }
    if request.version() == Version::HTTP_2 {
        screen_names(request)?;
        return screen_target(request, head);
    }
    // Before the target's name gets into `Host`.
    screen_target(request, head)?;
    screen_host(request, head.hosts)?;
    // Without a length there is a body in chunks.
    if head.body.is_none() {
        screen_codings(request)?;
    }
    Ok(())
}

/// Which forms a target may have depends on the method (RFC 9112, 3.2): a CONNECT
/// names a host and a port, which no other method does, and only OPTIONS may mean
/// the server as a whole.
#[inline]
fn screen_target(request: &Request<Incoming>, head: &Head) -> Result<(), StatusCode> {
    let is_right = match head.path {
        // Both have as many letters, and hardly any request is one of them.
        path if head.method == "CONNECT".len() => is_form_of(request, path),
        path => path == TargetPath::Some,
    };
    is_right.then_some(()).ok_or(StatusCode::BAD_REQUEST)
}

fn is_form_of(request: &Request<Incoming>, path: TargetPath) -> bool {
    let uri = request.uri();
    match *request.method() {
        Method::CONNECT => {
            let is_authority = uri.scheme().is_none() && path == TargetPath::None;
            let target = uri.authority().filter(|_| is_authority);
            target.is_some_and(|target| names_port(target.as_str()))
        }
        Method::OPTIONS => path != TargetPath::None,
        _ => path == TargetPath::Some,
    }
}

fn screen_sizes(
    request: &Request<Incoming>,
    head: &Head,
    limits: &Limits,
) -> Result<(), StatusCode> {
    if head.target > limits.max_uri_size {
        return Err(StatusCode::URI_TOO_LONG);
    }
    // hyper sees to the size of an HTTP/1 head.
    let is_http2 = request.version() == Version::HTTP_2;
    if request.headers().len() > limits.max_headers
        || (is_http2 && head.list_size(request) > limits.max_header_size)
    {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    // What has no length is measured as it comes.
    let body = head.body.unwrap_or(0);
    if limits.max_body_size.is_some_and(|most| body > most) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    Ok(())
}

/// The one header that HTTP/1.1 asks for, once and well-formed (RFC 9112, 3.2).
fn screen_host(request: &mut Request<Incoming>, hosts: Hosts) -> Result<(), StatusCode> {
    match hosts {
        Hosts::One => {}
        Hosts::None if request.version() < Version::HTTP_11 => {}
        Hosts::None | Hosts::Unsound => return Err(StatusCode::BAD_REQUEST),
    }
    match request.uri().authority() {
        Some(authority) if request.method() != Method::CONNECT => {
            let authority = authority.clone();
            prefer(&authority, request)
        }
        _ => Ok(()),
    }
}

/// What a whole URI in the request line names stands above what `Host` says
/// (RFC 9112, 3.2.2), so that the application finds the same in both.
fn prefer(authority: &Authority, request: &mut Request<Incoming>) -> Result<(), StatusCode> {
    let named = authority.as_str();
    if !is_authority(named.as_bytes()) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let headers = request.headers_mut();
    if headers.get(HOST).is_some_and(|host| host != named) {
        let named = HeaderValue::from_str(named).map_err(|_| StatusCode::BAD_REQUEST)?;
        headers.insert(HOST, named);
    }
    Ok(())
}

/// HTTP/2 says it in `:authority`; a `Host` beside it must not say otherwise
/// (RFC 9113, 8.3.1). Where it says the same in another way, the application finds
/// one of them in both.
fn screen_names(request: &mut Request<Incoming>) -> Result<(), StatusCode> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let first = hosts.next();
    let is_only = hosts.next().is_none();
    let agreed = match (request.uri().authority(), first) {
        (Some(authority), None) => is_authority(authority.as_str().as_bytes()),
        (Some(authority), Some(host)) if is_only => {
            let named = authority.as_str();
            if host == named {
                is_authority(named.as_bytes())
            } else {
                let scheme = request.uri().scheme_str();
                if !is_same(named.as_bytes(), host.as_bytes(), scheme) {
                    return Err(StatusCode::BAD_REQUEST);
                }
                let authority = authority.clone();
                return prefer(&authority, request);
            }
        }
        (None, Some(host)) if is_only => is_authority(host.as_bytes()),
        _ => false,
    };
    agreed.then_some(()).ok_or(StatusCode::BAD_REQUEST)
}

/// Chunks are the only coding that is taken apart here, and only once (RFC
/// 9112, 6.1). Several lines are one list (RFC 9110, 5.3).
fn screen_codings(request: &Request<Incoming>) -> Result<(), StatusCode> {
    let lines = request.headers().get_all(TRANSFER_ENCODING).iter();
    let named = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let (mut codings, mut chunked, mut last) = (0, 0, false);
    // An empty member is none (RFC 9110, 5.6.1).
    for coding in named.map(<[u8]>::trim_ascii).filter(|it| !it.is_empty()) {
        last = coding.eq_ignore_ascii_case(b"chunked");
        chunked += u32::from(last);
        codings += 1;
    }
    match (codings, chunked) {
        (1, 1) => Ok(()),
        (_, 1) if last => Err(StatusCode::NOT_IMPLEMENTED),
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

/// Whether the application failed because the request's body is not what its
/// head announced: a chunk of no size, an end before the end.
pub(crate) fn is_bad_body(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    let mut of_hyper = false;
    while let Some(error) = cause {
        of_hyper |= error.is::<hyper::Error>();
        if of_hyper && let Some(error) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
            return matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof);
        }
        cause = error.source();
    }
    false
}
