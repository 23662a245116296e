//! Questions to the reactor, each with a deadline.

use std::time::Duration;

use hyper::StatusCode;
use prefork_api::{Channels, Describe, ErrorCode, Event, Requests, Status, Traffic};
use tokio::sync::{broadcast, oneshot};
use tokio::time::timeout;

use super::answer::Rejection;
use crate::handle::{Handle, Member, Overview, Request, Wanted};
use crate::log::Memory;

/// The reactor answers between two steps of its loop; longer than this and
/// something is badly wrong, which the caller has to learn.
const DEADLINE: Duration = Duration::from_secs(10);

/// The status document.
pub(crate) async fn status(handle: &Handle) -> Result<Status, Rejection> {
    ask(handle, Request::Status).await
}

/// The exposition in text format 0.0.4.
pub(crate) async fn metrics(handle: &Handle) -> Result<String, Rejection> {
    ask(handle, Request::Metrics).await
}

/// Every worker's process.
pub(super) async fn workers(handle: &Handle) -> Result<Vec<Member>, Rejection> {
    ask(handle, Request::Workers).await
}

/// What was served.
pub(super) async fn traffic(handle: &Handle) -> Result<Traffic, Rejection> {
    ask(handle, Request::Traffic).await
}

/// What the page at the admin address shows.
pub(crate) async fn overview(handle: &Handle) -> Result<Overview, Rejection> {
    ask(handle, Request::Overview).await
}

/// A row per channel.
pub(super) async fn channels(handle: &Handle) -> Result<Channels, Rejection> {
    ask(handle, Request::Channels).await
}

/// One slot in full.
pub(super) async fn describe(
    handle: &Handle,
    pool: String,
    slot: u32,
) -> Result<Describe, Rejection> {
    let answer = ask(handle, |reply| Request::Describe { pool, slot, reply }).await?;
    Ok(answer?)
}

/// The requests that are being served.
pub(super) async fn requests(handle: &Handle, wanted: Wanted) -> Result<Requests, Rejection> {
    let answer = ask(handle, |reply| Request::Requests { wanted, reply }).await?;
    Ok(answer?)
}

/// The events kept from `since` on, and those that follow.
pub(crate) async fn events(
    handle: &Handle,
    since: u64,
) -> Result<(Vec<Event>, broadcast::Receiver<Event>), Rejection> {
    ask(handle, |reply| Request::Events { since, reply }).await
}

/// The last of the log, where the pool and slot are known.
pub(super) async fn log(
    handle: &Handle,
    pool: Option<String>,
    slot: Option<u32>,
) -> Result<Memory, Rejection> {
    let answer = ask(handle, |reply| Request::Log { pool, slot, reply }).await?;
    Ok(answer?)
}

/// Asks, and waits for the answer.
pub(super) async fn ask<T>(
    handle: &Handle,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Rejection> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        handle.0.send(request(reply)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    };
    timeout(DEADLINE, asked).await.unwrap_or_else(|_| {
        Err(Rejection::new(
            ErrorCode::TimedOut,
            format!(
                "the supervisor's loop did not answer within {} s",
                DEADLINE.as_secs()
            ),
        ))
    })
}

/// The rejection of whatever comes while the supervisor leaves.
pub(super) fn ending() -> Rejection {
    Rejection::with_status(
        StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Failed,
        "the supervisor is ending",
    )
}
