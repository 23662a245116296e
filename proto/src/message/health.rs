//! A worker's reports on itself.

use serde::{Deserialize, Serialize};

use super::{are_zero, is_zero};
use crate::passage::Kept;
use crate::tls::HandshakeFailure;

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
    /// What has become of its connections since it drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoffs: Option<Box<Handoffs>>,
}

/// What has become of the connections of a worker that leaves. Every number only grows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Handoffs {
    /// Those that were handed on to other workers.
    pub passed_on: u64,
    /// Idle ones that it has closed, by why they could not be handed on, in the order of
    /// [`Kept::ALL`].
    #[serde(default, skip_serializing_if = "are_zero")]
    pub not_passed_on: [u64; Kept::ALL.len()],
}

/// Upper bounds of the request duration buckets, in seconds. A last bucket
/// without bound follows them.
pub const DURATION_BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// [`DURATION_BOUNDS`] in microseconds, so that a request is sorted into its
/// bucket without floating point.
const BOUNDS_US: [u64; DURATION_BOUNDS.len()] = {
    let mut bounds = [0; DURATION_BOUNDS.len()];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = (DURATION_BOUNDS[index] * 1_000_000.0) as u64;
        index += 1;
    }
    bounds
};

/// The bucket of a request that took so many microseconds.
#[inline]
pub(crate) fn duration_bucket(micros: u64) -> usize {
    let bound = BOUNDS_US.iter().position(|bound| micros <= *bound);
    bound.unwrap_or(BOUNDS_US.len())
}

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
