//! The prefork supervisor.

pub mod admin;
pub mod cli;
pub mod config;
pub mod control;
pub mod fleet;
pub mod handle;
pub mod listener;
mod log;
pub mod metrics;
pub mod proc;
pub mod reactor;
pub mod reserve;
pub mod run;
pub mod runtime_dir;
mod sys;
