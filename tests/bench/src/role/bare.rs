//! The least that serves HTTP with hyper: what a worker is compared with.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::process::Child;

use anyhow::{Context, Result};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::{Role, command, stdin};
use crate::load::BODY;
use crate::sys;

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

/// Several of them on one listener, under a parent that does nothing.
pub(super) fn pool(workers: usize) -> Result<()> {
    let start = || {
        let mut command = command(Role::Bare, stdin()?)?;
        sys::tie_to_parent(&mut command);
        command.spawn().context("no child")
    };
    let children: Result<Vec<Child>> = (0..workers).map(|_| start()).collect();
    for mut child in children? {
        child.wait()?;
    }
    Ok(())
}
