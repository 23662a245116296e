//! The protocol between a prefork supervisor and its workers.
//!
//! A supervisor and each of its workers hold one end each of a unix stream
//! socket pair and speak JSON on it, one object per line; some lines carry a
//! descriptor (a listening socket) with `SCM_RIGHTS`. This crate is both ends of
//! that link, for programs that block and for programs under an async runtime,
//! and it depends on neither a runtime nor HTTP.
//!
//! How its parts fit together:
//!
//! - [`message`] has the messages of both directions as types. `README.md` of
//!   this crate specifies them for other languages, with a JSON Schema beside it.
//! - [`capability`] has the names of what a worker can do beyond the mandatory.
//! - [`channel`] has the link itself: [`channel::pair`] makes one,
//!   [`channel::Channel`] sends and receives on one end of it.
//! - [`error`] has what can go wrong on it, each with a short name for metrics
//!   and with advice for people.
//! - [`metrics`] has the part of them that carries an application's own metrics.
//! - [`scoreboard`] is the memory in which a worker counts and which the
//!   supervisor reads, whatever becomes of the worker.
//! - [`request_table`] is the memory in which a worker notes the requests that it is
//!   serving, so that they are known also after SIGKILL.
//! - [`passage`] is the way of open connections from one worker to the next.
//! - [`places`] is the memory in which all processes that forward to a pool count what
//!   they have there.
//! - [`upstream_counts`] is the memory in which such a process counts what each worker
//!   there has answered.
//! - [`tls`] has the certificates and keys of listeners that speak TLS.
//! - [`network`] has networks of the internet protocol: who may say for whom it speaks.
//! - [`listening`] has what may be done to a listener that several processes hold.
//! - [`adapter`] has what a supervisor tells the adapter of a program that does not speak
//!   the protocol.
//!
//! ```
//! use std::time::Duration;
//!
//! use prefork_proto::channel::{self, Receive, WorkerEnd};
//! use prefork_proto::message::{ToSupervisor, ToWorker};
//!
//! # fn main() -> Result<(), prefork_proto::error::ChannelError> {
//! let (mut supervisor, fd) = channel::pair()?;
//! let mut worker = WorkerEnd::new(fd);
//!
//! supervisor.queue(&ToWorker::Ping { id: 7 })?;
//! supervisor.flush()?;
//!
//! assert!(worker.wait(false, Duration::from_secs(1))?);
//! match worker.receive()? {
//!     Receive::Message(received) => assert_eq!(received.message, ToWorker::Ping { id: 7 }),
//!     other => panic!("not a ping: {other:?}"),
//! }
//! worker.queue(&ToSupervisor::Ready)?;
//! worker.flush()?;
//! # Ok(())
//! # }
//! ```

pub mod adapter;
pub mod alone;
pub mod capability;
pub mod channel;
pub mod error;
pub mod listening;
pub mod message;
pub mod metrics;
pub mod network;
pub mod passage;
pub mod places;
pub mod request_table;
pub mod scoreboard;
pub mod tls;
pub mod upstream_counts;

mod inbox;
mod line;
mod outbox;
#[cfg(test)]
mod schema;
mod sealed;
mod sys;
mod system_error;
