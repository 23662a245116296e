//! reactor.
