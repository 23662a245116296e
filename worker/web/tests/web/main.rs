//! The bundled web server as its supervisor and its clients see it: real processes, real
//! sockets, the channel's other end held by the test.

// What serves the tests is part of them, where it is not marked as one.
#![allow(clippy::unwrap_used)]

mod files;
mod forward;
mod held;
mod packed;
mod semantics;
mod site;
mod validators;
