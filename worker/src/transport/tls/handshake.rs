//! A connection's handshake, which its client has limited time for.

use std::io;
use std::sync::Arc;

use prefork_proto::tls::HandshakeFailure;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use crate::connection::timeouts::beginning_ends;
use crate::process::Serving;
use crate::transport::stream::Stream;

/// Does the connection's handshake. `None` where there is none in time: it is
/// closed and counted, and nobody is told, since anyone may send anything to a
/// port. A client that leaves without a word is none that has failed, nor is one
/// that a drain closes.
pub(crate) async fn handshake(
    stream: Stream,
    config: Arc<ServerConfig>,
    serving: &'static Serving,
) -> Option<Stream> {
    let (mut wire, traffic) = stream.into_wire()?;
    wire.expect_records();
    let done = TlsAcceptor::from(config).accept(wire).into_fallible();
    tokio::select! {
        biased;
        done = done => match done {
            Ok(secured) => Some(Stream::secured(secured, serving, Arc::clone(&traffic))),
            Err((error, wire)) => {
                if traffic.has_begun() {
                    serving.tally.handshake_failed(reason(&error));
                    if let Some(cause) = cause(&error) {
                        serving.refusals.count(cause);
                    }
                }
                // What TLS has to say of it is on its way to the client.
                let wire = Stream::unsecured(wire, serving, Arc::clone(&traffic));
                wire.close().await;
                None
            }
        },
        failed = beginning_ends(serving, || traffic.has_begun()) => {
            if failed {
                serving.tally.handshake_failed(HandshakeFailure::Timeout);
            }
            None
        }
    }
}

/// What TLS says of a failure; none where its connection has failed.
fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|cause| cause.downcast_ref())
}

/// Why a handshake failed, from what TLS or its connection says of it.
fn reason(error: &io::Error) -> HandshakeFailure {
    match cause(error) {
        Some(rustls::Error::AlertReceived(_)) => HandshakeFailure::Rejected,
        Some(rustls::Error::PeerIncompatible(_)) => HandshakeFailure::Incompatible,
        Some(_) => HandshakeFailure::Protocol,
        None => HandshakeFailure::Closed,
    }
}
