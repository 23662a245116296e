//! Library that makes any hyper or tower service a worker of the prefork supervisor.
//!
//! [`Worker`] is all that an application needs: it takes the listening sockets and the
//! settings from the supervisor, serves HTTP/1.1 and HTTP/2 on them, reports health,
//! answers commands, and drains without breaking a request. The same program runs alone
//! when no supervisor started it.
//!
//! ```no_run
//! use std::{convert::Infallible, process::ExitCode};
//!
//! use hyper::{Request, Response, body::Incoming, service::service_fn};
//! use prefork_worker::Worker;
//!
//! async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
//!     Ok(Response::new("hello\n".to_owned()))
//! }
//!
//! fn main() -> ExitCode {
//!     Worker::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
//!         .run(|_context| async { Ok(service_fn(hello)) })
//! }
//! ```
//!
//! A tower service runs by [`Worker::run_tower`], an axum `Router` for instance. It may
//! take commands and new settings without a new process, and say a goodbye:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use axum::{Router, routing::get};
//! use prefork_worker::{Refused, Worker};
//!
//! fn main() -> ExitCode {
//!     Worker::new("shop", "1.0.0")
//!         .limits(|limits| limits.max_concurrency = Some(100))
//!         .on_tell(|tell| async move {
//!             match tell.command.as_str() {
//!                 "pool" => Ok(tell.context.pool().into()),
//!                 unknown => Err(Refused::unknown_command(unknown)),
//!             }
//!         })
//!         .on_drain(|_| async { println!("goodbye") })
//!         .run_tower(|context| async move {
//!             let slot = context.slot();
//!             let page = move || async move { format!("slot {slot}\n") };
//!             Ok(Router::new().route("/", get(page)))
//!         })
//! }
//! ```
//!
//! Everything runs on one thread with one runtime: services, handlers and futures need not
//! be `Send`. Work that blocks goes through [`Context::blocking`], work beside answering
//! through [`Context::spawn`].
//!
//! # Work that needs the processor
//!
//! A request that computes for a quarter of a second holds up all others of its worker for
//! as long, its heartbeat included. Three things help, and they go together:
//!
//! - [`Context::blocking`] computes on a thread of its own, and the worker goes on serving.
//!   More threads than processors make nothing quicker: a semaphore bounds them.
//! - More `workers` in the pool. Each is a process with a thread of its own, so that other
//!   workers answer meanwhile; a busy worker is passed over when a connection comes.
//! - [`Limits::max_concurrency`] has requests wait for their turn rather than make each other
//!   slow, and sends connections to workers that have time.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::sync::Arc;
//!
//! use axum::{Router, routing::get};
//! use prefork_worker::{Context, Worker};
//! use tokio::sync::Semaphore;
//!
//! async fn answer(context: Context, turns: Arc<Semaphore>) -> String {
//!     let turn = turns.acquire_owned().await;
//!     let sum = context.blocking(move || {
//!         let _turn = turn;
//!         (1..=100_000_000_u64).sum::<u64>()
//!     });
//!     sum.await.map_or_else(|error| error.to_string(), |sum| sum.to_string())
//! }
//!
//! fn main() -> ExitCode {
//!     // Where the pool has a worker for each processor, each computes one thing at a time.
//!     let turns = Arc::new(Semaphore::new(1));
//!     Worker::new("sums", "1.0.0").run_tower(|context| async move {
//!         Ok(Router::new().route("/", get(move || answer(context.clone(), turns.clone()))))
//!     })
//! }
//! ```
//!
//! The example `compute` is a whole program. Where what computes is in small pieces, a
//! `tokio::task::yield_now().await` between them lets others have their turn.
//!
//! - [`Context`] is who the worker is: its pool, its slot, its settings.
//! - [`Limits`] are what clients are held to, as far as the operator says nothing else.
//! - [`Peer`] is who a request comes from, an extension of every request.
//! - [`Timer`] has deadlines that stand still while the process does.
//! - [`front`] is for workers that forward requests to other pools.
//! - [`adapter`] is the worker that `prefork` is for a program without the channel.
//!
//! The crate's README says what the library does for an application, case by case.

mod accept;
mod access_log;
pub mod adapter;
mod app;
mod channel;
mod connection;
mod error;
mod idle;
mod limits;
mod output;
mod process;
mod request;
mod response;
mod run;
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
pub use prefork_proto::message::ClientHeader;
pub use prefork_proto::metrics::Rule;
pub use prefork_proto::network::{Network, NetworkError};
pub use prefork_proto::tls::TlsVersion;
pub use process::background::BlockingError;
pub use response::read_ahead::part_size;
pub use runtime::timer::{Sleep, Timer};
pub use worker::Worker;

/// The examples of the README are compiled like those of this page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
