//! `prefork`, the one binary: see the library's `cli`.

use std::process::ExitCode;

use prefork_supervisor::{BUNDLED_ARGUMENT, cli};

fn main() -> ExitCode {
    // Workers of the bundled web server are this program as well. They don't
    // pass through the command line, which is for people.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == BUNDLED_ARGUMENT)
    {
        return prefork_worker::web::main();
    }
    cli::main()
}
