//! Which path and body an order is.

use prefork_proto::control::{LogLevelBody, ScaleBody};
use serde_json::{Value, json};

use super::args::{self, Order};
use super::client::{Client, Deadline};
use super::error::Error;
use super::reload::{self, Wanted};
use super::terminal::Terminal;
use super::{job, stop, upgrade, wait};

/// Gives an order and waits until it is carried out.
pub(super) async fn carry_out(
    client: &Client,
    order: Order,
    terminal: Terminal,
    deadline: Deadline,
) -> Result<(), Error> {
    let (path, body) = match order {
        Order::Tell { target, name, args } => {
            let args = args.unwrap_or_default();
            return job::tell(client, &target, name, args, terminal, deadline).await;
        }
        Order::Reload(flags) => {
            return reload::run(client, wanted(&flags), terminal, deadline).await;
        }
        Order::Upgrade { program } => {
            return upgrade::run(client, program, terminal, deadline).await;
        }
        Order::Stop { now } => return stop::run(client, now, terminal, deadline).await,
        Order::Wait { condition } => return wait::run(client, condition, deadline).await,
        Order::Scale { pool, workers } => (
            format!("{}/scale", pool.path()),
            json!(ScaleBody { workers }),
        ),
        Order::LogLevel { level } => {
            let level = level.as_str().to_owned();
            ("/v1/log-level".to_owned(), json!(LogLevelBody { level }))
        }
        Order::ReopenLogs => ("/v1/reopen-logs".to_owned(), no_body()),
        Order::Restart { target } => (format!("{}/restart", target.path()), no_body()),
        Order::Pause { worker } => (format!("{}/pause", worker.path()), no_body()),
        Order::Resume { worker } => (format!("{}/resume", worker.path()), no_body()),
        Order::Drain { worker } => (format!("{}/drain", worker.path()), no_body()),
        Order::Kill { worker } => (format!("{}/kill", worker.path()), no_body()),
    };
    job::run(client, &path, &body, terminal, deadline).await
}

fn wanted(flags: &args::Reload) -> Wanted {
    match (flags.dry_run, flags.no_wait) {
        (true, _) => Wanted::Preview,
        (false, true) => Wanted::Begun,
        (false, false) => Wanted::Committed,
    }
}

fn no_body() -> Value {
    json!({})
}
