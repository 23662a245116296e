//! What the pages say: each command is run and each configuration checked.

mod docs;
mod expected;
mod markdown;
mod readme;
mod runner;
