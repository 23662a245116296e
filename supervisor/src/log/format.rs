//! How an entry of the log looks.
//!
//! As text: the time, the level, the slot that it is about. What a worker has said comes
//! after `worker:`, and only there; what the supervisor says of itself does not. A text of
//! several lines is indented, so nothing that a worker chooses is ever at the beginning of
//! a line.

use std::fmt::Write as _;

use prefork_api::LogEntry;
use serde::{Deserialize, Serialize};
use tracing::Level;

use super::entry::Entry;
use super::journal::priority;

/// What comes before the text of a further line.
const INDENT: &str = "    ";

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Lines for people.
    Text,
    /// A JSON object for each entry.
    Json,
    /// Lines for people without a time, each with the priority that the journal takes.
    Journal,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Text, Self::Json, Self::Journal];

    /// As it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Journal => "journal",
        }
    }
}

/// How entries become lines here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    pub(super) format: Format,
    /// The journal reads it, which takes a priority before each line and has a time of
    /// its own (sd-daemon(3)).
    pub(super) for_journal: bool,
    pub(super) color: bool,
}

impl Lines {
    /// The lines of an entry, with the last newline.
    pub(super) fn of(self, entry: &Entry) -> String {
        let prefix = self.prefix(entry.priority);
        if self.format == Format::Json {
            return format!("{prefix}{}\n", json(&entry.shown));
        }
        let mut out = String::with_capacity(entry.shown.message.len() + 128);
        if self.format == Format::Text {
            out.push_str(&entry.shown.time);
            out.push(' ');
        }
        out.push_str(&prefix);
        out.push_str(&level(&entry.shown.level, entry.level, self.color));
        if let Some(whom) = entry.shown.whom() {
            out.push(' ');
            out.push_str(&whom);
        }
        if entry.is_workers {
            out.push_str(" worker:");
        }
        let mut lines = entry.shown.message.split('\n');
        out.push(' ');
        out.push_str(lines.next().unwrap_or_default());
        out.push_str(&rest(&entry.shown));
        for line in lines {
            // A string takes all that is written.
            let _ = write!(out, "\n{prefix}{INDENT}{line}");
        }
        out.push('\n');
        out
    }

    /// What is written once there is room again after so many lines found none.
    pub(super) fn lost(self, lines: u64) -> String {
        let said = format!(
            "{lines} log lines were lost: there was no room for them, or the log's reader is too slow"
        );
        let prefix = self.prefix(priority(Level::WARN));
        match self.format {
            Format::Json => {
                let note = serde_json::json!({"level": "warn", "message": said, "lost": lines});
                format!("{prefix}{note}\n")
            }
            Format::Text | Format::Journal => format!("{prefix}prefork: {said}\n"),
        }
    }

    fn prefix(self, priority: u8) -> String {
        match self.for_journal {
            true => format!("<{priority}>"),
            false => String::new(),
        }
    }
}

fn json(entry: &LogEntry) -> String {
    serde_json::to_string(entry).expect("an entry is of strings and numbers")
}

/// A level in five columns.
fn level(shown: &str, level: Level, color: bool) -> String {
    let name = shown.to_ascii_uppercase();
    if !color {
        return format!("{name:>5}");
    }
    let color = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    };
    format!("\x1b[{color}m{name:>5}\x1b[0m")
}

/// ` pid=4711 stream=stderr`.
fn rest(entry: &LogEntry) -> String {
    let mut rest = String::new();
    let pid = entry.pid.map(|pid| pid.to_string());
    let known = [("pid", pid.as_ref()), ("stream", entry.stream.as_ref())];
    let known = known
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    let others = entry
        .fields
        .iter()
        .map(|(key, value)| (key.as_str(), value));
    for (key, value) in known.chain(others) {
        // A string takes all that is written.
        let _ = write!(rest, " {key}={value}");
    }
    rest
}
