//! An axum router as a worker, with settings and a command of its own. Alone:
//! `cargo run --example axum`; supervised: `prefork run -- target/debug/examples/axum`,
//! then `prefork tell web greet '"world"'`.

use std::process::ExitCode;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use prefork_worker::{Context, Refused, Tell, Worker};

async fn hello(State(context): State<Context>, Path(name): Path<String>) -> String {
    format!(
        "hello, {name}, from {}/{}\n",
        context.pool(),
        context.slot()
    )
}

async fn obey(tell: Tell) -> Result<serde_json::Value, Refused> {
    match tell.command.as_str() {
        "greet" => Ok(format!("hello, {}", tell.args).into()),
        unknown => Err(Refused::unknown_command(unknown)),
    }
}

fn main() -> ExitCode {
    Worker::new("axum-example", env!("CARGO_PKG_VERSION"))
        .on_tell(obey)
        .run_tower(|context| async {
            Ok(Router::new()
                .route("/hello/{name}", get(hello))
                .with_state(context))
        })
}
