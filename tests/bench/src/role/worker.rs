//! The measured service as a worker: the SDK with everything on, except that its
//! requests don't tell who asks, as the bare loop's don't either.

use std::process::ExitCode;

use hyper::service::service_fn;
use prefork_worker::{Refused, Tell, Worker};
use serde_json::Value;

use super::bare::hello;

pub(super) fn run() -> ExitCode {
    Worker::new("prefork-bench", env!("CARGO_PKG_VERSION"))
        .on_tell(repeat)
        .without_peer()
        .run(|_context| async { Ok(service_fn(hello)) })
}

async fn repeat(tell: Tell) -> Result<Value, Refused> {
    Ok(tell.args)
}
