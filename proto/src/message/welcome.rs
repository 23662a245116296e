//! The answer to `hello` and `rejoin`: who a worker is and how it is to behave.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::is_false;
#[cfg(doc)]
use super::{Hello, PROTOCOL, Rejoin};
use crate::network::Network;

/// Who the worker is: the answer to [`Hello`] and to [`Rejoin`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Welcome {
    /// The protocol version the supervisor speaks, [`PROTOCOL`].
    pub protocol: u32,
    /// The pool's name.
    pub pool: String,
    /// The slot's index in its pool, from 0.
    pub slot: u32,
    /// The generation this worker belongs to; grows by one with each reload.
    pub generation: u64,
    /// Counts the processes that this slot has had, from 1.
    pub incarnation: u64,
    /// Milliseconds between two `health` reports.
    pub heartbeat_ms: u64,
    /// Milliseconds that an idle connection stays open once a drain has begun.
    #[serde(default = "default_idle_grace_ms")]
    pub idle_grace_ms: u64,
    /// Whether to become `ready` without accepting anything until `resume`. Only
    /// to a worker with the capability `pause`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// The application's own settings, `[pool.NAME.app]` of the configuration; `{}` when absent.
    #[serde(default)]
    pub app: Value,
    /// Limits and deadlines of its HTTP, `[pool.NAME.http]` of the configuration.
    #[serde(default, skip_serializing_if = "HttpLimits::is_default")]
    pub http: Box<HttpLimits>,
    /// Where to report once the supervisor is gone. Absent: a worker that
    /// loses its channel drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejoin: Option<RejoinOffer>,
}

/// What the operator has set of a worker's HTTP limits and deadlines. What is
/// absent is the worker's to choose; what is here is in force, whatever the
/// application says. Sizes are in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct HttpLimits {
    /// A request's line and headers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header_size: Option<u64>,
    /// Headers of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_headers: Option<u64>,
    /// The target in a request's line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_uri_size: Option<u64>,
    /// A request's body; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_size: Option<u64>,
    /// For a request's head, from its first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_timeout_ms: Option<u64>,
    /// For a connection without a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// From a whole request to the beginning of its response; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout_ms: Option<u64>,
    /// Between two parts of a request's body; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_timeout_ms: Option<u64>,
    /// For a client that takes nothing of its response; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_timeout_ms: Option<u64>,
    /// Of a body in either direction, a second; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rate: Option<u64>,
    /// Connections that are open at a time; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u64>,
    /// Requests that the application has at a time; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u64>,
    /// Requests beyond those that wait for their turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue: Option<u64>,
    /// How long they wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// Streams of an HTTP/2 connection that are open at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_max_streams: Option<u64>,
    /// Streams of an HTTP/2 connection that were reset before they were served,
    /// at a time; one more ends the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_max_resets: Option<u64>,
    /// What a client may send of an HTTP/2 stream without being asked for more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_stream_window: Option<u64>,
    /// The same of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_connection_window: Option<u64>,
    /// Between two pings on an HTTP/2 connection; 0: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_ping_interval_ms: Option<u64>,
    /// For the answer to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_ping_timeout_ms: Option<u64>,
    /// Whose word is taken on who a client is. Absent: nobody's on a request, anybody's
    /// at the beginning of a connection whose listener has the PROXY protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Vec<String>>"))]
    pub trusted_proxies: Option<Vec<Network>>,
    /// By which header they say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_header: Option<ClientHeader>,
}

/// By which header of a request a proxy says who its client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ClientHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` for whether it has come by TLS.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl HttpLimits {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a worker whose supervisor has gone finds the next one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RejoinOffer {
    /// The unix stream socket that the next supervisor listens on.
    pub path: String,
    /// What proves to it that the worker was welcomed; not to be logged.
    pub secret: String,
    /// Milliseconds that a worker without a supervisor goes on serving before
    /// it drains.
    pub orphan_timeout_ms: u64,
}

/// Leaves the secret out, so that no log has it by accident.
impl fmt::Debug for RejoinOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejoinOffer")
            .field("path", &self.path)
            .field("orphan_timeout_ms", &self.orphan_timeout_ms)
            .finish_non_exhaustive()
    }
}

fn default_idle_grace_ms() -> u64 {
    3000
}
