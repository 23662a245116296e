//! Lines that a descriptor arrives with: memory, listeners, pipes, files.

use serde::{Deserialize, Serialize};

use super::is_false;

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
    /// Whether connections begin with a header of the PROXY protocol. Only to a worker
    /// with the capability `proxy_protocol`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub proxy_protocol: bool,
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
    /// Whether connections begin with a header of the PROXY protocol. Only to a worker
    /// with the capability `proxy_protocol`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub proxy_protocol: bool,
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

/// The memory in which a process that forwards to a pool counts what each worker there has
/// answered; see [`upstream_counts`](crate::upstream_counts).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UpstreamCountsOffer {
    /// The pool behind.
    pub pool: String,
    /// The layout's version.
    pub abi: u32,
    /// The layout's size in bytes.
    pub bytes: u64,
    /// Descriptors that arrive with this line: always 1.
    pub fds: u32,
}

/// The way of a listener's open connections from one worker to the next; see
/// [`passage`](crate::passage).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PassageOffer {
    /// The listener's name, as it is configured.
    pub name: String,
    /// The version of what goes through it.
    pub version: u8,
    /// Descriptors that arrive with this line: always 1.
    pub fds: u32,
}
