//! The configuration: TOML text to checked values, errors with file, line and column.

mod checked;

pub use checked::{Address, Config, Listen, Pool, Program, RunAs, Supervisor};

use std::path::PathBuf;

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
}
