//! The data that a step changes. What is written to disk is declared here.

pub(crate) mod backoff;
pub(crate) mod canary;
pub(crate) mod comparison;
pub(crate) mod deadlines;
pub(crate) mod failure;
pub(crate) mod job;
pub(crate) mod leave;
pub(crate) mod pool;
pub(crate) mod pools;
pub(crate) mod process;
pub(crate) mod readiness;
pub(crate) mod replacement;
pub(crate) mod rollout;
pub(crate) mod slot;
pub(crate) mod timeouts;
pub(crate) mod trial;
