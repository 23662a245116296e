//! The supervisor's log: to stderr, stdout or a file that can be opened again, at a
//! level that can be changed while it runs. The last of it is kept in `memory`.
//!
//! Writing must never block the event loop: a reader that has stopped costs
//! log lines, workers' first, counted and told of later, and nothing else.

mod entry;
mod format;
mod journal;
mod memory;
mod said;
mod sink;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use entry::Entry;
pub use format::Format;
use format::Lines;
pub(crate) use memory::{Memory, is_about};
pub(crate) use said::{Voice, length_of_block, worker_said};
use sink::{Origin, Sink, Target};

/// The levels, the gravest first.
pub(crate) const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The log of a running supervisor.
#[derive(Debug, Clone)]
pub struct Log {
    sink: Shared,
    memory: Memory,
    level: reload::Handle<LevelFilter, Registry>,
}

impl Log {
    /// Starts logging: to the file, or to stderr where there is none; at this level,
    /// or at the one that `$RUST_LOG` names, or at `info`; in this format, or in the
    /// journal's where that reads it, or as text.
    pub fn start(
        file: Option<&Path>,
        level: Option<&str>,
        format: Option<Format>,
    ) -> io::Result<Self> {
        let target = Target::of(file)?;
        let is_terminal = match target {
            Target::Stdout => io::stdout().is_terminal(),
            Target::Stderr => io::stderr().is_terminal(),
            Target::File { .. } => false,
        };
        let color =
            is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let is_journal = journal::of_target(&target);
        let format = format.unwrap_or(match is_journal {
            true => Format::Journal,
            false => Format::Text,
        });
        let lines = Lines {
            format,
            for_journal: format == Format::Journal || is_journal,
            color,
        };
        let sink = Shared(Arc::new(Mutex::new(Sink::new(target, lines))));
        let memory = Memory::new();
        let asked = std::env::var("RUST_LOG").unwrap_or_default();
        let level = level.and_then(|level| filter(level).ok());
        let level = level.or_else(|| of_directives(&asked));
        let (filter, level) = reload::Layer::new(level.unwrap_or(LevelFilter::INFO));
        let recorder = Recorder {
            lines,
            sink: sink.clone(),
            memory: memory.clone(),
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(recorder)
            .try_init()
            .map_err(io::Error::other)?;
        Ok(Self {
            sink,
            memory,
            level,
        })
    }

    /// The last of what was logged.
    pub(crate) fn memory(&self) -> Memory {
        self.memory.clone()
    }

    /// Changes what is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        let filter = filter(level)?;
        self.level.reload(filter).map_err(|error| error.to_string())
    }

    /// What is logged, as [`Self::set_level`] takes it.
    pub fn level(&self) -> String {
        let level = self.level.with_current(ToString::to_string);
        level.unwrap_or_else(|_| LevelFilter::INFO.to_string())
    }

    /// Writes what found no room when it was said, as far as there is some by now.
    pub fn catch_up(&self) {
        self.sink.lock().catch_up();
    }

    /// Opens the log file again, after a rotation has renamed it. Stdout and stderr stay.
    pub fn reopen(&self) -> io::Result<()> {
        self.sink.lock().reopen()
    }
}

fn filter(level: &str) -> Result<LevelFilter, String> {
    if !LEVELS.contains(&level) {
        return Err(format!(
            "unknown log level {level:?}; one of {}",
            LEVELS.join(", ")
        ));
    }
    level.parse().map_err(|_| format!("bad level {level:?}"))
}

/// What directives such as `info,prefork=debug,hyper=off` say of this program. Those for
/// parts of it or of others say nothing: workers get the variable, too.
fn of_directives(text: &str) -> Option<LevelFilter> {
    let mut of_all = None;
    // An empty one would be read as `error`.
    let directives = text.split(',').map(str::trim);
    for directive in directives.filter(|directive| !directive.is_empty()) {
        match directive.split_once('=') {
            Some(("prefork" | "prefork_supervisor", level)) => {
                if let Ok(level) = level.parse() {
                    return Some(quietest(level));
                }
            }
            None => of_all = directive.parse().ok().map(quietest).or(of_all),
            Some(_) => {}
        }
    }
    of_all
}

/// Errors are always told.
fn quietest(level: LevelFilter) -> LevelFilter {
    level.max(LevelFilter::ERROR)
}

/// The sink, as the layers of the log share it.
#[derive(Debug, Clone)]
struct Shared(Arc<Mutex<Sink>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Sink> {
        // One thread only; a panic inside leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes an entry of each event: one to be kept, and lines for the sink.
#[derive(Debug)]
struct Recorder {
    lines: Lines,
    sink: Shared,
    memory: Memory,
}

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::of(event);
        self.memory.keep(&mut entry.shown, entry.at);
        let origin = match entry.is_workers {
            true => Origin::Worker,
            false => Origin::Own,
        };
        let lines = self.lines.of(&entry);
        self.sink.lock().write_line(lines.as_bytes(), origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_level_for_all_or_for_this_program() {
        for (text, level) in [
            ("", None),
            ("debug", Some(LevelFilter::DEBUG)),
            ("WARN,shop=trace", Some(LevelFilter::WARN)),
            ("warn,prefork=debug", Some(LevelFilter::DEBUG)),
            ("shop=trace", None),
            ("prefork_supervisor=error", Some(LevelFilter::ERROR)),
            ("off", Some(LevelFilter::ERROR)),
            ("prefork=nonsense,info", Some(LevelFilter::INFO)),
            // Every word without a level is a target, and so none of ours.
            ("shop", None),
        ] {
            assert_eq!(of_directives(text), level, "{text}");
        }
    }
}
