//! A worker with work in the background, which it speaks of in its status.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use prefork_worker::{Context, Drain, Refused, Tell, Worker};
use serde_json::{Value, json};

/// Adds to the status.
fn note(context: &Context, line: &mut String, more: &str) {
    if !line.is_empty() {
        line.push_str(", ");
    }
    line.push_str(more);
    context.set_status(line.clone());
}

async fn obey(tell: Tell) -> Result<Value, Refused> {
    let context = tell.context;
    let pause = Duration::from_millis(tell.args.as_u64().unwrap_or(0));
    match tell.command.as_str() {
        "spawn" => {
            let watched = context.clone();
            context.spawn(async move {
                let mut line = String::new();
                watched.draining().await;
                note(&watched, &mut line, "told");
                tokio::time::sleep(pause).await;
                note(&watched, &mut line, "done");
            });
        }
        "forever" => context.spawn(std::future::pending()),
        "panic" => context.spawn(async { panic!("as asked for") }),
        "block" => {
            let result = context.blocking(until_there(&tell.args)).await;
            return Ok(json!(result.is_ok()));
        }
        "leave_blocking" => {
            let call = context.blocking(until_there(&tell.args));
            let _ = tokio::time::timeout(Duration::from_millis(50), call).await;
        }
        "panic_blocking" => {
            let result = context.blocking(|| panic!("as asked for")).await;
            let error: Result<(), _> = result;
            return Ok(json!(error.map_err(|error| error.to_string()).err()));
        }
        unknown => return Err(Refused::unknown_command(unknown)),
    }
    Ok(Value::Null)
}

/// Blocks until there is such a file.
fn until_there(path: &Value) -> impl FnOnce() + Send + 'static {
    let path = PathBuf::from(path.as_str().unwrap_or_default());
    move || {
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

async fn leave(drain: Drain) {
    eprintln!("leaving within {:?}", drain.within);
    tokio::time::sleep(Duration::from_millis(100)).await;
    eprintln!("said goodbye");
}

async fn answer(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new("ok\n".to_owned()))
}

pub(crate) fn main() -> ExitCode {
    Worker::new("busy", "1.2.3")
        .on_tell(obey)
        .on_drain(leave)
        .run(|_| async { Ok(service_fn(answer)) })
}
