//! Counters of the channels between supervisor and workers: `GET /v1/channels`.

use serde::{Deserialize, Serialize};

/// The channels of all slots: `GET /v1/channels`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Channels {
    /// [`SCHEMA`](crate::SCHEMA).
    pub schema: u32,
    /// A row per slot.
    pub channels: Vec<ChannelStatus>,
}

/// One slot's channel; counters cover all of the slot's processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// The pool's name.
    pub pool: String,
    /// The slot's index.
    pub slot: u32,
    /// Whether the channel is open and past its handshake.
    pub up: bool,
    /// Messages sent.
    pub messages_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Descriptors sent.
    pub fds_sent: u64,
    /// Descriptors received and claimed by a line.
    pub fds_received: u64,
    /// Descriptors received that no line claimed.
    pub fds_rejected: u64,
    /// Lines that could not be understood.
    pub decode_errors: u64,
    /// Sends that failed.
    pub send_errors: u64,
    /// Bytes that wait to be sent.
    pub send_queue_bytes: u64,
    /// The last round trip.
    pub round_trip_seconds: Option<f64>,
    /// When the last `health` came, in seconds since the Unix epoch.
    pub last_heartbeat_at: Option<f64>,
    /// Reports that did not come in time.
    pub heartbeats_missed: u64,
}
