//! A reload as a transaction: begin, advance, commit or roll back.

pub(crate) mod advance;
pub(crate) mod canary;
pub(crate) mod reload;
pub(crate) mod rollback;
