//! A worker's life: its start, its checks, its death and what follows.

mod boot_check;
mod checks;
mod crash_loop;
mod death;
mod hang_explained;
mod hung;
mod lifecycle;
mod no_hello;
mod partial_boot;
pub(crate) mod process_trees;
mod readiness;
mod starved;
mod stop;
mod stop_delay;
