//! What is to be seen: status, events, log lines, and what the service manager is told.

pub(in crate::reactor) mod events;
pub(in crate::reactor) mod in_flight;
pub(in crate::reactor) mod oom;
pub(in crate::reactor) mod reports;
pub(in crate::reactor) mod service_manager;
pub(in crate::reactor) mod starvation;
pub(in crate::reactor) mod status;
pub(in crate::reactor) mod traffic;
pub(in crate::reactor) mod whereabouts;
