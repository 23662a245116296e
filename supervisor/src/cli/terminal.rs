//! Where words go: data to stdout, everything else to stderr; colour for people only.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;

use super::error::Error;
use crate::sanitize::harmless;

/// How data is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs: exactly the API's JSON.
    Json,
}

/// The process's stdout and stderr, and how to use them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    /// As it was asked for, if it was.
    pub(crate) format: Option<Format>,
    pub(crate) color: bool,
    /// Whether stdout is a screen that can be drawn anew.
    pub(crate) screen: bool,
    /// Whether what goes on is told on one line of stderr that moves.
    pub(crate) moving: bool,
    /// Whether somebody is there who can answer a question.
    pub(crate) can_ask: bool,
}

impl Terminal {
    /// Looks at stdout, stderr and the environment (<https://no-color.org>).
    pub(crate) fn new(format: Option<Format>, verbose: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let screen = io::stdout().is_terminal() && !dumb;
        Self {
            format,
            color: screen && !set("NO_COLOR"),
            screen,
            moving: io::stderr().is_terminal() && !dumb && !verbose,
            can_ask: io::stdin().is_terminal() && io::stderr().is_terminal(),
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Some(Format::Json)
    }

    /// Whether what comes line by line is JSON: for a program that was not asked how it
    /// likes it, as for one that was.
    pub(crate) fn has_json_lines(self) -> bool {
        let default = match io::stdout().is_terminal() {
            true => Format::Table,
            false => Format::Json,
        };
        self.format.unwrap_or(default) == Format::Json
    }

    /// Writes data, and flushes it: a reader at a pipe's other end may wait for it.
    pub(crate) fn data(self, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes.as_ref())?;
        stdout.flush()?;
        Ok(())
    }

    /// Writes what a job says. How the job ends counts, also when nobody reads
    /// that any more: a reader that has gone is no error.
    pub(crate) fn told(self, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        match self.data(bytes) {
            Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done,
        }
    }

    /// Asks a question: whether the answer is yes. No answer is a no.
    pub(crate) fn ask(self, question: &str) -> Result<bool, Error> {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{} [y/N] ", harmless(question))?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        let answer = answer.trim().to_ascii_lowercase();
        Ok(matches!(answer.as_str(), "y" | "yes"))
    }

    /// Tells people something on the way.
    pub(crate) fn note(self, text: &str) {
        // A closed stderr is no reason to leave a job's end unreported.
        let _ = writeln!(io::stderr().lock(), "{}", harmless(text));
    }
}
