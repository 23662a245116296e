//! The measured service as a worker: the SDK as it is without any settings.

use std::process::ExitCode;

use hyper::service::service_fn;
use prefork_worker::{Refused, Tell, Worker};
use serde_json::Value;

use super::bare::hello;

pub(super) fn run() -> ExitCode {
    serve(worker())
}

/// The same, but its requests don't tell who asks, as the bare loop's don't either.
pub(super) fn run_peerless() -> ExitCode {
    serve(worker().without_peer())
}

fn worker() -> Worker {
    Worker::new("prefork-bench", env!("CARGO_PKG_VERSION"))
        .own_arguments()
        .on_tell(repeat)
}

fn serve(worker: Worker) -> ExitCode {
    worker.run(|_context| async { Ok(service_fn(hello)) })
}

async fn repeat(tell: Tell) -> Result<Value, Refused> {
    Ok(tell.args)
}
