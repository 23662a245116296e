//! `prefork wait`: done as soon as a condition holds.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use prefork_api::{SlotState, Status};
use tokio::time::{sleep, timeout};

use super::args::Condition;
use super::client::{Client, Deadline, Lines, read};
use super::error::Error;
use super::terminal::Terminal;
use super::units::seconds;

/// Between two tries to find a supervisor that is still to come.
const APPEARANCE_PAUSE: Duration = Duration::from_millis(25);

/// The longest time between two looks at the status, for changes that no event tells.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// After this time it is said what is waited for: nothing was wrong until then.
const SAID_AFTER: Duration = Duration::from_secs(1);

/// Why nobody has answered so far, if nobody has.
type Silence = RefCell<Option<Error>>;

/// Waits for a condition.
pub(super) async fn run(
    client: &Client,
    condition: Condition,
    terminal: Terminal,
    deadline: Deadline,
) -> Result<(), Error> {
    let silence = Silence::default();
    let done = tokio::select! {
        biased;
        done = until(client, condition, deadline, &silence) => done,
        never = say(client, condition, terminal, deadline, &silence) => match never {},
    };
    done.unwrap_or_else(|| {
        Err(silence.take().unwrap_or_else(|| Error::NotReached {
            condition: words(condition),
            after: deadline.given,
        }))
    })
}

/// Says once what is waited for, and is silent then.
async fn say(
    client: &Client,
    condition: Condition,
    terminal: Terminal,
    deadline: Deadline,
    silence: &Silence,
) -> Infallible {
    sleep(SAID_AFTER).await;
    let within = seconds(deadline.given.as_secs_f64());
    let what = match silence.borrow().is_some() {
        true => format!(
            "for a supervisor that answers at {}",
            client.socket().display()
        ),
        false => format!("until it is {}", words(condition)),
    };
    terminal.note(&format!("waiting for up to {within} {what}"));
    pending().await
}

/// Waits until the condition holds; nothing where the time is over first.
async fn until(
    client: &Client,
    condition: Condition,
    deadline: Deadline,
    silence: &Silence,
) -> Option<Result<(), Error>> {
    let work = async {
        // Subscribed first, looked at second: nothing falls between.
        let mut events = match appear(client, deadline, silence).await {
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
    deadline.bound(work).await
}

/// Subscribes to what happens from now on, once there is a supervisor, so that
/// `prefork run & prefork wait --for ready` is no race however long the start takes.
/// `silence` is what there is to say if that never comes to an end.
async fn appear(client: &Client, deadline: Deadline, silence: &Silence) -> Result<Lines, Error> {
    let path = format!("/v1/events?since={}&follow=1", u64::MAX);
    loop {
        *silence.borrow_mut() = Some(Error::NoAnswer {
            after: deadline.given,
        });
        match client.follow(&path).await {
            // One that was killed just after a fork leaves its socket to the
            // child until that has reached its exec: whoever comes then is
            // cut off before the next supervisor is there.
            Err(error @ Error::Lost(_)) => *silence.borrow_mut() = Some(error),
            Err(error) if error.is_not_running() => *silence.borrow_mut() = Some(error),
            found => {
                silence.take();
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
