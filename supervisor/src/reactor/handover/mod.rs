//! Handover: going on where another supervisor ended, and letting another program go on.

pub(in crate::reactor) mod listener_stock;
pub(in crate::reactor) mod persist;
pub(in crate::reactor) mod recover;
pub(in crate::reactor) mod resume;
pub(in crate::reactor) mod upgrade;
