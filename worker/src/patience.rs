//! How long a connection may stay without a word, or with half of one.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Limits;
use crate::quiet::Quiet;
use crate::requests::Requests;
use crate::serving::Serving;
use crate::unanswered::Input;
use crate::uploads::Uploads;

/// Watches over a connection by looking at it now and then: a look costs the
/// requests between it and the next nothing, where a timer of each request's
/// own would. So a client has at most one and a half times as long as it is given.
#[derive(Debug)]
pub(crate) struct Watch {
    limits: &'static Limits,
    interval: Duration,
    protocol: Protocol,
    seen: Progress,
    /// When it was first seen so.
    since: Instant,
    /// What had come when something was last seen to have come, and when that was.
    received: u64,
    moved: Instant,
    /// When to look again.
    pub(crate) next: Instant,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// What comes after a request's end is the next one's head.
    Http1,
    /// What comes are frames, of any stream.
    Http2,
}

/// What of a connection changes as long as its client does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// A request is answered, for as long as that takes.
    Busy,
    /// More of a response is there than the client takes, since this many bytes.
    Stalled(u64),
    /// Nothing came since this many bytes.
    Idle(u64),
    /// The rest of a head is missing that began after this many bytes, or on
    /// this stream.
    Head(u64),
}

/// For what the time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// To begin a request.
    Idle,
    /// To finish the head of one.
    Head,
    /// To take what was asked for.
    Stalled,
}

/// What ends the wait beside a connection's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// A drain has begun.
    Drain,
    /// It is time to look at the connection again.
    Look,
}

/// Waits for the time to look at a connection again, or for a drain where none
/// has begun, at no cost to its requests.
pub(crate) fn look_or_drain(
    serving: &Serving,
    look: Instant,
    is_draining: bool,
) -> Quiet<impl Future<Output = Next>> {
    Quiet::new(async move {
        tokio::select! {
            biased;
            _ = serving.drain.begun(), if !is_draining => Next::Drain,
            () = serving.alarms.at(look) => Next::Look,
        }
    })
}

impl Watch {
    /// Begins to watch over a connection, by its requests.
    pub(crate) fn new(protocol: Protocol, requests: &Requests) -> Self {
        let now = requests.serving().alarms.now();
        let limits = requests.limits();
        let interval = limits.look();
        Self {
            limits,
            interval,
            protocol,
            seen: progress(protocol, requests),
            since: now,
            received: requests.received(),
            moved: now,
            next: now + interval,
        }
    }

    /// Looks at the connection: sees to it that requests whose time is over are
    /// answered, and says if its client's time is over.
    pub(crate) fn look(&mut self, requests: &Requests) -> Option<Late> {
        let now = requests.serving().alarms.now();
        if now < self.next {
            return None;
        }
        self.next = now + self.interval;
        let received = requests.received();
        if received != self.received {
            self.received = received;
            self.moved = now;
        }
        let input = Input {
            received,
            moved: self.moved,
            ends_empty: requests.input_ends_empty(),
            uploads: requests.uploads(),
        };
        requests.unanswered.judge(now, self.limits, input);
        let progress = progress(self.protocol, requests);
        if progress != self.seen {
            self.seen = progress;
            self.since = now;
            return None;
        }
        let (late, given) = match progress {
            Progress::Busy => return None,
            Progress::Stalled(_) => (Late::Stalled, self.limits.write_timeout?),
            Progress::Idle(_) => (Late::Idle, self.limits.idle_timeout),
            Progress::Head(_) => (Late::Head, self.limits.header_timeout),
        };
        (now >= self.since + given).then_some(late)
    }
}

fn progress(protocol: Protocol, requests: &Requests) -> Progress {
    if requests.offers_more_than_is_taken() {
        Progress::Stalled(requests.sent())
    } else if requests.busy() {
        Progress::Busy
    } else if protocol == Protocol::Http1 && requests.head_begun() {
        Progress::Head(requests.consumed())
    } else if let Some(stream) = requests.uploads().and_then(Uploads::opening) {
        Progress::Head(stream.into())
    } else {
        Progress::Idle(requests.received())
    }
}
