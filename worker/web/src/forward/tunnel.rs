//! A connection that has changed its protocol: bytes go through in both directions
//! until either end closes.

use hyper::Response;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, on};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::task::spawn_local;

use super::exchange::Exchange;

/// Begins to pass bytes on as soon as the client has the answer.
pub(super) fn begin(client: OnUpgrade, answer: &mut Response<Incoming>, exchange: Box<Exchange>) {
    let worker = on(answer);
    spawn_local(async move {
        // The place is held as long as the tunnel is.
        let exchange = exchange;
        if let (Ok(client), Ok(worker)) = tokio::join!(client, worker) {
            let (mut client, mut worker) = (TokioIo::new(client), TokioIo::new(worker));
            // However it ends, it has ended.
            let _ = copy_bidirectional(&mut client, &mut worker).await;
        }
        exchange.end_tunnel();
    });
}
