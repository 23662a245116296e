//! The messages of channel protocol 1, one JSON object per line, both directions.
//!
//! Unknown fields are ignored so that either side may be newer than the other.
//! `README.md` of this crate is the specification; the JSON Schema beside it is
//! generated from the types here and a test keeps the two equal.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::metrics::Metrics;
use crate::tls::{HandshakeFailure, TicketKey};

/// The protocol version that `hello` and `welcome` carry.
pub const PROTOCOL: u32 = 1;

/// The environment variable that holds the number of the worker's channel descriptor.
pub const CHANNEL_FD_ENV: &str = "PREFORK_CHANNEL_FD";

/// The environment variable that says which descriptors a worker was born with beside
/// its channel, for lines that say `inherited`: `FIRST-LAST`.
pub const INHERITED_ENV: &str = "PREFORK_INHERITED";

/// The capability of a worker that knows `inherited`: it takes the descriptor that a
/// line belongs to from those that it was born with.
pub const INHERIT: &str = "inherit";

/// The code of a worker's answer to `reload` that it can take these settings
/// only as a new process; the supervisor replaces it then.
pub const NEEDS_RESTART: &str = "needs_restart";

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
    /// Every worker of a pool behind it, in place of what it knows of that pool; wants a
    /// `reply` when it is in force. Only to a worker with the capability `forward`:
    /// before `start`, and later at any time.
    Upstreams(Upstreams),
    /// Wants a `reply` when nothing of this worker's is in flight any more at that
    /// process of a pool behind it, which takes nothing new by then. Only to a worker
    /// with the capability `forward`.
    Vacate(Vacate),
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
    },
    /// Leave now; wants a `reply` if there is still time for one.
    Stop {
        /// Chosen by the supervisor; the `reply` carries it back.
        id: u64,
    },
}

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

fn are_zero(them: &[u64]) -> bool {
    them.iter().all(is_zero)
}

fn is_zero(it: &u64) -> bool {
    *it == 0
}

fn is_false(it: &bool) -> bool {
    !it
}

/// The incarnation's scoreboard on its way to the worker, or back to a new
/// supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ScoreboardOffer {
    /// The layout's version.
    pub abi: u32,
    /// The layout's size in bytes.
    pub bytes: u64,
    /// Descriptors that arrive with this line: always 1.
    pub fds: u32,
}

/// The incarnation's request table on its way to the worker, or back to a new supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RequestsOffer {
    /// The layout's version.
    pub abi: u32,
    /// The memory's size in bytes: as many entries as fit.
    pub bytes: u64,
    /// Whether targets are to be noted with their queries.
    #[serde(default, skip_serializing_if = "is_false")]
    pub query: bool,
    /// Descriptors that arrive with this line: always 1.
    pub fds: u32,
}

/// Certificates and keys on their way to the worker, in sealed memory that
/// [`tls::read`](crate::tls::read) reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TlsOffer {
    /// Chosen by the supervisor; the `reply` carries it back.
    pub id: u64,
    /// How much the memory holds, in bytes.
    pub bytes: u64,
    /// Descriptors that arrive with this line: always 1.
    pub fds: u32,
}

/// A listening socket on its way to the worker, or back to a new supervisor. The
/// worker closes it when it is done and never calls `shutdown` on it, which would
/// end it for everyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListenerOffer {
    /// The listener's name, as it is configured.
    pub name: String,
    /// What it is bound to: `127.0.0.1:8080`, `[::1]:8080` or `unix:/run/app.sock`.
    pub address: String,
    /// Whether connections speak TLS.
    #[serde(default)]
    pub tls: bool,
    /// Descriptors that arrive with this line: always 1.
    pub fds: u32,
}

/// A listener whose own worker is gone or hangs. The receiver accepts every
/// connection that waits in the queue, closes the descriptor, and replies
/// `{"accepted": N}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rescue {
    /// Chosen by the supervisor; the `reply` carries it back.
    pub id: u64,
    /// The listener's name, as it is configured.
    pub name: String,
    /// What it is bound to, as in [`ListenerOffer`].
    pub address: String,
    /// Whether connections speak TLS.
    #[serde(default)]
    pub tls: bool,
    /// Descriptors that arrive with this line: always 1.
    pub fds: u32,
}

/// The reading end of the pipe that a worker prints to, on its way to the worker,
/// or back to a new supervisor. As long as anybody holds it no write to the pipe
/// fails, and what is in the pipe is not lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutputOffer {
    /// Which output it is of.
    pub stream: OutputStream,
    /// Descriptors that arrive with this line: always 1.
    pub fds: u32,
}

/// What a worker's access log is written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AccessLogOffer {
    /// Chosen by the supervisor; the `reply` carries it back.
    pub id: u64,
    /// How a request is written down.
    pub format: AccessLogFormat,
    /// Descriptors that arrive with this line: always 1.
    pub fds: u32,
}

/// How a request is written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AccessLogFormat {
    /// The Combined Log Format.
    #[default]
    Combined,
    /// A JSON object.
    Json,
}

/// The memory in which all processes that forward to a pool count what they have there,
/// on its way to one of them; see [`places`](crate::places).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PlacesOffer {
    /// The pool behind.
    pub pool: String,
    /// The row that is this process's own.
    pub row: u32,
    /// The layout's version.
    pub abi: u32,
    /// The layout's size in bytes.
    pub bytes: u64,
    /// Descriptors that arrive with this line: always 1.
    pub fds: u32,
}

/// The workers of a pool that requests are forwarded to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Upstreams {
    /// Chosen by the supervisor; the `reply` carries it back.
    pub id: u64,
    /// The pool's name.
    pub pool: String,
    /// Requests that one of its workers gets at a time, from all who forward to it
    /// together; 0: any number.
    pub concurrency: u32,
    /// Its workers. One that is not here gets nothing more.
    pub workers: Vec<Upstream>,
    /// Whether further lines for the same pool follow: their workers belong to the same
    /// table, which is in force with the last of them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// One process of a pool behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Upstream {
    /// Its slot's index in the pool.
    pub slot: u32,
    /// Which of its slot's processes it is.
    pub incarnation: u64,
    /// Where it listens: `unix:/PATH` or `127.0.0.1:8080`.
    pub address: String,
    /// Whether it is on its way out: it gets nothing more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leaving: bool,
    /// The cell of each row in which requests at it are counted; absent where there
    /// is none left: then each process counts by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u32>,
}

/// A process of a pool behind that is to be left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Vacate {
    /// Chosen by the supervisor; the `reply` carries it back.
    pub id: u64,
    /// The pool's name.
    pub pool: String,
    /// Its slot's index in the pool.
    pub slot: u32,
    /// Which of its slot's processes it is.
    pub incarnation: u64,
}

/// What a worker prints to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

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

/// The worker's first message: what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hello {
    /// The protocol version the worker speaks, [`PROTOCOL`].
    pub protocol: u32,
    /// Its process id; must be the one the supervisor forked.
    pub pid: i32,
    /// The program's name, for people to read.
    pub program: String,
    /// The program's version, for people to read.
    pub version: String,
    /// What it can do beyond the mandatory: `tell`, `reload`, `pause`, `http_counts`,
    /// `rescue`, `scoreboard`, `rejoin`, `output`, `tls`,
    /// `access_log`, `forward`, `requests`.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// Who a worker was to a supervisor that has gone, said to the next one. The
/// scoreboard, the request table, every listener and what it prints to follow, and then the worker waits
/// for `welcome`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rejoin {
    /// The protocol version the worker speaks, [`PROTOCOL`].
    pub protocol: u32,
    /// What [`RejoinOffer`] gave it.
    pub secret: String,
    /// Its process id.
    pub pid: i32,
    /// Its pool's name.
    pub pool: String,
    /// Its slot's index in the pool.
    pub slot: u32,
    /// Its generation.
    pub generation: u64,
    /// Which of its slot's processes it is.
    pub incarnation: u64,
    /// As in [`Hello`].
    pub program: String,
    /// As in [`Hello`].
    pub version: String,
    /// As in [`Hello`].
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// How many `listener` lines follow: none once it has stopped accepting for good.
    pub listeners: u32,
    /// Whether a `scoreboard` line follows, before the listeners.
    #[serde(default)]
    pub scoreboard: bool,
    /// Whether a `requests` line follows, before the listeners.
    #[serde(default, skip_serializing_if = "is_false")]
    pub requests: bool,
    /// How many `output` lines follow, after the listeners: at most one for each
    /// stream.
    #[serde(default)]
    pub outputs: u32,
    /// What it is doing.
    pub state: RejoinState,
}

/// Leaves the secret out, so that no log has it by accident.
impl fmt::Debug for Rejoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejoin")
            .field("protocol", &self.protocol)
            .field("pid", &self.pid)
            .field("pool", &self.pool)
            .field("slot", &self.slot)
            .field("generation", &self.generation)
            .field("incarnation", &self.incarnation)
            .field("program", &self.program)
            .field("version", &self.version)
            .field("capabilities", &self.capabilities)
            .field("listeners", &self.listeners)
            .field("scoreboard", &self.scoreboard)
            .field("requests", &self.requests)
            .field("outputs", &self.outputs)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What a worker that rejoins is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RejoinState {
    /// It accepts connections.
    Ready,
    /// It was told to accept none until `resume`.
    Paused,
    /// It finishes what is in flight and leaves.
    Draining,
}

/// A worker's report on itself, from the loop that serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Health {
    /// Grows by one with each report.
    pub seq: u64,
    /// Requests whose response has not been written yet.
    pub in_flight: u64,
    /// Open connections.
    pub connections: u64,
    /// How late the serving loop was when it came to this report, in microseconds.
    pub loop_lag_us: u64,
    /// Free text for people to read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// HTTP totals of this incarnation, for a worker that counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<HttpCounts>>,
    /// Lines of the access log that this incarnation could not write. Only grows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub access_log_dropped: u64,
}

/// Upper bounds of the request duration buckets, in seconds. A last bucket
/// without bound follows them.
pub const DURATION_BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// HTTP totals since the incarnation began. Every field only grows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HttpCounts {
    /// Responses by status class: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub requests: [u64; 5],
    /// Connections accepted.
    pub accepted: u64,
    /// Bytes read from clients.
    pub received_bytes: u64,
    /// Bytes written to clients.
    pub sent_bytes: u64,
    /// Requests per duration bucket, not cumulative: one for each of
    /// [`DURATION_BOUNDS`], then one for what took longer.
    pub duration_buckets: [u64; DURATION_BOUNDS.len() + 1],
    /// The sum of all request durations, in microseconds.
    pub duration_sum_us: u64,
    /// Requests whose handler panicked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub panics: u64,
    /// TLS handshakes that came to nothing, by their reasons in the order of
    /// [`HandshakeFailure::ALL`](crate::tls::HandshakeFailure::ALL).
    #[serde(default, skip_serializing_if = "are_zero")]
    pub tls_failures: [u64; HandshakeFailure::ALL.len()],
}

impl HttpCounts {
    /// All responses of all status classes.
    pub fn total(&self) -> u64 {
        self.requests
            .iter()
            .fold(0, |sum, class| sum.saturating_add(*class))
    }
}

/// The answer to a request: `ok` with `data`, or not `ok` with `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// Whether it was done.
    pub ok: bool,
    /// What the request asked for.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// Why it was not done; absent when `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ReplyError>,
}

impl Reply {
    /// A reply that says it is done, with what was asked for.
    pub fn done(id: u64, data: Value) -> Self {
        Self {
            id,
            ok: true,
            data,
            error: None,
        }
    }

    /// A reply that says why it was not done.
    pub fn failed(id: u64, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            id,
            ok: false,
            data: Value::Null,
            error: Some(ReplyError {
                code: code.into(),
                message: message.into(),
            }),
        }
    }
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReplyError {
    /// For programs: `unknown_type`, `unknown_command`, or the application's own.
    pub code: String,
    /// For people.
    pub message: String,
}

/// The `type`s of a direction's messages. Each message knows its own without a search, since
/// every one is looked up on both sides.
macro_rules! kinds {
    ($($message:pat => $kind:literal,)+) => {
        const KINDS: &'static [&'static str] = &[$($kind),+];

        fn index(&self) -> usize {
            match self {
                $($message => const { place_of(Self::KINDS, $kind) },)+
            }
        }

        fn index_of(kind: &str) -> Option<usize> {
            match kind {
                $($kind => Some(const { place_of(Self::KINDS, $kind) }),)+
                _ => None,
            }
        }
    };
}

/// Where a `type` is among others; only for the compiler, to which it is one of them.
const fn place_of(kinds: &[&str], kind: &str) -> usize {
    let mut place = 0;
    while !is_same(kinds[place].as_bytes(), kind.as_bytes()) {
        place += 1;
    }
    place
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut same = 0;
    while same < one.len() && same < other.len() && one[same] == other[same] {
        same += 1;
    }
    same == one.len() && same == other.len()
}

/// A message type of one direction of the channel.
pub trait Message: Serialize + serde::de::DeserializeOwned {
    /// The values of `type` that this direction knows, as on the wire.
    const KINDS: &'static [&'static str];

    /// Those of [`Self::KINDS`] whose lines carry one descriptor; all others carry none.
    const KINDS_WITH_FD: &'static [&'static str];

    /// The place of this message's `type` in [`Self::KINDS`].
    fn index(&self) -> usize;

    /// The place of a `type` in [`Self::KINDS`], if it is one of them.
    fn index_of(kind: &str) -> Option<usize>;

    /// This message's `type`, one of [`Self::KINDS`].
    fn kind(&self) -> &'static str {
        Self::KINDS[self.index()]
    }

    /// How many descriptors the line announces (its `fds`).
    fn fds(&self) -> u32;

    /// Reads a line that is a JSON object whose `type` is `kind`, one of
    /// [`Self::KINDS`].
    ///
    /// Derived code has to set everything aside until it comes across the
    /// `type`. Where that is known, what comes often is read at once.
    ///
    /// # Errors
    /// A field is missing or of the wrong kind.
    fn read(kind: &str, line: &str) -> serde_json::Result<Self> {
        let _ = kind;
        serde_json::from_str(line)
    }
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
        Self::Upstreams(_) => "upstreams",
        Self::Vacate(_) => "vacate",
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
            _ => 0,
        }
    }
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
