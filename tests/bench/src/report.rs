//! What a suite found: tables for people, the same as JSON, and whether the
//! targets were reached.

mod text;

pub(crate) use text::targets;

use serde::Serialize;
use serde_json::{Value, json};

use crate::figures::Spread;

/// What one suite found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Its tables, in order.
    pub(crate) tables: Vec<Table>,
    /// The targets that it checks.
    pub(crate) targets: Vec<Target>,
    /// What a reader has to know beside the figures.
    pub(crate) notes: Vec<String>,
}

impl Report {
    /// Adds a sentence.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

/// One table.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    /// What it shows.
    pub(crate) title: String,
    /// Column heads, with units.
    pub(crate) columns: Vec<String>,
    /// A cell per column each.
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty one.
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(|head| (*head).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }
}

/// What stands in a table.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    /// Words.
    Text(String),
    /// A number with this many digits after the point.
    Number(f64, usize),
    /// The median and the extremes of several measurements.
    Spread(Option<Spread>, usize),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number as f64, 0)
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Number(number as f64, 0)
    }
}

impl Serialize for Cell {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: Value = match self {
            Self::Text(text) => json!(text),
            Self::Number(number, _) => json!(number),
            Self::Spread(spread, _) => json!(spread),
        };
        value.serialize(serializer)
    }
}

/// A figure that is to be reached.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    /// What is measured, with its unit.
    pub(crate) what: &'static str,
    /// What is to be reached.
    pub(crate) bound: Bound,
    /// What was measured; its median counts. None where it could not be.
    pub(crate) measured: Option<Spread>,
}

/// On which side of a figure to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Target {
    /// Whether it was reached; `None` where it could not be measured.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let median = self.measured?.median;
        Some(match self.bound {
            Bound::AtMost(bound) => median <= bound,
            Bound::AtLeast(bound) => median >= bound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_was_not_measured_is_neither_met_nor_missed() {
        let target = |measured| Target {
            what: "ratio",
            bound: Bound::AtMost(1.05),
            measured,
        };
        assert_eq!(target(None).is_met(), None);
        assert_eq!(target(Spread::of([1.05])).is_met(), Some(true));
        assert_eq!(target(Spread::of([1.0, 1.06, 1.07])).is_met(), Some(false));
    }
}
