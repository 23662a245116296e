//! Workers as their supervisor and their clients see them: real processes,
//! real sockets, the channel's other end held by the test.

// What serves the tests is part of them, where it is not marked as one.
#![allow(clippy::unwrap_used)]

mod alone;
mod background;
mod balance;
mod channel;
mod client;
mod content;
mod deadlines;
mod door;
mod drain;
mod expect;
mod files;
mod fire;
mod forward;
#[path = "../../../tests/fresh.rs"]
mod fresh;
mod frozen;
mod handshake;
mod held;
mod http;
mod http2_frames;
mod limits;
mod malformed;
mod orphan;
mod packed;
mod printing;
mod queues;
mod raw_http2;
mod request_table;
mod scoreboard;
mod semantics;
mod streams;
mod supervisor;
mod targets;
mod tls;
mod tls_client;
mod uploads;
mod validators;
mod web;
