//! The application: what it is told and asked, and how its program runs alone.

pub(crate) mod context;
pub mod front;
pub(crate) mod handlers;
pub(crate) mod standalone;
