//! What lies below HTTP: sockets, TLS, the bytes that are counted, and the frames of
//! HTTP/2 as they are on the wire.
//!
//! What a client has sent is never destroyed by a close before its answer was read.

pub(crate) mod force_close;
pub(crate) mod http2;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod traffic;
