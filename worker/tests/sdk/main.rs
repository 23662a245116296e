//! Workers as their supervisor and their clients see them: real processes,
//! real sockets, the channel's other end held by the test.

// What serves the tests is part of them, where it is not marked as one.
#![allow(clippy::unwrap_used)]

mod alone;
mod background;
mod balance;
mod channel;
mod content;
mod deadlines;
mod drain;
mod expect;
mod fire;
mod frozen;
mod handshake;
mod http;
mod limits;
mod malformed;
mod orphan;
mod passages;
mod printing;
mod proxies;
mod proxy_protocol;
mod queues;
mod request_table;
mod scoreboard;
mod streams;
mod targets;
mod tls;
mod uploads;
