//! Reports as text that reads well on a terminal and is Markdown as well.

use std::fmt;

use super::{Bound, Cell, Report, Table, Target};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(f, "{table}")?;
        }
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        if !self.notes.is_empty() {
            writeln!(f)?;
        }
        if !self.targets.is_empty() {
            write!(f, "{}", targets(&self.targets))?;
        }
        Ok(())
    }
}

/// The targets as a table.
pub(crate) fn targets<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Table {
    let mut table = Table::new("Targets", &["what", "to reach", "measured", "verdict"]);
    for target in targets {
        let verdict = match target.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        };
        let measured = target
            .measured
            .map_or("-".into(), |it| Cell::Spread(Some(it), 2));
        table.row([
            target.what.into(),
            target.bound.to_string().into(),
            measured,
            verdict.into(),
        ]);
    }
    table
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number, digits) => write!(f, "{number:.digits$}"),
            Self::Spread(Some(spread), digits) => write!(f, "{spread:.digits$}"),
            Self::Spread(None, _) => f.write_str("-"),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(Cell::to_string).collect())
            .collect();
        let heads = &self.columns;
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let longest = cells
                .chain(heads.get(column))
                .map(|cell| cell.chars().count());
            longest.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        writeln!(f, "### {}\n", self.title)?;
        line(f, heads, &widths)?;
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        line(f, &rule, &widths)?;
        for row in &rows {
            line(f, row, &widths)?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, cells: &[String], widths: &[usize]) -> fmt::Result {
    for (cell, width) in cells.iter().zip(widths) {
        write!(f, "| {cell:<width$} ")?;
    }
    writeln!(f, "|")
}
