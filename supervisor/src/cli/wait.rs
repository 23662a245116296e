//! `prefork wait`: done as soon as a condition holds.

use std::time::Duration;

use prefork_proto::control::{SlotState, Status};
use tokio::time::{sleep, timeout};

use super::args::Condition;
use super::client::{Client, Deadline, Lines, read};
use super::error::Error;

/// Between two tries to find a supervisor that is still to come.
const APPEARANCE_PAUSE: Duration = Duration::from_millis(25);

/// The longest time between two looks at the status, for changes that no event tells.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits for a condition.
pub(super) async fn run(
    client: &Client,
    condition: Condition,
    deadline: Deadline,
) -> Result<(), Error> {
    // Why nobody has answered so far, which is what there is to say when the time is over.
    let mut silence = None;
    let work = async {
        // Subscribed first, looked at second: nothing falls between.
        let mut events = match appear(client, deadline, &mut silence).await {
            Ok(events) => Some(events),
            // It has no place for one more who follows: looking every now and then will do.
            Err(Error::Rejected(_)) => None,
            Err(error) => return Err(error),
        };
        loop {
            let status: Status = read(&client.document("/v1/status").await?)?;
            if holds(condition, &status) {
                return Ok(());
            }
            something_happens(events.as_mut()).await?;
        }
    };
    if let Some(done) = deadline.bound(work).await {
        return done;
    }
    Err(silence.unwrap_or_else(|| Error::NotReached {
        condition: words(condition),
        after: deadline.given,
    }))
}

/// Subscribes to what happens from now on, once there is a supervisor, so that
/// `prefork run & prefork wait --for ready` is no race however long the start takes.
/// `silence` is what there is to say if that never comes to an end.
async fn appear(
    client: &Client,
    deadline: Deadline,
    silence: &mut Option<Error>,
) -> Result<Lines, Error> {
    let path = format!("/v1/events?since={}&follow=1", u64::MAX);
    loop {
        *silence = Some(Error::NoAnswer {
            after: deadline.given,
        });
        match client.follow(&path).await {
            // One that was killed just after a fork leaves its socket to the
            // child until that has reached its exec: whoever comes then is
            // cut off before the next supervisor is there.
            Err(error @ Error::Lost(_)) => *silence = Some(error),
            Err(error) if error.is_not_running() => *silence = Some(error),
            found => {
                *silence = None;
                return found;
            }
        }
        sleep(APPEARANCE_PAUSE).await;
    }
}

/// Waits for events, or for long enough; takes all that have come.
async fn something_happens(events: Option<&mut Lines>) -> Result<(), Error> {
    let Some(events) = events else {
        sleep(LOOK_INTERVAL).await;
        return Ok(());
    };
    match timeout(LOOK_INTERVAL, events.next()).await {
        Ok(Ok(Some(_))) => {
            while events.buffered().is_some() {}
            Ok(())
        }
        Ok(Ok(None)) => Err(Error::Lost("it ended".to_owned())),
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => Ok(()),
    }
}

fn holds(condition: Condition, status: &Status) -> bool {
    match condition {
        Condition::Ready => status.ready && !status.stopping,
        Condition::Drained => status.pools.iter().all(|pool| {
            pool.workers.iter().all(|worker| {
                worker.draining.is_empty()
                    && !matches!(worker.state, SlotState::Draining | SlotState::Stopping)
            })
        }),
        Condition::Generation(number) => status.generation >= number,
    }
}

fn words(condition: Condition) -> String {
    match condition {
        Condition::Ready => "ready".to_owned(),
        Condition::Drained => "drained".to_owned(),
        Condition::Generation(number) => format!("at generation {number}"),
    }
}
