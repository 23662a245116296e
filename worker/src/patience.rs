//! How long a connection may stay without a word, or with half of one.

use std::time::Duration;

use tokio::time::Instant;

use crate::request::Requests;

/// What a connection's client is given time for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// To finish the head of an HTTP/1 request that it has begun.
    pub(crate) head: Duration,
    /// To begin a request.
    pub(crate) idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
        }
    }
}

/// Watches over a connection by looking at it now and then: a look costs the
/// requests between it and the next nothing, where a timer of each request's
/// own would. So a client has at most one and a half times as long as it is given.
#[derive(Debug)]
pub(crate) struct Watch {
    patience: Patience,
    protocol: Protocol,
    seen: Progress,
    /// When it was first seen so.
    since: Instant,
    /// When to look again.
    pub(crate) next: Instant,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// What comes after a request's end is the next one's head.
    Http1,
    /// What comes may be anything.
    Http2,
}

/// What of a connection changes as long as its client does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// A request is answered, for as long as that takes.
    Busy,
    /// Nothing came since this many bytes.
    Idle(u64),
    /// The rest of a head is missing that began after this many bytes.
    Head(u64),
}

/// For what the time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// To begin a request.
    Idle,
    /// To finish the head of one.
    Head,
}

impl Watch {
    /// Begins to watch over a connection, by its requests.
    pub(crate) fn new(protocol: Protocol, requests: &Requests) -> Self {
        let now = Instant::now();
        let patience = requests.serving().patience;
        Self {
            patience,
            protocol,
            seen: progress(protocol, requests),
            since: now,
            next: now + Self::interval(patience),
        }
    }

    fn interval(patience: Patience) -> Duration {
        patience.head.min(patience.idle) / 2
    }

    /// Looks at the connection; says if its client's time is over.
    pub(crate) fn look(&mut self, requests: &Requests) -> Option<Late> {
        let now = Instant::now();
        if now < self.next {
            return None;
        }
        self.next = now + Self::interval(self.patience);
        let progress = progress(self.protocol, requests);
        if progress != self.seen {
            self.seen = progress;
            self.since = now;
            return None;
        }
        let (late, given) = match progress {
            Progress::Busy => return None,
            Progress::Idle(_) => (Late::Idle, self.patience.idle),
            Progress::Head(_) => (Late::Head, self.patience.head),
        };
        (now >= self.since + given).then_some(late)
    }
}

fn progress(protocol: Protocol, requests: &Requests) -> Progress {
    if requests.busy() {
        Progress::Busy
    } else if protocol == Protocol::Http1 && requests.head_begun() {
        Progress::Head(requests.consumed())
    } else {
        Progress::Idle(requests.received())
    }
}
