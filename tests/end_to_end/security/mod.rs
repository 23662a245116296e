//! Security: who may do what, and what is kept from whom.

mod confinement;
mod files;
mod hidden_processes;
mod hostile_workers;
mod memory;
mod neighbours;
mod orders;
mod privileges;
mod sandboxes;
