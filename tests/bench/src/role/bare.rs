//! The least that serves HTTP with hyper: what a worker is compared with.

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use anyhow::Result;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use crate::load::BODY;

/// Serves for ever: one thread, the settings that the SDK has, no counting,
/// no drain, no channel.
pub(super) fn serve(listener: OwnedFd) -> Result<()> {
    // Accepted sockets inherit it.
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(async move {
                let io = TokioIo::new(stream);
                let connection = http1::Builder::new()
                    .serve_connection(io, service_fn(hello))
                    .with_upgrades();
                // How a connection ends is between hyper and the client.
                let _ = connection.await;
            });
        }
    })
}

/// The service that is measured everywhere.
pub(super) async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new(BODY.to_owned()))
}
