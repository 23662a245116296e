//! The configuration: what is refused, and how that is said.

mod errors;
