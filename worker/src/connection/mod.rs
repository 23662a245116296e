//! Serves one connection from its first byte to its end, drain included.

mod http1;
mod http2;
pub(crate) mod peer;
mod proxy_protocol;
pub(crate) mod timeouts;

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use tokio::time::Instant;

use crate::StartError;
use crate::connection::http1::End;
use crate::connection::peer::{Peer, PeerTls};
use crate::idle::{self, RESTLESS};
use crate::process::Serving;
use crate::request::connection_state::Requests;
use crate::request::service::Counted;
use crate::transport::stream::Stream;
use crate::transport::tls;

/// What an HTTP/2 client sends first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection until it is closed or handed to the application.
///
/// The protocol is told apart here and not by hyper-util's auto server,
/// because a drain treats the two differently and must know what a connection
/// has read before it closes it.
pub(crate) async fn serve<S, B>(stream: Stream, serving: &'static Serving, service: Rc<S>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Future: 'static,
    S::Error: Into<StartError>,
    B: Body + 'static,
    B::Error: Into<StartError>,
{
    let mut stream = stream;
    let mut origin = stream.take_origin();
    if stream.is_proxied() {
        // On the heap, so that other connections have no room for it.
        match Box::pin(proxy_protocol::read(&mut stream, serving, &origin)).await {
            Some(client) => origin.address = client.or(origin.address),
            None => return stream.close().await,
        }
    }
    if let Some(config) = stream.take_handshake() {
        // On the heap, so that connections without TLS have no room for it.
        match Box::pin(tls::handshake(stream, config, serving)).await {
            Some(secured) => stream = secured,
            None => return,
        }
    }
    let secrecy = stream.secrecy();
    let agreed = match &secrecy {
        Some(tls) => Agreed::of(tls),
        None => stream.has_spoken_http1().then_some(Agreed::Http1),
    };
    let peer = Peer::new(origin, secrecy);
    let requests = Requests::new(serving, &stream, peer);
    let counted = Counted::new(service, Rc::clone(&requests));
    match first_bytes(&mut stream, &requests, agreed).await {
        First::Http1(read) => {
            stream.unread(read);
            match http1::serve(stream, counted, &requests).await {
                End::Over => {}
                End::Idle(stream, until) => idle::rest(stream, until, &requests),
                End::Leaves(stream) => idle::leave(stream, &requests),
            }
        }
        First::Http2(read) => {
            stream.unread(read);
            http2::serve(stream, counted, &requests).await;
        }
        First::Idle(until) => idle::rest(stream, until, &requests),
        First::Leaves => idle::leave(stream, &requests),
        First::Gone => {}
        // To a client of HTTP/2 there is nothing to be said before its preface.
        First::Late | First::Breach(Agreed::Http2) => stream.close().await,
        First::Breach(Agreed::Http1) => stream.refuse(StatusCode::BAD_REQUEST).await,
    }
}

/// The protocol that was agreed on in a handshake (RFC 7301), or that was spoken before the
/// connection came to rest. What is spoken then is that one or nothing; without agreement,
/// and on a new connection without TLS, the first bytes say which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agreed {
    Http1,
    Http2,
}

impl Agreed {
    fn of(tls: &PeerTls) -> Option<Self> {
        match tls.protocol.as_deref() {
            Some("h2") => Some(Self::Http2),
            Some("http/1.1") => Some(Self::Http1),
            _ => None,
        }
    }
}

/// How a connection begins.
enum First {
    Http1(Bytes),
    Http2(Bytes),
    /// The client has nothing to say, and may do so until then.
    Idle(Instant),
    /// The client has nothing to say, and another worker takes it.
    Leaves,
    /// The client left without a word.
    Gone,
    /// The client's time is over.
    Late,
    /// The client speaks another protocol than the one that was agreed on.
    Breach(Agreed),
}

async fn first_bytes(stream: &mut Stream, requests: &Requests, agreed: Option<Agreed>) -> First {
    let serving = requests.serving();
    let mut read = BytesMut::with_capacity(1024);
    let accepted = serving.timer.now();
    loop {
        let silent = read.is_empty() && !stream.is_within_record();
        let filled = tokio::select! {
            biased;
            filled = stream.fill(&mut read) => filled,
            first = time_ends(requests, accepted, silent) => {
                if silent && (stream.has_input() || stream.is_within_record()) {
                    // It is there, and the next turn of the loop brings it.
                    tokio::task::yield_now().await;
                    continue;
                }
                return first;
            }
        };
        if !matches!(filled, Ok(1..)) {
            return First::Gone;
        }
        let compared = read.len().min(PREFACE.len());
        let spoken = if read[..compared] != PREFACE[..compared] {
            Agreed::Http1
        } else if compared == PREFACE.len() {
            Agreed::Http2
        } else {
            continue;
        };
        return match (spoken, agreed) {
            (_, Some(agreed)) if agreed != spoken => First::Breach(agreed),
            (Agreed::Http1, _) => First::Http1(read.freeze()),
            (Agreed::Http2, _) => First::Http2(read.freeze()),
        };
    }
}

/// Waits until a client need not have what would serve it, or its time for its first bytes
/// is over, as a drain has it for one that is silent: it may also accept what waited.
async fn time_ends(requests: &Requests, accepted: Instant, silent: bool) -> First {
    let (limits, serving) = (requests.limits(), requests.serving());
    let (timer, drain) = (serving.timer, &serving.drain);
    if !silent {
        timer.sleep_until(accepted + limits.header_timeout).await;
        return First::Late;
    }
    let may_rest = requests.peer.tls().is_none() && !drain.is_on();
    let end = accepted + limits.idle_timeout;
    tokio::select! {
        () = timer.sleep_until(end) => First::Late,
        () = timer.sleep_until(accepted + RESTLESS), if may_rest => First::Idle(end),
        terms = drain.begun() => {
            if requests.goes_on() {
                return First::Leaves;
            }
            timer.sleep_until(terms.since.max(accepted) + terms.idle_grace).await;
            First::Late
        }
    }
}
