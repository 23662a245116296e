//! The control socket, the command line and the signals.

mod exit_codes;
mod fleet;
mod operations;
mod operators_view;
mod page;
mod progress;
mod requests;
mod signals;
pub(crate) mod socket;
pub(crate) mod terminals;
mod top;
