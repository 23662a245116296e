//! Aligned columns.

use crate::sanitize::one_line;

/// How a cell looks where there is colour (ECMA-48, SGR).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Good,
    Busy,
    Bad,
    Faint,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Busy => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Faint => "\x1b[2m",
        }
    }

    /// A text in this style.
    pub(crate) fn paint(self, text: &str, color: bool) -> String {
        if !color || self == Self::Plain || text.is_empty() {
            return text.to_owned();
        }
        format!("{}{text}\x1b[0m", self.code())
    }
}

/// One cell: a text on one line.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self {
            text: one_line(text.as_ref()).into_owned(),
            style,
        }
    }

    /// What is absent shows as `-`.
    pub(crate) fn or_dash(text: Option<impl ToString>) -> Self {
        text.map_or_else(|| Self::from("-"), |text| Self::from(text.to_string()))
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        Self::styled(value.to_string(), Style::Plain)
    }
}

/// Which side of its column a cell keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows under a heading.
#[derive(Debug, Clone)]
pub(crate) struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(columns: [(&'static str, Align); N]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: [Cell; N]) {
        self.rows.push(cells);
    }

    /// The lines, each with its newline, none with blanks at its end.
    pub(crate) fn render(&self, color: bool) -> String {
        let heading = self
            .columns
            .map(|(title, _)| Cell::styled(title, Style::Faint));
        let lines = || std::iter::once(&heading).chain(&self.rows);
        let mut widths = [0; N];
        for cells in lines() {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let mut out = String::new();
        for cells in lines() {
            // Blanks wait here until something follows them.
            let mut blanks = 0;
            for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(self.columns) {
                let gap = width - cell.text.chars().count();
                let (before, after) = match align {
                    Align::Left => (0, gap),
                    Align::Right => (gap, 0),
                };
                blanks += before;
                if !cell.text.is_empty() {
                    out.extend(std::iter::repeat_n(' ', blanks));
                    out.push_str(&cell.style.paint(&cell.text, color));
                    blanks = 0;
                }
                blanks += after + 2;
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_end_where_their_text_ends() {
        let mut table = Table::new([
            ("NAME", Align::Left),
            ("COUNT", Align::Right),
            ("NOTE", Align::Left),
        ]);
        table.row(["a".into(), 12_345_678.into(), "".into()]);
        table.row(["é-long".into(), 1.into(), "x\ny".into()]);
        assert_eq!(
            table.render(false),
            "NAME       COUNT  NOTE\n\
             a       12345678\n\
             é-long         1  x\\ny\n"
        );
    }

    #[test]
    fn colour_changes_no_width() {
        let mut table = Table::new([("A", Align::Left), ("B", Align::Left)]);
        table.row([Cell::styled("up", Style::Good), "x".into()]);
        let colored = table.render(true);
        assert!(colored.contains("\x1b[32mup\x1b[0m  x"), "{colored:?}");
        assert!(!table.render(false).contains('\x1b'));
    }
}
