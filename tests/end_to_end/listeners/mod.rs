//! Listeners: bound, handed over, made deaf, changed.

mod backlog;
mod changes;
mod deaf;
mod handover;
mod passing_on;
mod service_manager;
