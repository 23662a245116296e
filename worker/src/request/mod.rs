//! Requests: what is refused, what is counted, and how long they may take.
//!
//! Every request that began is counted once, however it ends.

mod authority;
pub(crate) mod connection_state;
pub(crate) mod deadlines;
pub(crate) mod forwarded;
pub(crate) mod head;
pub(crate) mod in_flight;
pub(crate) mod service;
pub(crate) mod validate;
