//! What is to be known of a request's head, found in one walk over its headers.

use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::header::HOST;

use crate::request::authority::is_authority;

/// A request's head in numbers.
#[derive(Debug)]
pub(crate) struct Head {
    /// Bytes of the target: its authority and its path.
    pub(crate) target: usize,
    /// What the target has of a path.
    pub(crate) path: TargetPath,
    /// Bytes of the headers' names and values.
    text: usize,
    pub(crate) hosts: Hosts,
    /// Bytes of the method's name.
    pub(crate) method: usize,
    /// Bytes of the body, where the head tells.
    pub(crate) body: Option<u64>,
    /// Whether there is a body.
    pub(crate) has_body: bool,
}

/// What a target has of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetPath {
    /// None: it is an authority alone.
    None,
    /// `*`, the server as a whole.
    Star,
    Some,
}

/// What there is of `Host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hosts {
    None,
    /// One, and well-formed.
    One,
    /// One that is not well-formed, or several.
    Unsound,
}

impl Head {
    pub(crate) fn of(request: &Request<Incoming>) -> Self {
        let uri = request.uri();
        let (path, kind) = match uri.path_and_query().map(|path| path.as_str().as_bytes()) {
            None => (0, TargetPath::None),
            Some(b"*") => (1, TargetPath::Star),
            Some(path) => (path.len(), TargetPath::Some),
        };
        let authority = uri.authority().map_or(0, |name| name.as_str().len());
        let mut head = Self {
            target: authority + path,
            path: kind,
            text: 0,
            hosts: Hosts::None,
            method: request.method().as_str().len(),
            body: request.body().size_hint().exact(),
            has_body: !request.body().is_end_stream(),
        };
        for (name, value) in request.headers() {
            head.text += name.as_str().len() + value.len();
            if name == HOST {
                head.hosts = match head.hosts {
                    Hosts::None if is_authority(value.as_bytes()) => Hosts::One,
                    _ => Hosts::Unsound,
                };
            }
        }
        head
    }

    /// How many bytes it took on the wire of HTTP/1, if its client wrote it
    /// without needless space.
    pub(crate) fn length(&self, request: &Request<Incoming>) -> u64 {
        let scheme = request.uri().scheme_str();
        let scheme = scheme.map_or(0, |scheme| scheme.len() + "://".len());
        let line = self.method + scheme + self.target + "  HTTP/1.1\r\n".len();
        let headers = self.text + request.headers().len() * ": \r\n".len();
        (line + headers + "\r\n".len()) as u64
    }

    /// Its size as a client of HTTP/2 has to measure it (RFC 9113, 6.5.2).
    pub(crate) fn list_size(&self, request: &Request<Incoming>) -> usize {
        self.target + self.text + request.headers().len() * 32
    }
}
