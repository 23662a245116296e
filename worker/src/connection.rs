//! Serves one connection from its first byte to its end, drain included.

use std::os::fd::AsRawFd;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::time::Instant;

use crate::request::Counted;
use crate::requests::Requests;
use crate::serving::Serving;
use crate::stream::Stream;
use crate::{StartError, http1, http2, tls};

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
    let client = if serving.access_log.is_on() {
        stream.client()
    } else {
        None
    };
    if let Some(config) = stream.take_handshake() {
        // On the heap, so that connections without TLS have no room for it.
        match Box::pin(tls::handshake(stream, config, serving)).await {
            Some(secured) => stream = secured,
            None => return,
        }
    }
    let requests = Requests::new(serving, stream.traffic(), client, stream.as_raw_fd());
    let counted = Counted::new(service, Rc::clone(&requests));
    match first_bytes(&mut stream, serving).await {
        First::Http1(read) => {
            stream.unread(read);
            http1::serve(stream, counted, &requests).await;
        }
        First::Http2(read) => {
            stream.unread(read);
            http2::serve(stream, counted, &requests).await;
        }
        First::Gone => {}
        First::Late => stream.close().await,
    }
}

/// How a connection begins.
enum First {
    Http1(Bytes),
    Http2(Bytes),
    /// The client left without a word.
    Gone,
    /// The client's time is over.
    Late,
}

async fn first_bytes(stream: &mut Stream, serving: &'static Serving) -> First {
    let mut read = BytesMut::with_capacity(1024);
    let accepted = serving.alarms.now();
    loop {
        let silent = read.is_empty() && !stream.is_within_record();
        let filled = tokio::select! {
            biased;
            filled = stream.fill(&mut read) => filled,
            () = time_ends(serving, accepted, silent) => {
                if silent && (stream.has_input() || stream.is_within_record()) {
                    // It is there, and the next turn of the loop brings it.
                    tokio::task::yield_now().await;
                    continue;
                }
                return First::Late;
            }
        };
        if !matches!(filled, Ok(1..)) {
            return First::Gone;
        }
        let compared = read.len().min(PREFACE.len());
        if read[..compared] != PREFACE[..compared] {
            return First::Http1(read.freeze());
        }
        if compared == PREFACE.len() {
            return First::Http2(read.freeze());
        }
    }
}

/// Waits until the client's time for its first bytes is over, as a drain has
/// it for a client that is silent. A drain may also accept what waited.
async fn time_ends(serving: &Serving, accepted: Instant, silent: bool) {
    let limits = &serving.rules().limits;
    if !silent {
        return serving.alarms.at(accepted + limits.header_timeout).await;
    }
    tokio::select! {
        () = serving.alarms.at(accepted + limits.idle_timeout) => {}
        terms = serving.drain.begun() => {
            let end = terms.since.max(accepted) + terms.idle_grace;
            serving.alarms.at(end).await;
        }
    }
}
