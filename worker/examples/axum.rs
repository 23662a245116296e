//! An axum router as a worker, with settings and a command of its own. Alone:
//! `cargo run --example axum`; supervised: `prefork run -- target/debug/examples/axum`,
//! then `prefork tell web greet '"world"'`.

use std::net::SocketAddr;
use std::process::ExitCode;

use axum::Router;
use axum::extract::{ConnectInfo, Path, State};
use axum::routing::get;
use prefork_worker::{Context, Peer, Refused, Tell, Worker};

async fn hello(State(context): State<Context>, Path(name): Path<String>) -> String {
    format!(
        "hello, {name}, from {}/{}\n",
        context.pool(),
        context.slot()
    )
}

/// Whoever asks; no client of a unix socket, which has no address.
async fn whoami(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
    format!("you are {client}\n")
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
                .route("/whoami", get(whoami))
                .layer(Peer::layer(|peer| peer.address().map(ConnectInfo)))
                .with_state(context))
        })
}
