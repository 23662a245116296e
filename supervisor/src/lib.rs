//! The prefork supervisor: forks workers, hands each its channel and the
//! listening sockets, keeps them running, and answers operators and Prometheus.
//!
//! - [`prefork_fleet`] decides: a pure state machine over slots and processes.
//! - [`reactor`] acts: the event loop that feeds the fleet and carries its
//!   decisions out.
//! - [`control`] and [`admin`] serve operators and Prometheus; they reach the
//!   reactor through a [`handle`] and see nothing else of it.
//! - [`notify`] tells the service manager how things stand.
//! - [`config`] turns text into checked values, [`cli`] the command line into
//!   requests, [`metrics`] numbers into the exposition.
//! - `reading` has a process of its own read the configuration for a reload; another one
//!   reads what workers print.
//! - `state` keeps what the next supervisor needs, should this one be killed;
//!   `recovery` finds what it left, and the workers come back by `rejoin`.
//! - [`tls`] has the certificates and ticket keys of workers that speak TLS.
//! - `upgrade` puts another program in this one's place, in the same process.
//! - [`run`] puts them together; `boot_check` does so for one worker that is
//!   thrown away.

mod activation;
pub mod admin;
mod beside;
mod boot_check;
pub mod cli;
pub mod config;
pub mod control;
mod environment;
pub mod handle;
mod left;
pub mod listener;
mod log;
pub mod metrics;
pub mod notify;
mod plain;
pub mod proc;
pub mod reactor;
mod readiness;
mod reading;
mod recovery;
mod regular_file;
mod rejoin;
pub mod reserve;
mod rest;
pub mod run;
pub mod runtime_dir;
mod startup;
mod state;
mod steps;
mod sys;
pub mod tls;
mod trust;
mod upgrade;

pub use reactor::{
    ADAPTER_ARGUMENT, BUNDLED_ARGUMENT, READ_OUTPUT_ARGUMENT, read_output_for_supervisor,
};
pub use reading::{READ_ARGUMENT, read_for_supervisor};
pub use steps::{STEPS_ARGUMENT, run_steps_for_supervisor};
pub use upgrade::{PREFLIGHT_ARGUMENT, preflight};
