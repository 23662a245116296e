//! How long a connection may stay without a word, or with half of one.

use std::time::Duration;

use tokio::time::Instant;

use crate::idle::RESTLESS;
use crate::limits::Limits;
use crate::limits::min_rate::Pace;
use crate::process::Serving;
use crate::request::connection_state::Requests;
use crate::request::deadlines::Input;
use crate::runtime::own_waker::Quiet;
use crate::transport::http2::bodies::Uploads;

/// What is left of a connection's window of HTTP/2 where its streams wait for it:
/// less than one frame.
const NO_WINDOW: u64 = 16 << 10;

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
    /// How what is sent comes to the client while there is more than it takes, and
    /// how the streams' bodies do.
    sending: Option<Pace>,
    streaming: Pace,
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
    /// No request came since this many bytes.
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

/// Waits until a connection's time is over for what comes before its first request: it
/// is as long as for the head of one. A drain closes those who have said nothing. Whether
/// the client had begun.
pub(crate) async fn beginning_ends(serving: &Serving, has_begun: impl Fn() -> bool) -> bool {
    let timer = serving.timer;
    let accepted = timer.now();
    let deadline = accepted + serving.rules().limits.header_timeout;
    tokio::select! {
        () = timer.sleep_until(deadline) => return true,
        terms = serving.drain.begun() => {
            let grace = terms.since.max(accepted) + terms.idle_grace;
            timer.sleep_until(grace.min(deadline)).await;
        }
    }
    let has_begun = has_begun();
    if has_begun {
        timer.sleep_until(deadline).await;
    }
    has_begun
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
            () = serving.timer.sleep_until(look) => Next::Look,
        }
    })
}

impl Watch {
    /// Begins to watch over a connection, by its requests.
    pub(crate) fn new(protocol: Protocol, requests: &Requests) -> Self {
        let now = requests.serving().timer.now();
        let limits = requests.limits();
        let interval = limits.look().min(RESTLESS);
        Self {
            limits,
            interval,
            protocol,
            seen: progress(protocol, requests),
            since: now,
            sending: None,
            streaming: Pace::from(now, 0),
            next: now + interval,
        }
    }

    /// Looks at the connection: sees to it that requests whose time is over are
    /// answered, and says if its client's time is over.
    pub(crate) fn look(&mut self, requests: &Requests) -> Option<Late> {
        let now = requests.serving().timer.now();
        if now < self.next {
            return None;
        }
        self.next = now + self.interval;
        let input = Input {
            received: requests.received(),
            waits: !requests.unanswered.is_empty() && requests.has_unread(),
            ends_empty: requests.input_ends_empty(),
            uploads: requests.uploads(),
        };
        requests.unanswered.judge(now, self.limits, input);
        if self.is_stalled(now, requests) {
            return Some(Late::Stalled);
        }
        let progress = progress(self.protocol, requests);
        if progress != self.seen {
            self.seen = progress;
            self.since = now;
            return None;
        }
        let (late, given) = match progress {
            Progress::Busy => return None,
            Progress::Idle(_) => (Late::Idle, self.limits.idle_timeout),
            Progress::Head(_) => (Late::Head, self.limits.header_timeout),
        };
        (now >= self.since + given).then_some(late)
    }

    /// Until when the connection may stay idle, where it has been so for long enough that
    /// it need not have what serves it; to be asked after a look.
    pub(crate) fn idles_until(&self) -> Option<Instant> {
        let now_seen = self.next - self.interval;
        let idles = matches!(self.seen, Progress::Idle(_));
        (idles && now_seen >= self.since + RESTLESS)
            .then_some(self.since + self.limits.idle_timeout)
    }

    /// Whether the client takes too little of all that there is. Streams of which it
    /// takes too little while the connection has room for them are ended here.
    fn is_stalled(&mut self, now: Instant, requests: &Requests) -> bool {
        let Some(least) = self.limits.downloading() else {
            return false;
        };
        let blocked = requests.write_blocked();
        if self.protocol == Protocol::Http2 {
            // Where the whole connection waits for its client, no stream can
            // help it, as long as they go on together.
            let waits = requests.window() < NO_WINDOW;
            let late = self.streaming.is_late(now, requests.taken(), least);
            let can_be_taken = !blocked && (!waits || late);
            requests.deliveries.judge(now, least, can_be_taken);
        }
        if !requests.offers_more_than_is_taken() {
            self.sending = None;
            return false;
        }
        let least = match self.protocol {
            // Streams are judged one by one, but for those of a client that
            // takes nothing at all.
            Protocol::Http2 if !blocked => least.anything(),
            _ => least,
        };
        let arrived = requests.arrived();
        self.sending
            .get_or_insert_with(|| Pace::from(now, arrived))
            .is_late(now, arrived, least)
    }
}

fn progress(protocol: Protocol, requests: &Requests) -> Progress {
    if requests.busy() {
        Progress::Busy
    } else if protocol == Protocol::Http1 && requests.head_begun() {
        Progress::Head(requests.consumed())
    } else if let Some(stream) = requests.uploads().and_then(Uploads::opening) {
        Progress::Head(stream.into())
    } else if protocol == Protocol::Http2 {
        // What else there is on a connection asks for nothing.
        Progress::Idle(requests.received_at_request())
    } else {
        Progress::Idle(requests.received())
    }
}
