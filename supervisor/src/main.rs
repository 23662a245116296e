//! `prefork`, the one binary: see the library's `cli`.

use std::process::ExitCode;

use prefork_supervisor::{BUNDLED_ARGUMENT, PREFLIGHT_ARGUMENT, cli, preflight};

fn main() -> ExitCode {
    // Workers of the bundled web server are this program as well. They don't
    // pass through the command line, which is for people.
    match std::env::args_os().nth(1) {
        Some(word) if word == BUNDLED_ARGUMENT => prefork_worker::web::main(),
        // Nor does a new program that is tried out on a running one's state.
        Some(word) if word == PREFLIGHT_ARGUMENT => preflight(),
        _ => cli::main(),
    }
}
