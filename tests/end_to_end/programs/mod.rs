//! Programs that are not written for prefork, and the examples of those that are.

mod adapter;
mod examples;
mod scaffold;
mod table;
