//! The protocol between a prefork supervisor, its workers and its operators.

pub mod control;
pub mod message;
