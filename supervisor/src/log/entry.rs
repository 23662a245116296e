//! An entry of the log, as it is made from an event of `tracing`.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use prefork_api::LogEntry;
use tracing::Event;
use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime as Clock};

use super::journal::priority;
use super::said::{SHOWN_LEVEL, SHOWN_PRIORITY, WORKER};
use crate::sanitize::{harmless, log_line};

/// An entry, and what only some of its readers want.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) shown: Arc<LogEntry>,
    pub(super) level: tracing::Level,
    /// By the numbers of syslog(3).
    pub(super) priority: u8,
    /// A worker has written it.
    pub(super) is_workers: bool,
    pub(super) at: SystemTime,
}

impl Entry {
    /// Takes an event apart. Nothing of it that is hidden or drives a terminal stays.
    pub(super) fn of(event: &Event<'_>) -> Self {
        let level = *event.metadata().level();
        let mut parts = Parts::default();
        event.record(&mut parts);
        let shown_level = match parts.level.is_empty() {
            true => level.as_str(),
            false => parts.level.as_str(),
        };
        parts.shown.level = shown_level.to_ascii_lowercase();
        parts.shown.message = harmless(parts.message.trim_end_matches('\n')).into_owned();
        // A string takes all that is written.
        let _ = Clock.format_time(&mut Writer::new(&mut parts.shown.time));
        Self {
            shown: Arc::new(parts.shown),
            level,
            priority: parts.priority.unwrap_or_else(|| priority(level)),
            is_workers: event.metadata().target() == WORKER,
            at: SystemTime::now(),
        }
    }
}

/// What has been seen of an event.
#[derive(Debug)]
struct Parts {
    shown: LogEntry,
    message: String,
    /// What a worker's line says of its level.
    level: String,
    priority: Option<u8>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            shown: LogEntry {
                time: String::new(),
                level: String::new(),
                pool: None,
                slot: None,
                pid: None,
                stream: None,
                message: String::new(),
                fields: Default::default(),
                seq: 0,
                lost: 0,
            },
            message: String::new(),
            level: String::new(),
            priority: None,
        }
    }
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Strings take all that is written.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            SHOWN_LEVEL => write!(self.level, "{value:?}"),
            name => {
                self.field(name, log_line(&format!("{value:?}")).into_owned());
                Ok(())
            }
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == SHOWN_PRIORITY {
            self.priority = u8::try_from(value).ok();
        } else {
            self.record_debug(field, &value);
        }
    }
}

impl Parts {
    fn field(&mut self, name: &str, text: String) {
        let shown = &mut self.shown;
        match name {
            "slot" => match text.split_once('/') {
                Some((pool, slot)) => {
                    shown.pool = Some(pool.to_owned());
                    shown.slot = slot.parse().ok();
                }
                None => shown.slot = text.parse().ok(),
            },
            "pool" => shown.pool = Some(text),
            "pid" => shown.pid = text.parse().ok(),
            "stream" => shown.stream = Some(text),
            name => {
                shown.fields.insert(name.to_owned(), text);
            }
        }
    }
}
