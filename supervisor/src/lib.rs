//! The prefork supervisor: forks workers, hands each its channel and the
//! listening sockets, keeps them running, and answers operators and Prometheus.
//!
//! - [`prefork_fleet`] decides: a pure state machine over slots and processes.
//! - [`reactor`] acts: the event loop that feeds the fleet and carries its
//!   decisions out.
//! - [`control`] and [`admin`] serve operators and Prometheus; they reach the
//!   reactor through a [`handle`] and see nothing else of it.
//! - [`config`] turns text into checked values, [`cli`] the command line into
//!   requests, [`metrics`] numbers into the exposition.
//! - [`systemd`] has the sockets that the service manager passes, what it is told, and
//!   what it keeps.
//! - [`kernel`] has the system calls; [`listener`] binds.
//! - `helper` runs processes of the supervisor's own program for what could block:
//!   one reads the configuration, one runs the commands around a reload.
//! - `recovery` has what the next supervisor needs, should this one be killed, and how it
//!   finds its workers again; [`tls`] the certificates and ticket keys.
//! - `upgrade` puts another program in this one's place, in the same process.
//! - [`run`] puts them together; `boot_check` does so for one worker that is
//!   thrown away.

pub mod admin;
mod boot_check;
pub mod cli;
pub mod config;
pub mod control;
pub mod handle;
mod helper;
pub mod kernel;
pub mod listener;
mod log;
pub mod metrics;
pub mod reactor;
mod readiness;
mod recovery;
pub mod run;
mod sanitize;
pub mod systemd;
pub mod tls;
mod upgrade;

pub use helper::read_config::{READ_ARGUMENT, read_for_supervisor};
pub use helper::reload_hooks::{STEPS_ARGUMENT, run_steps_for_supervisor};
pub use helper::thread_dump::{DUMP_ARGUMENT, dump_threads_for_supervisor};
pub use reactor::{
    ADAPTER_ARGUMENT, BUNDLED_ARGUMENT, READ_OUTPUT_ARGUMENT, read_output_for_supervisor,
};
pub use upgrade::{PREFLIGHT_ARGUMENT, preflight};
