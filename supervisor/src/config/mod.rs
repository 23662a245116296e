//! The configuration: TOML text to checked values, errors with file, line and column.
//!
//! `load` finds the text (`search`), `file` reads it section by section, and
//! each section is one module. A `Section` hands out typed values by key and
//! reports the keys that nobody asked for; `Problems` collects everything that
//! is wrong, so that an operator mends a file in one go. What comes out is
//! `checked`: the rest of the program never sees text. `diff` says what a
//! reload from one configuration to another would change.

mod access_log;
mod adapter;
mod app;
mod canary;
mod change;
mod check;
mod checked;
mod command_line;
mod defaults;
mod diff;
mod elsewhere;
mod error;
mod execution;
mod file;
mod forward;
mod given;
mod grace;
mod host;
mod http;
mod in_force;
mod listen;
mod metrics;
mod places;
mod pool;
mod program;
mod requests;
mod rights;
mod search;
mod section;
mod selection;
mod steps;
mod summary;
mod supervisor;
#[cfg(test)]
mod tests;
mod tls;
mod units;
mod web;

pub use crate::log::Format as LogFormat;
pub use access_log::AccessLog;
pub(crate) use access_log::open as open_access_log;
pub use adapter::{Adapter, SocketKind};
pub use change::Change;
pub use check::Check;
pub use checked::{
    Address, Config, Detail, Listen, Mode, Pool, Program, RunAs, SocketGroup, Supervisor, Tls,
};
pub(crate) use defaults::SOCKET_PERMISSIONS;
pub use diff::{InPlace, diff, taken_in_place, would_be_same};
pub use error::{ConfigError, Place, Problem};
pub(crate) use execution::own_cpus;
pub use execution::{Affinity, Capabilities, Execution, Limit};
pub use file::parse;
pub(crate) use given::own_program;
pub use grace::{GRACE_PERIOD, outlasts_grace_period};
pub use host::{Host, runtime_dir};
pub use in_force::{InForce, Origin};
pub(crate) use listen::overlap;
pub use requests::Requests;
pub use rights::root_workers;
pub use search::{likely_runtime_dir, load, load_with_origins};
pub use selection::select;
pub use steps::Steps;
pub use summary::{checked_json, render_checked};
pub use tls::warnings;
pub(crate) use units::{parse_duration, show_duration, show_permissions};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// `--config` or `$PREFORK_CONFIG`.
    pub config: Option<PathBuf>,
    /// `--listen`, any number of times.
    pub listen: Vec<String>,
    /// `--workers`.
    pub workers: Option<String>,
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `-- PROGRAM ARGS`.
    pub program: Vec<String>,
    /// `--runtime-dir` or `$PREFORK_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `--admin`.
    pub admin: Option<String>,
    /// Where relative paths start, by the name that it was given; the working
    /// directory without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
}
