//! What an event makes of a slot, and what brings every slot to rest after it.

pub(crate) mod first_boot;
pub(crate) mod health;
pub(crate) mod jobs;
pub(crate) mod lifecycle;
pub(crate) mod memory;
pub(crate) mod probation;
pub(crate) mod reconcile;
pub(crate) mod reload_in_place;
pub(crate) mod replace;
pub(crate) mod stop;
pub(crate) mod termination;
