//! What the tests of workers have in common: the supervisor's end of a channel, clients
//! that say what no library lets them say, and certificates.
//!
//! [`supervisor::Worker`] starts an example program as a supervisor would and holds the
//! other end of its channel; [`door::Door`] is the next supervisor, for a worker that has
//! lost its own. [`client`] speaks HTTP/1 byte by byte, [`http2`] HTTP/2 by hyper,
//! [`http2_frames`] and [`raw_http2`] frame by frame, [`tls_client`] TLS. [`fresh`] sees to
//! it that an example is not older than what it is made of. [`mutate`] makes inputs that are
//! nearly right, for parsers.

// It is part of tests, and read beside them.
#![allow(missing_docs, clippy::unwrap_used)]

pub mod client;
pub mod door;
pub mod fresh;
pub mod http2;
pub mod http2_frames;
pub mod mutate;
pub mod raw_http2;
pub mod supervisor;
pub mod tls_client;
