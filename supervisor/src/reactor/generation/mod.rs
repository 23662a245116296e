//! A generation: what its workers execute, where, and with which files.

pub(in crate::reactor) mod access_log;
pub(in crate::reactor) mod certificates;
pub(in crate::reactor) mod code;
pub(in crate::reactor) mod directories;
pub(in crate::reactor) mod history;
pub(in crate::reactor) mod program;
pub(in crate::reactor) mod revision;
pub(in crate::reactor) mod revisions;
