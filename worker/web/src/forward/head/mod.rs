//! Heads of requests and responses as a party that forwards has to make them (RFC 9110,
//! section 7): what is for one connection ends here, what says who the client is is set
//! anew, and a body's length is said by whoever sends it on.

mod certificate;

use std::net::IpAddr;

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use hyper::http::request;
use hyper::{Method, Request, StatusCode, Uri, Version};

use super::X_REQUEST_ID;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What clients say in vain: programs believe it, so that only the front may say it.
/// `Proxy` is in it because it becomes `HTTP_PROXY` in a CGI-like environment.
const SAID_HERE: [&str; 6] = [
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "proxy",
    "client-cert",
    "client-cert-chain",
];

/// The beginnings of the names of others of that kind. The last two are what other servers
/// say of a client's certificate.
const SAID_HERE_BEGIN: [&str; 4] = [
    "x-forwarded-",
    "x-client-cert-",
    "x-ssl-client-",
    "ssl-client-",
];

/// Who a request comes from.
#[derive(Debug)]
pub(super) struct Client {
    /// None for one of a unix socket.
    pub(super) address: Option<IpAddr>,
    pub(super) is_secure: bool,
    /// With which it has proved who it is, in DER.
    pub(super) certificate: Option<Vec<u8>>,
    /// What the request is known by.
    pub(super) id: HeaderValue,
}

/// How a request goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// The worker is to close the connection after its answer.
    pub(super) closes: bool,
    /// The client asks for another protocol, and may have it.
    pub(super) upgrades: bool,
}

/// The head that goes on to a worker, with nothing as its body.
pub(super) fn request(head: &request::Parts, client: &Client, manner: Manner) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = target(&head.uri);
    let nominated = Nominated::of(&head.headers);
    let headers = request.headers_mut();
    headers.reserve(head.headers.len() + 8);
    for (name, value) in &head.headers {
        if !ends_here(name) && !is_said_here(name.as_str()) && !nominated.has(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    say_who(headers, head, client);
    headers.append(VIA, via(head.version));
    connect(headers, head, manner);
    request
}

/// The worker's head as the client gets it; `upgraded` keeps what names the new protocol.
pub(super) fn response(headers: &mut HeaderMap, version: Version, upgraded: bool) {
    let protocol = headers.remove(UPGRADE).filter(|_| upgraded);
    let nominated = Nominated::of(headers);
    for name in nominated.names() {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        TE,
        TRANSFER_ENCODING,
    ] {
        headers.remove(name);
    }
    headers.append(VIA, via(version));
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Whether a worker's head can be understood in one way only: two kinds of length, or
/// a coding that is not known, and what follows could be anything.
pub(super) fn is_sound(status: StatusCode, headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => true,
        (None, Some(_)) => lengths.next().is_none() && status != StatusCode::SWITCHING_PROTOCOLS,
        (Some(coding), None) => {
            codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        }
        (Some(_), Some(_)) => false,
    }
}

/// Whether the client expects something that is not known here (RFC 9110, 10.1.1).
pub(super) fn expects_the_unknown(headers: &HeaderMap) -> bool {
    let mut expected = headers.get_all(EXPECT).iter();
    expected.any(|it| !it.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether a request may be sent once more without being asked for (RFC 9110, 9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
    method.is_safe()
}

/// Whether `protocol`, with which a worker answers, is one that the client asked for.
pub(super) fn was_asked_for(protocol: Option<&HeaderValue>, asked: &HeaderMap) -> bool {
    let Some(protocol) = protocol else {
        return false;
    };
    let offered = asked.get_all(UPGRADE).iter();
    let mut offered = offered.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    offered.any(|it| it.trim_ascii().eq_ignore_ascii_case(protocol.as_bytes()))
}

/// The target without what names a host: that is in `Host`.
fn target(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    path.map_or_else(|| Uri::from_static("/"), Uri::from)
}

/// Fields that are for one connection, or that are said anew by whoever sends on it.
fn ends_here(name: &HeaderName) -> bool {
    [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        CONTENT_LENGTH,
        UPGRADE,
        HOST,
        // Met here: the body is asked for when the worker takes it.
        EXPECT,
    ]
    .contains(name)
}

/// Whether a name is one of those that only the front says, also where it is written
/// with underscores, which many programs take for the same.
fn is_said_here(name: &str) -> bool {
    let same = |one: u8, other: u8| one == other || (one == b'_' && other == b'-');
    let begins = |known: &str| {
        let mut pairs = name.bytes().zip(known.bytes());
        name.len() >= known.len() && pairs.all(|(one, other)| same(one, other))
    };
    SAID_HERE_BEGIN.into_iter().any(begins)
        || SAID_HERE
            .into_iter()
            .any(|known| name.len() == known.len() && begins(known))
}

fn say_who(headers: &mut HeaderMap, head: &request::Parts, client: &Client) {
    let host = host(head);
    let scheme = match client.is_secure {
        true => "https",
        false => "http",
    };
    let node = match client.address {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        None => "unknown".to_owned(),
    };
    let mut forwarded = format!("for={node};proto={scheme}");
    // A host that was let in has nothing in it that would end the quotes.
    if let Some(host) = host.as_ref().and_then(|host| host.to_str().ok()) {
        forwarded.push_str(&format!(";host=\"{host}\""));
    }
    if let Ok(forwarded) = HeaderValue::try_from(forwarded) {
        headers.insert(FORWARDED, forwarded);
    }
    if let Some(address) = client.address
        && let Ok(address) = HeaderValue::try_from(address.to_string())
    {
        headers.insert(X_FORWARDED_FOR, address);
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host.clone());
        headers.insert(HOST, host);
    }
    if let Some(der) = &client.certificate {
        certificate::say(headers, der);
    }
    headers.insert(X_REQUEST_ID, client.id.clone());
}

/// The host that is asked, which HTTP/2 says in its target.
fn host(head: &request::Parts) -> Option<HeaderValue> {
    let named = head.uri.authority();
    let named = named.and_then(|it| HeaderValue::from_str(it.as_str()).ok());
    named.or_else(|| head.headers.get(HOST).cloned())
}

fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2.0 prefork",
        Version::HTTP_10 => "1.0 prefork",
        _ => "1.1 prefork",
    })
}

fn connect(headers: &mut HeaderMap, head: &request::Parts, manner: Manner) {
    let mut options = Vec::new();
    if manner.closes && !manner.upgrades {
        options.push("close");
    }
    if takes_trailers(&head.headers) {
        options.push("te");
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if manner.upgrades {
        options.push("upgrade");
        for protocol in head.headers.get_all(UPGRADE) {
            headers.append(UPGRADE, protocol.clone());
        }
    }
    if let Ok(options) = HeaderValue::try_from(options.join(", "))
        && !options.is_empty()
    {
        headers.insert(CONNECTION, options);
    }
}

/// Whether the client says that it takes trailers, the one thing in `TE` that is not
/// about codings of its own connection.
fn takes_trailers(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(TE).iter();
    let mut members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members.any(|it| it.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The names that `Connection` lists: they end here as well (RFC 9110, 7.6.1).
struct Nominated(Vec<HeaderName>);

impl Nominated {
    fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(CONNECTION).iter();
        let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        let names = members.map(<[u8]>::trim_ascii);
        Self(
            names
                .filter_map(|name| HeaderName::from_bytes(name).ok())
                .collect(),
        )
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }

    fn names(&self) -> &[HeaderName] {
        &self.0
    }
}

#[cfg(test)]
mod tests;
