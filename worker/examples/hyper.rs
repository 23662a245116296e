//! A hyper service as a worker. Alone: `cargo run --example hyper`; supervised:
//! `prefork run -- target/debug/examples/hyper`.

use std::convert::Infallible;
use std::process::ExitCode;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use prefork_worker::Worker;

async fn hello(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new(format!("hello, {}\n", request.uri().path())))
}

fn main() -> ExitCode {
    Worker::new("hyper-example", env!("CARGO_PKG_VERSION"))
        .run(|_context| async { Ok(service_fn(hello)) })
}
