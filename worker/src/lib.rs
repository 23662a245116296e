//! Makes any hyper or tower service a worker of the prefork supervisor.
//!
//! [`Worker`] is all that an application needs: it takes the listening sockets
//! and the settings from the supervisor, serves HTTP/1.1 and HTTP/2 on them,
//! reports health, answers commands, and drains without breaking a request.
//! The same program runs alone when no supervisor started it.
//!
//! How its parts fit together: `boot` shakes hands over the `link` and runs the
//! application's start-up; then `session` is the loop that reports and obeys (its
//! `uplink` leads to the supervisor, and by `rejoin` to the next one), while
//! `accept` takes connections as the `gate` says, when `arrivals` tells of one, and
//! `connection` serves each of them (`http1`, `http2`) over a `stream`, whose bytes
//! go over a `wire` and maybe through `tls`, with the application's service wrapped
//! by `request`, which `screen`s what comes by its `head` and the `authority` it
//! names. `limits` are what a client is held to: `admission` says how many requests
//! are served at a time, `patience` and `unanswered` how long anything takes; a
//! `quiet` wait costs requests nothing, and a `timer` goes by a `clock` that stands still
//! while the process does; `ahead` and `pace` are how far responses run ahead and how
//! fast bodies have to go on. What they share is in `serving`. Everything
//! runs on one thread, so that a `health` report says that requests are served, too.
//!
//! `output` is what it prints to, which goes on without a supervisor.
//!
//! `access_log` has a line for every request written. `peer` is who a request comes
//! from, for the application.
//!
//! `metrics` reports what the application counts itself. `background` is what it
//! does beside answering.
//!
//! `forwards` is what a worker is told of pools behind it, if it forwards to any.
//!
//! [`adapter`] is the worker that `prefork` is for a program that does not speak the channel.

mod accept;
mod access_log;
pub mod adapter;
mod app;
mod channel;
mod connection;
mod error;
mod limits;
mod output;
mod process;
mod request;
mod response;
mod runtime;
mod sys;
mod transport;
mod worker;

pub use app::context::Context;
pub use app::front;
pub use app::handlers::{Drain, Refused, Reload, Tell};
pub use connection::peer::{Peer, PeerLayer, PeerTls, WithPeer};
pub use error::StartError;
pub use limits::Limits;
pub use output::say;
pub use prefork_proto::metrics::Rule;
pub use prefork_proto::tls::TlsVersion;
pub use process::background::BlockingError;
pub use response::read_ahead::part_size;
pub use runtime::timer::{Sleep, Timer};
pub use worker::Worker;
