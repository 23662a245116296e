//! Which path and body an order is.

use prefork_api::{ApiError, ErrorCode, LogLevelBody, ReloadBody, RollbackBody, ScaleBody, Status};
use serde_json::{Value, json};

use super::address::{PoolName, Target, Whom, WorkerAddress};
use super::args::{self, Order, Workers};
use super::client::{Client, Deadline, read};
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
            let wanted = wanted(flags.dry_run, flags.no_wait);
            let body = body(flags);
            return reload::run(client, "/v1/reload", wanted, &body, terminal, deadline).await;
        }
        Order::Rollback(flags) => {
            let wanted = wanted(flags.dry_run, flags.no_wait);
            let body = RollbackBody {
                dry_run: flags.dry_run,
                to: flags.to,
            };
            return reload::run(client, "/v1/rollback", wanted, &body, terminal, deadline).await;
        }
        Order::Upgrade { program } => {
            return upgrade::run(client, program, terminal, deadline).await;
        }
        Order::Stop { now } => return stop::run(client, now, terminal, deadline).await,
        Order::Wait { condition } => return wait::run(client, condition, terminal, deadline).await,
        Order::Scale {
            pool,
            workers,
            file,
        } => {
            let (exactly, by) = match workers {
                Some(Workers::Exactly(workers)) => (Some(workers), None),
                Some(Workers::By(by)) => (None, Some(by)),
                None => (None, None),
            };
            let body = ScaleBody {
                workers: exactly,
                by,
                file,
            };
            (format!("{}/scale", pool.path()), json!(body))
        }
        Order::LogLevel { level } => {
            let level = level.as_str().to_owned();
            ("/v1/log-level".to_owned(), json!(LogLevelBody { level }))
        }
        Order::ReopenLogs => ("/v1/reopen-logs".to_owned(), no_body()),
        Order::Promote => ("/v1/promote".to_owned(), no_body()),
        Order::Abort => ("/v1/abort".to_owned(), no_body()),
        Order::Restart { whom } => {
            let target = Target::from(whom);
            (format!("{}/restart", target.path()), no_body())
        }
        Order::Pause { whom } => return each(client, whom, "pause", terminal, deadline).await,
        Order::Resume { whom } => return each(client, whom, "resume", terminal, deadline).await,
        Order::Drain { whom } => return each(client, whom, "drain", terminal, deadline).await,
        Order::Kill { whom } => return each(client, whom, "kill", terminal, deadline).await,
    };
    job::run(client, &path, &body, terminal, deadline).await
}

/// Gives an order to one worker, or to every one of a pool in turn, also to those behind
/// one that fails; the first failure is the answer.
async fn each(
    client: &Client,
    whom: Whom,
    verb: &'static str,
    terminal: Terminal,
    deadline: Deadline,
) -> Result<(), Error> {
    let (workers, deadline) = match whom {
        Whom::One(worker) => (vec![worker], deadline),
        Whom::All(pool) => (slots(client, &pool, deadline).await?, deadline),
        Whom::Unsure(pool) if terminal.can_ask => {
            let slots = slots(client, &pool, deadline).await?;
            let many = slots.len();
            let workers = if many == 1 { "worker" } else { "workers" };
            if !terminal.ask(&format!("{verb} all {many} {workers} of {pool}?"))? {
                return Err(Error::Declined);
            }
            // Whoever thought it over has the whole time for it.
            (slots, Deadline::after(deadline.given))
        }
        Whom::Unsure(pool) => {
            let pool = pool.to_string();
            return Err(Error::NotSure { pool, verb });
        }
    };
    let mut first_failure = Ok(());
    for worker in workers {
        let path = format!("{}/{verb}", worker.path());
        let done = job::run(client, &path, &no_body(), terminal, deadline).await;
        if let (Err(error), Err(_)) = (&done, &first_failure) {
            terminal.note(&format!("prefork: {error}"));
        } else if first_failure.is_ok() {
            first_failure = done;
        }
    }
    first_failure
}

/// Every worker that a pool should have.
async fn slots(
    client: &Client,
    pool: &PoolName,
    deadline: Deadline,
) -> Result<Vec<WorkerAddress>, Error> {
    let after = deadline.given;
    let document = deadline.bound(client.document("/v1/status")).await;
    let document = document.unwrap_or(Err(Error::NoAnswer { after }))?;
    let status: Status = read(&document)?;
    let found = status.pools.iter().find(|it| it.name == pool.to_string());
    let Some(found) = found else {
        let known: Vec<&str> = status.pools.iter().map(|it| it.name.as_str()).collect();
        let message = format!("there is no pool {pool}; there is {}", known.join(", "));
        return Err(Error::Rejected(ApiError::new(ErrorCode::NotFound, message)));
    };
    let address = |slot| WorkerAddress {
        pool: pool.clone(),
        slot,
    };
    Ok((0..found.desired).map(address).collect())
}

fn wanted(dry_run: bool, no_wait: bool) -> Wanted {
    match (dry_run, no_wait) {
        (true, _) => Wanted::Preview,
        (false, true) => Wanted::Begun,
        (false, false) => Wanted::Committed,
    }
}

fn body(flags: args::Reload) -> ReloadBody {
    ReloadBody {
        dry_run: flags.dry_run,
        pools: flags.pools.iter().map(PoolName::to_string).collect(),
        force: flags.force,
        canary: flags.canary,
    }
}

fn no_body() -> Value {
    json!({})
}
