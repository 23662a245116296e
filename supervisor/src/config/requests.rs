//! `[requests]`: what workers note of the requests that they are serving.

use std::fmt;

use prefork_proto::request_table::MOST_ENTRIES;
use serde::{Deserialize, Serialize};

use super::section::{Section, boolean};

/// What workers note of the requests that they are serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// How many a worker has room for; 0: it notes none.
    pub table: u32,
    /// Whether targets are noted with their queries.
    pub query: bool,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            table: 64,
            query: false,
        }
    }
}

impl Requests {
    /// Whether it is as where nothing is said, as in a state that was written before it
    /// could be said.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// As it stands in a configuration, on one line.
impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table = {}, query = {}", self.table, self.query)
    }
}

/// Reads the section; without one everything is as by default.
pub(super) fn read(section: Option<Section<'_>>) -> Requests {
    let default = Requests::default();
    let Some(mut section) = section else {
        return default;
    };
    let table = section.integer("table", default.table.into(), 0..=MOST_ENTRIES.into());
    let query = section.take_or("query", default.query, boolean);
    section.finish();
    Requests {
        table: u32::try_from(table.value).unwrap_or(default.table),
        query: query.value,
    }
}
