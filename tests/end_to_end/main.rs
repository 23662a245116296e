//! End-to-end tests: the real binary, real processes, real signals.
//!
//! Each folder is one theme, and its tests read as sentences. `harness` starts a
//! supervisor in a directory of its own on ports that the kernel chooses, and
//! kills everything that came of it when a test ends, however it ends.

mod harness;

mod config;
mod control;
mod http;
mod limits;
mod listeners;
mod metrics;
mod output;
mod pages;
mod programs;
mod recovery;
mod reload;
mod security;
mod worker_life;
