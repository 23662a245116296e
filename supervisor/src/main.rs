//! `prefork`, the one binary: see the library's `cli`.

use std::process::ExitCode;

use prefork_supervisor::{
    ADAPTER_ARGUMENT, BUNDLED_ARGUMENT, DUMP_ARGUMENT, PREFLIGHT_ARGUMENT, READ_ARGUMENT,
    READ_OUTPUT_ARGUMENT, STEPS_ARGUMENT, cli, dump_threads_for_supervisor, preflight,
    read_for_supervisor, read_output_for_supervisor, run_steps_for_supervisor,
};

fn main() -> ExitCode {
    // Workers of the bundled web server are this program as well. They don't
    // pass through the command line, which is for people.
    match std::env::args_os().nth(1) {
        Some(word) if word == BUNDLED_ARGUMENT => prefork_web::main(),
        // So is what starts a program that does not speak the channel.
        Some(word) if word == ADAPTER_ARGUMENT => prefork_worker::adapter::main(),
        // Nor does a new program that is tried out on a running one's state.
        Some(word) if word == PREFLIGHT_ARGUMENT => preflight(),
        // Nor does who reads a configuration for a running supervisor.
        Some(word) if word == READ_ARGUMENT => read_for_supervisor(),
        // Nor does who runs the commands around a reload.
        Some(word) if word == STEPS_ARGUMENT => run_steps_for_supervisor(),
        // Nor does who reads what workers print.
        Some(word) if word == READ_OUTPUT_ARGUMENT => read_output_for_supervisor(),
        // Nor does who looks where a worker hangs.
        Some(word) if word == DUMP_ARGUMENT => dump_threads_for_supervisor(),
        _ => cli::main(),
    }
}
