//! The commands that need no running supervisor.

use std::path::PathBuf;

use clap::{Command, CommandFactory};

use super::args::{CommandLine, Run};
use super::error::Error;
use super::terminal::Terminal;
use crate::config;
use crate::kernel::sys;
use crate::recovery::survivors::configuration_in_force;

/// `prefork run`.
pub(super) fn run(run: Run, runtime_dir: Option<PathBuf>) -> Result<(), Error> {
    let options = run.into_options(runtime_dir);
    let late = sys::signals::say_if_late();
    let config = config::load(&options).or_else(|error| {
        // A mistake in the file must not end a service whose workers live and
        // wait for a supervisor.
        let runtime_dir = config::likely_runtime_dir(&options);
        match configuration_in_force(&runtime_dir) {
            Some(config) => {
                eprintln!(
                    "prefork: {error}\nprefork: its workers serve: going on with what was in force"
                );
                Ok(config)
            }
            None => Err(error),
        }
    })?;
    drop(late);
    Ok(crate::run::supervise::run(options, config)?)
}

/// `prefork man`: one page to stdout, or all of them to a directory.
pub(super) fn man(dir: Option<PathBuf>, terminal: Terminal) -> Result<(), Error> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command()).render(&mut page)?;
        return terminal.data(page);
    };
    std::fs::create_dir_all(&dir)
        .and_then(|()| clap_mangen::generate_to(command(), &dir))
        .map_err(|error| Error::File { path: dir, error })
}

pub(super) fn command() -> Command {
    CommandLine::command()
}
