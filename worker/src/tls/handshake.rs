//! A connection's handshake, which its client has limited time for.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use crate::serving::Serving;
use crate::stream::Stream;

/// Does the connection's handshake. `None` where there is none in time: it is
/// closed, and nobody is told, since anyone may send anything to a port.
pub(crate) async fn handshake(
    stream: Stream,
    config: Arc<ServerConfig>,
    serving: &'static Serving,
) -> Option<Stream> {
    let (mut wire, traffic) = stream.into_wire()?;
    let begun = Instant::now();
    wire.expect_records();
    let done = TlsAcceptor::from(config).accept(wire).into_fallible();
    let late = async {
        let deadline = begun + serving.rules().limits.header_timeout;
        tokio::select! {
            () = sleep_until(deadline) => return,
            terms = serving.drain.begun() => {
                let grace = terms.since.max(begun) + terms.idle_grace;
                sleep_until(grace.min(deadline)).await;
            }
        }
        // A drain closes those who have said nothing.
        if traffic.has_begun() {
            sleep_until(deadline).await;
        }
    };
    tokio::select! {
        biased;
        done = done => match done {
            Ok(secured) => Some(Stream::secured(secured, serving, Arc::clone(&traffic))),
            Err((_, wire)) => {
                // What TLS has to say of it is on its way to the client.
                let wire = Stream::unsecured(wire, serving, Arc::clone(&traffic));
                wire.close().await;
                None
            }
        },
        () = late => None,
    }
}
