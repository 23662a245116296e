//! `prefork`, the one binary: see the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    prefork_supervisor::cli::main()
}
