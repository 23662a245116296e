//! A reload as a transaction: begin, advance, commit or roll back.

pub(crate) mod advance;
pub(crate) mod reload;
pub(crate) mod rollback;
