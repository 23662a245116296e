//! What a worker says to its supervisor.

use serde::{Deserialize, Serialize};

use super::{
    Health, Hello, ListenerOffer, Message, OutputOffer, Rejoin, Reply, RequestsOffer,
    ScoreboardOffer, kinds, place_of,
};
use crate::metrics::Metrics;

/// What a worker says to the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToSupervisor {
    /// The worker's first message.
    Hello(Hello),
    /// The first message of a worker whose supervisor has gone to the next one.
    Rejoin(Rejoin),
    /// What it counts in; its descriptor arrives with this line. Only after a
    /// `rejoin` that announces it.
    Scoreboard(ScoreboardOffer),
    /// What it notes its requests in; its descriptor arrives with this line. Only after a
    /// `rejoin` that announces it.
    Requests(RequestsOffer),
    /// A socket that it listens on; its descriptor arrives with this line. Only
    /// after a `rejoin`, as often as that announces.
    Listener(ListenerOffer),
    /// The reading end of what it prints to; it arrives with this line. Only after a
    /// `rejoin`, as often as that announces.
    Output(OutputOffer),
    /// It accepts connections.
    Ready,
    /// Sent every `heartbeat_ms` from the loop that serves.
    Health(Health),
    /// The answer to a request that carried `id`.
    Reply(Reply),
    /// The application's own metrics, or a part of them.
    Metrics(Metrics),
    /// Nothing is left in flight; the worker leaves by itself after this.
    Drained,
    /// Said before a voluntary exit.
    Bye {
        /// Why it leaves, for people to read.
        reason: String,
    },
}

impl Message for ToSupervisor {
    kinds! {
        Self::Hello(_) => "hello",
        Self::Rejoin(_) => "rejoin",
        Self::Scoreboard(_) => "scoreboard",
        Self::Requests(_) => "requests",
        Self::Listener(_) => "listener",
        Self::Output(_) => "output",
        Self::Ready => "ready",
        Self::Health(_) => "health",
        Self::Reply(_) => "reply",
        Self::Metrics(_) => "metrics",
        Self::Drained => "drained",
        Self::Bye { .. } => "bye",
    }

    const KINDS_WITH_FD: &'static [&'static str] =
        &["scoreboard", "requests", "listener", "output"];

    fn fds(&self) -> u32 {
        match self {
            Self::Scoreboard(offer) => offer.fds,
            Self::Requests(offer) => offer.fds,
            Self::Listener(offer) => offer.fds,
            Self::Output(offer) => offer.fds,
            _ => 0,
        }
    }

    fn read(kind: &str, line: &str) -> serde_json::Result<Self> {
        match kind {
            "health" => serde_json::from_str(line).map(Self::Health),
            "metrics" => serde_json::from_str(line).map(Self::Metrics),
            "reply" => serde_json::from_str(line).map(Self::Reply),
            _ => serde_json::from_str(line),
        }
    }
}
