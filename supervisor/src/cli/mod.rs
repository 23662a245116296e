//! The command line: one binary, `prefork`, for the supervisor and its operators.
//!
//! `args` turns the raw arguments into checked values; each command is a
//! function of `local`, `check` or `scaffold` (needs no supervisor), `query` (looks) or `job`,
//! `reload`, `upgrade`, `stop` and `wait` (has something done). They reach the supervisor by `client`, show
//! what they have by `render` and `top`, and fail with an `error` that knows its exit code.

mod address;
mod args;
mod check;
pub(crate) mod client;
mod completion;
mod error;
mod fleet;
mod job;
mod local;
mod orders;
mod progress;
mod query;
mod reload;
mod render;
mod scaffold;
mod stop;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod top;
pub(crate) mod units;
mod upgrade;
mod wait;

pub(crate) use render::{canary_words, exit_words, own_words};

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use args::{Command, CommandLine, New, Order, Question};
use clap::FromArgMatches;
use client::{Client, Deadline};
use error::Error;
use query::Query;
use serde_json::json;
use terminal::Terminal;

/// The default of `--timeout` for questions, and for `tell`.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The default of `--timeout` for jobs.
const JOB_TIMEOUT: Duration = Duration::from_secs(60);

/// The default of `--timeout` for a reload: a large pool is replaced in many
/// steps, and one that fails is put back in as many.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs the program with the process's arguments. Must be called before any
/// thread is started: the supervisor forks.
pub fn main() -> ExitCode {
    // The program before this one had our arguments: it may have known others.
    if let Some(handover) = crate::upgrade::receive() {
        let terminal = Terminal::new(None, false);
        let done = crate::run::supervise::go_on(handover).map_err(Error::from);
        return ExitCode::from(done.map_or_else(|error| report(&error, terminal), |()| 0));
    }
    let is_empty = |name: &str| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let matches = CommandLine::definition(is_empty).get_matches();
    let CommandLine { global, command } =
        CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let terminal = Terminal::new(global.output, global.verbose);
    let done = match command {
        Command::Run(run) => local::run(run, global.runtime_dir).map(|()| 0),
        Command::Check(wanted) => {
            check::run(wanted, global.runtime_dir, global.timeout, terminal).map(|()| 0)
        }
        Command::New(New::Worker { name, sdk }) => {
            scaffold::worker(&name, sdk, terminal).map(|()| 0)
        }
        Command::Completions { shell } => completion::script(shell, terminal).map(|()| 0),
        Command::Candidates { kind } => {
            completion::candidates(kind, global.runtime_dir, terminal);
            Ok(0)
        }
        Command::Man { dir } => local::man(dir, terminal).map(|()| 0),
        Command::Question(question) => Operator::new(global.runtime_dir, global.timeout, terminal)
            .and_then(|operator| operator.ask(question)),
        Command::Order(order) => Operator::new(global.runtime_dir, global.timeout, terminal)
            .and_then(|operator| operator.give(order))
            .map(|()| 0),
    };
    ExitCode::from(done.unwrap_or_else(|error| report(&error, terminal)))
}

/// Tells why a command was not done: the exit code.
fn report(error: &Error, terminal: Terminal) -> u8 {
    if error.is_quiet() {
        return error.exit_code();
    }
    if let (true, Error::Rejected(refusal)) = (terminal.is_json(), error) {
        // What a job says of itself is on stdout already; this isn't. Where
        // stdout is closed, the exit code has to do.
        let _ = terminal.data(format!("{}\n", json!(refusal)));
    }
    terminal.note(&format!("prefork: {error}"));
    if let Some(stderr) = error.stderr_tail() {
        terminal.note("the worker's last words on stderr:");
        terminal.note(stderr.trim_end());
    }
    error.exit_code()
}

/// Somebody who wants something of a running supervisor.
struct Operator {
    client: Client,
    timeout: Option<Duration>,
    terminal: Terminal,
    runtime: tokio::runtime::Runtime,
}

impl Operator {
    fn new(
        runtime_dir: Option<PathBuf>,
        timeout: Option<Duration>,
        terminal: Terminal,
    ) -> Result<Self, Error> {
        let runtime_dir = crate::config::runtime_dir(runtime_dir.as_deref());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        Ok(Self {
            client: Client::new(&runtime_dir),
            timeout,
            terminal,
            runtime,
        })
    }

    /// Asks: the exit code.
    fn ask(self, question: Question) -> Result<u8, Error> {
        let query = Query {
            client: &self.client,
            terminal: self.terminal,
            timeout: self.timeout.unwrap_or(QUESTION_TIMEOUT),
        };
        let answered = self.runtime.block_on(query.answer(question));
        // The lookup of a name that nobody answers is a thread that nobody waits for.
        self.runtime.shutdown_background();
        answered
    }

    /// Gives an order and waits until it is carried out.
    fn give(&self, order: Order) -> Result<(), Error> {
        let default = match order {
            Order::Tell { .. } => QUESTION_TIMEOUT,
            Order::Reload(_) | Order::Promote | Order::Abort | Order::Rollback(_) => RELOAD_TIMEOUT,
            _ => JOB_TIMEOUT,
        };
        self.runtime.block_on(async {
            // A deadline reads the runtime's clock.
            let deadline = Deadline::after(self.timeout.unwrap_or(default));
            orders::carry_out(&self.client, order, self.terminal, deadline).await
        })
    }
}
