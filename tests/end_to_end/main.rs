//! End-to-end tests: the real binary, real processes, real signals.
//!
//! Each file is one theme and its tests read as sentences. `harness` starts a
//! supervisor in a directory of its own on ports that the kernel chooses, and
//! kills everything that came of it when a test ends, however it ends.

mod harness;

mod config_errors;
mod control;
mod crash_loop;
mod death;
mod descriptors;
mod examples;
mod exit_codes;
mod hostile;
mod lifecycle;
mod limits;
mod metrics;
mod service_manager;
mod serving;
