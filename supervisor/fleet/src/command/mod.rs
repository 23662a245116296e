//! What operators can want of a fleet, one command a file.

pub(crate) mod dispatch;
pub(crate) mod pause;
pub(crate) mod restart;
pub(crate) mod scale;
