//! A worker process: its start, its channel, its output and its end.

pub(in crate::reactor) mod descendants;
pub(in crate::reactor) mod handle;
pub(in crate::reactor) mod inherited;
pub(in crate::reactor) mod log_allowance;
pub(in crate::reactor) mod output;
pub(in crate::reactor) mod private_address;
pub(in crate::reactor) mod protocol;
pub(in crate::reactor) mod spawn;
pub(in crate::reactor) mod task;
