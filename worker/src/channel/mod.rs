//! The channel to the supervisor: the handshake, the session that reports and obeys, and
//! the way to the next supervisor.
//!
//! The loop that reports is the loop that serves, so that a report says that requests are
//! served, too.

pub(crate) mod handshake;
pub(crate) mod link;
pub(crate) mod metrics_reporter;
pub(crate) mod rejoin;
pub(crate) mod session;
pub(crate) mod signals;
pub(crate) mod uplink;
