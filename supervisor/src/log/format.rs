//! How a line of the log looks.
//!
//! What a worker has said comes after `worker:`, and only there; what the
//! supervisor says of itself does not. A text of several lines is indented, so nothing
//! that a worker chooses is ever at the beginning of a line.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::journal::priority;
use super::said::{SHOWN_LEVEL, SHOWN_PRIORITY, WORKER};
use crate::plain::{harmless, log_line};

/// What comes before the text of a further line.
const INDENT: &str = "    ";

/// One line for each event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    /// The journal has its own time, and takes a priority.
    pub(super) for_journal: bool,
    pub(super) color: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut said = Said::default();
        event.record(&mut said);
        let prefix = if self.for_journal {
            let own = said.priority.unwrap_or(priority(*metadata.level()).into());
            format!("<{own}>")
        } else {
            SystemTime.format_time(&mut out)?;
            out.write_char(' ')?;
            String::new()
        };
        out.write_str(&prefix)?;
        self.level(&mut out, *metadata.level(), &said.level)?;
        if metadata.target() == WORKER {
            out.write_str(" worker:")?;
            write!(out, " {}", log_line(&said.message))?;
        } else {
            out.write_char(' ')?;
            let text = harmless(&said.message);
            for (number, line) in text.lines().enumerate() {
                if number > 0 {
                    write!(out, "\n{prefix}{INDENT}")?;
                }
                out.write_str(line)?;
            }
        }
        writeln!(out, "{}", said.fields)
    }
}

impl Lines {
    fn level(self, out: &mut Writer<'_>, level: Level, shown: &str) -> fmt::Result {
        let name = if shown.is_empty() {
            level.as_str()
        } else {
            shown
        };
        if !self.color {
            return write!(out, "{name:>5}");
        }
        let color = match level {
            Level::ERROR => 31,
            Level::WARN => 33,
            Level::INFO => 32,
            Level::DEBUG => 34,
            Level::TRACE => 35,
        };
        write!(out, "\x1b[{color}m{name:>5}\x1b[0m")
    }
}

/// The parts of an event.
#[derive(Debug, Default)]
struct Said {
    message: String,
    /// ` slot=web/0 pid=4711`.
    fields: String,
    /// What a worker's line says of its level.
    level: String,
    priority: Option<u64>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Strings take all that is written.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            SHOWN_LEVEL => write!(self.level, "{value:?}"),
            name => write!(self.fields, " {name}={}", log_line(&format!("{value:?}"))),
        };
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == SHOWN_PRIORITY {
            self.priority = Some(value);
        } else {
            self.record_debug(field, &value);
        }
    }
}
