//! `GET /v1/events`: what happened, as JSON lines, and what happens next.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use prefork_api::{ErrorCode, Event};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_local;

use super::answer::{Answer, Rejection, json_line, lines};
use super::ask;
use crate::handle::Handle;

/// Lines that wait for a slow reader; what comes meanwhile waits in the
/// supervisor's own history.
const AHEAD: usize = 64;

/// What the query string asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The first sequence number.
    since: u64,
    /// Whether to go on with what happens next.
    follow: bool,
}

impl Wanted {
    /// Reads a query string such as `since=12&follow=1`.
    pub(super) fn parse(query: &str) -> Result<Self, Rejection> {
        let mut wanted = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("since", number) => wanted.since = number.parse().map_err(|_| usage(pair))?,
                ("follow", "1" | "true") => wanted.follow = true,
                ("follow", "0" | "false") => wanted.follow = false,
                _ => return Err(usage(pair)),
            }
        }
        Ok(wanted)
    }
}

fn usage(pair: &str) -> Rejection {
    Rejection::new(
        ErrorCode::Usage,
        format!("`{pair}` is none of the parameters since=NUMBER and follow=1"),
    )
}

/// A place among those who follow.
pub(super) fn place(followers: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Rejection> {
    let place = Arc::clone(followers).try_acquire_owned();
    place.map_err(|_| {
        Rejection::with_status(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Failed,
            "too many follow events or the log already: ask without `follow`, or end one that follows",
        )
    })
}

/// Answers with the events kept, and with `follow` for as long as the client reads.
/// Those who follow are only so many: each has a connection for as long as it likes.
pub(super) async fn answer(
    handle: &Handle,
    wanted: Wanted,
    followers: &Arc<Semaphore>,
) -> Result<Answer, Rejection> {
    let place = wanted.follow.then(|| place(followers)).transpose()?;
    let (kept, following) = ask::events(handle, wanted.since).await?;
    let (out, body) = mpsc::channel(AHEAD);
    let pump = Pump {
        handle: handle.clone(),
        out,
        next: wanted.since,
        _place: place,
    };
    spawn_local(pump.run(kept, wanted.follow.then_some(following)));
    Ok(lines(body))
}

/// Moves events from the reactor to one client.
struct Pump {
    handle: Handle,
    out: mpsc::Sender<Bytes>,
    /// The first sequence number that the client doesn't have.
    next: u64,
    _place: Option<OwnedSemaphorePermit>,
}

impl Pump {
    /// Runs until the client leaves, the supervisor ends, or there is no more to say.
    async fn run(mut self, kept: Vec<Event>, mut following: Option<Receiver<Event>>) {
        if !self.send_all(kept).await {
            return;
        }
        while let Some(events) = &mut following {
            let received = tokio::select! {
                () = self.out.closed() => return,
                received = events.recv() => received,
            };
            let goes_on = match received {
                Ok(event) => self.send_all(vec![event]).await,
                // The client is slower than the supervisor is busy: begin
                // again with what is kept since.
                Err(RecvError::Lagged(_)) => match ask::events(&self.handle, self.next).await {
                    Ok((kept, again)) => {
                        following = Some(again);
                        self.send_all(kept).await
                    }
                    Err(_) => false,
                },
                Err(RecvError::Closed) => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Sends these, of which the client has none. Whether it is still there. A number that is to come yet keeps
    /// nothing back: whoever names one wants what happens from now on.
    async fn send_all(&mut self, events: Vec<Event>) -> bool {
        for event in events {
            self.next = event.seq + 1;
            if self.out.send(json_line(&event)).await.is_err() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_string_is_read_strictly() {
        let wanted = |query| Wanted::parse(query);
        assert_eq!(wanted(""), Ok(Wanted::default()));
        assert_eq!(
            wanted("since=12&follow=1"),
            Ok(Wanted {
                since: 12,
                follow: true
            })
        );
        for wrong in ["since=x", "since", "folow=1", "follow=maybe", "since=-1"] {
            let rejection = wanted(wrong).unwrap_err();
            assert_eq!(rejection.error.code, ErrorCode::Usage, "{wrong}");
            assert!(rejection.error.message.contains(wrong));
        }
    }
}
