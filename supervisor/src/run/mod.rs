//! `prefork run`: how the supervisor starts, and what it holds while it runs.

pub(crate) mod environment;
pub mod runtime_dir;
pub(crate) mod startup;
pub mod supervise;
