//! What a supervisor says to a worker.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AccessLogOffer, ListenerOffer, Message, OutputOffer, PassageOffer, PlacesOffer, RequestsOffer,
    Rescue, ScoreboardOffer, TlsOffer, UpstreamCountsOffer, Upstreams, Vacate, Welcome, kinds,
    place_of,
};
use crate::tls::TicketKey;

/// What the supervisor says to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker {
    /// The answer to `hello` or `rejoin`: who the worker is and how it is to behave.
    Welcome(Welcome),
    /// The answer to a `rejoin` that is not believed: the worker drains and leaves.
    Refused {
        /// Why, for people to read.
        reason: String,
    },
    /// Shared memory to count in; its descriptor arrives with this line. Only to
    /// a worker with the capability `scoreboard`, and before every `listener`.
    Scoreboard(ScoreboardOffer),
    /// Shared memory to note requests in; its descriptor arrives with this line. Only to
    /// a worker with the capability `requests`, and before every `listener`.
    Requests(RequestsOffer),
    /// What the listeners that speak TLS do their handshakes with, from now on;
    /// its descriptor arrives with this line. Wants a `reply`. Only to a worker
    /// with the capability `tls`: before the first `listener`, and later in
    /// place of what it has.
    Tls(TlsOffer),
    /// The keys of session tickets, from now on. Only to a worker with the
    /// capability `tls`.
    Tickets {
        /// The first one encrypts, all of them decrypt.
        keys: Vec<TicketKey>,
    },
    /// A listening socket; its descriptor arrives with this line.
    Listener(ListenerOffer),
    /// Every listener has been sent: begin to accept, then say `ready`.
    Start,
    /// Wants a `reply` at once; measures the channel's round trip.
    Ping {
        /// Chosen by the supervisor; the `reply` carries it back.
        id: u64,
    },
    /// An application command; wants a `reply`.
    Tell {
        /// Chosen by the supervisor; the `reply` carries it back.
        id: u64,
        /// The command's name, for instance `cache.flush`.
        command: String,
        /// The command's arguments, any JSON; `null` when there are none.
        #[serde(default)]
        args: Value,
    },
    /// Take new application settings in place; wants a `reply`.
    Reload {
        /// Chosen by the supervisor; the `reply` carries it back.
        id: u64,
        /// The pool's new application settings.
        app: Value,
    },
    /// Stop accepting connections, go on serving those that are open; wants a `reply`.
    Pause {
        /// Chosen by the supervisor; the `reply` carries it back.
        id: u64,
    },
    /// Accept connections again; wants a `reply`.
    Resume {
        /// Chosen by the supervisor; the `reply` carries it back.
        id: u64,
    },
    /// Serve what waits in the queue of a listener that is about to go; wants a
    /// `reply`. Only to a worker with the capability `rescue`.
    Rescue(Rescue),
    /// The reading end of what the worker itself prints to, to be kept open and
    /// given back with a `rejoin`; it arrives with this line. Only to a worker with
    /// the capability `output`, before `start`.
    Output(OutputOffer),
    /// Where to write a line for each request, from now on; its descriptor arrives
    /// with this line. Wants a `reply` when nothing more goes to the one before. Only
    /// to a worker with the capability `access_log`: before `start`, and later in
    /// place of what it has.
    AccessLog(AccessLogOffer),
    /// Where to count the requests that it has at each worker of a pool behind it; the
    /// memory arrives with this line. Only to a worker with the capability `forward`:
    /// before the first `upstreams` of that pool, and later in place of what it has.
    Places(PlacesOffer),
    /// Where to count what each worker of a pool behind it has answered; the memory arrives
    /// with this line. Only to a worker with the capability `upstream_counts`: after the
    /// `places` of that pool, and later in place of what it has.
    UpstreamCounts(UpstreamCountsOffer),
    /// Every worker of a pool behind it, in place of what it knows of that pool; wants a
    /// `reply` when it is in force. Only to a worker with the capability `forward`:
    /// before `start`, and later at any time.
    Upstreams(Upstreams),
    /// Wants a `reply` when nothing of this worker's is in flight any more at that
    /// process of a pool behind it, which takes nothing new by then. Only to a worker
    /// with the capability `forward`.
    Vacate(Vacate),
    /// The way by which open connections of a listener go from worker to worker; its
    /// descriptor arrives with this line. Only to a worker with the capability `pass_on`:
    /// at any time after its `ready`, and later in place of what it has.
    Passage(PassageOffer),
    /// Stop accepting, finish what is in flight, say `drained`, leave; wants a `reply` at once.
    Drain {
        /// Chosen by the supervisor; the `reply` carries it back.
        id: u64,
        /// Milliseconds until what is left may be cut.
        deadline_ms: u64,
        /// Whether nobody accepts after this worker: it accepts and serves what
        /// waits in its listeners' queues before it stops accepting.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        sweep: bool,
        /// The listeners whose open connections are taken by other workers: each that is
        /// idle goes through its passage. Only to a worker that has those passages.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pass_on: Vec<String>,
    },
    /// Leave now; wants a `reply` if there is still time for one.
    Stop {
        /// Chosen by the supervisor; the `reply` carries it back.
        id: u64,
    },
}

impl Message for ToWorker {
    kinds! {
        Self::Welcome(_) => "welcome",
        Self::Refused { .. } => "refused",
        Self::Scoreboard(_) => "scoreboard",
        Self::Requests(_) => "requests",
        Self::Tls(_) => "tls",
        Self::Tickets { .. } => "tickets",
        Self::Listener(_) => "listener",
        Self::Start => "start",
        Self::Ping { .. } => "ping",
        Self::Tell { .. } => "tell",
        Self::Reload { .. } => "reload",
        Self::Pause { .. } => "pause",
        Self::Resume { .. } => "resume",
        Self::Rescue(_) => "rescue",
        Self::Output(_) => "output",
        Self::AccessLog(_) => "access_log",
        Self::Places(_) => "places",
        Self::UpstreamCounts(_) => "upstream_counts",
        Self::Upstreams(_) => "upstreams",
        Self::Vacate(_) => "vacate",
        Self::Passage(_) => "passage",
        Self::Drain { .. } => "drain",
        Self::Stop { .. } => "stop",
    }

    const KINDS_WITH_FD: &'static [&'static str] = &[
        "scoreboard",
        "requests",
        "tls",
        "listener",
        "rescue",
        "output",
        "access_log",
        "places",
        "upstream_counts",
        "passage",
    ];

    fn fds(&self) -> u32 {
        match self {
            Self::Scoreboard(offer) => offer.fds,
            Self::Requests(offer) => offer.fds,
            Self::Tls(offer) => offer.fds,
            Self::Listener(offer) => offer.fds,
            Self::Rescue(rescue) => rescue.fds,
            Self::Output(offer) => offer.fds,
            Self::AccessLog(offer) => offer.fds,
            Self::Places(offer) => offer.fds,
            Self::UpstreamCounts(offer) => offer.fds,
            Self::Passage(offer) => offer.fds,
            _ => 0,
        }
    }
}
