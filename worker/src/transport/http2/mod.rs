//! HTTP/2 below hyper: frames are followed on their way in, and said between its own on
//! their way out (RFC 9113).

pub(crate) mod bodies;
pub(crate) mod frames;
pub(crate) mod interim;
