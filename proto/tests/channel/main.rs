//! The channel on real socket pairs: what either side sees of the other.

#![allow(clippy::unwrap_used)]

mod closing;
mod descriptors;
mod exchange;
mod handing_on;
mod mutated;
mod peer;
mod properties;
mod rules;
mod sending;
