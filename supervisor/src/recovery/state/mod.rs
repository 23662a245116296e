//! What the next supervisor needs to know, should this one be killed:
//! `state.json` in the runtime directory.
//!
//! - `document` has its shape, with a version in it.
//! - `file` writes it so that it is always whole, and tells a document that can
//!   be believed from one that can't.
//! - `replacement` keeps room for the next one on a disk that others fill.
//! - `identity` tells a process from a stranger that has its number.

mod document;
mod file;
mod identity;
mod replacement;

pub(crate) use document::{
    Document, SavedEdition, SavedFile, SavedListener, SavedPlace, SavedPlaces, SavedProcess,
    VERSION,
};
pub(crate) use file::{Found, StateFile, living_supervisor, read, set_aside};
pub(crate) use identity::{StartTime, boot_id, lives, new_secret, start_ticks};
