//! Reloads: what they change, what they leave alone, and how they fail.

mod broken;
mod canary;
mod command;
pub(crate) mod given_paths;
mod one_release;
mod only_what_changed;
mod pinned_program;
mod rollback;
mod steps;
mod transaction;
