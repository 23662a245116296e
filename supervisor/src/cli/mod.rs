//! The command line.

pub(crate) mod units;
