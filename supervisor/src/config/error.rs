//! What can be wrong with a configuration, and how it is shown: file, line,
//! column, the line itself with a mark under the spot, and what would be right.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Bytes of the configuration's text.
pub(super) type Span = Range<usize>;

/// How many characters of a source line an error shows.
const EXCERPT: usize = 120;

/// How many problems of one file are worth reading at a time.
const MOST_PROBLEMS: usize = 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line contradicts itself or one of its values is wrong.
    #[error("{0}")]
    Usage(String),
    /// The file could not be read.
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read and is wrong: what is, in the order of its lines.
    #[error("{}", Problem::list(problems, *more))]
    Invalid {
        /// The first of them.
        problems: Vec<Problem>,
        /// How many more there are.
        more: usize,
    },
}

impl ConfigError {
    /// The command line's exit code: 2 for usage, 78 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreadable { .. } | Self::Invalid { .. } => 78,
        }
    }
}

/// One thing that is wrong with a configuration file. Its `Display` is several
/// lines for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the operator named it.
    pub path: String,
    /// Where in the file; absent when something is missing from the whole of it.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// A spot in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line, or the part of a long line around the spot.
    excerpt: String,
    /// Characters of the excerpt before the spot.
    indent: usize,
    /// Characters of the spot.
    width: usize,
}

impl Place {
    fn find(text: &str, span: &Span) -> Self {
        let start = boundary(text, span.start);
        let end = boundary(text, span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..]
            .find('\n')
            .map_or(text.len(), |newline| start + newline);
        let line = text[line_start..line_end].trim_end_matches('\r');
        let column = text[line_start..start].chars().count();
        let width = text[start..end.min(line_end)].chars().count();
        // A long line is shown from a little before the spot.
        let skipped = if line.chars().count() > EXCERPT {
            column.saturating_sub(EXCERPT / 3)
        } else {
            0
        };
        let visible = |c: char| {
            if c.is_control() && c != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        };
        let excerpt: String = line
            .chars()
            .skip(skipped)
            .take(EXCERPT)
            .map(visible)
            .collect();
        let indent = column - skipped;
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: column + 1,
            width: width.clamp(1, EXCERPT.saturating_sub(indent).max(1)),
            excerpt,
            indent,
        }
    }
}

/// The last boundary of a character at or before an offset.
fn boundary(text: &str, offset: usize) -> usize {
    let mut boundary = offset.min(text.len());
    while !text.is_char_boundary(boundary) {
        boundary -= 1;
    }
    boundary
}

impl Problem {
    fn list(problems: &[Self], more: usize) -> String {
        let shown: Vec<String> = problems.iter().map(Self::to_string).collect();
        let mut list = shown.join("\n\n");
        if more > 0 {
            list.push_str(&format!("\n\nand {more} more problems"));
        }
        list
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path)?;
        let mut gutter = String::from(" ");
        if let Some(place) = &self.place {
            write!(f, "{}:{}:", place.line, place.column)?;
            gutter = " ".repeat(place.line.to_string().len() + 1);
        }
        write!(f, " {}", self.message)?;
        if let Some(place) = &self.place {
            let indent: String = place
                .excerpt
                .chars()
                .take(place.indent)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let mark = "^".repeat(place.width);
            write!(f, "\n{gutter}|\n{} | {}", place.line, place.excerpt)?;
            write!(f, "\n{gutter}| {indent}{mark}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{gutter}= help: {help}")?;
        }
        Ok(())
    }
}

/// What is wrong with a value, before it is known where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    message: String,
    help: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    /// Adds what would be right.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says what had to be there instead.
    pub(super) fn of(mut self, what: &str) -> Self {
        self.message = format!("expected {what}: {}", self.message);
        self
    }

    /// All of it in one sentence, where there is no place to point at.
    pub(super) fn into_sentence(self) -> String {
        match self.help {
            Some(help) => format!("{}; {help}", self.message),
            None => self.message,
        }
    }

    /// Says which key's value it is.
    pub(super) fn of_key(mut self, key: &str) -> Self {
        self.message = format!("`{key}`: {}", self.message);
        self
    }

    /// The fault of a value that was given on the command line.
    pub(super) fn of_flag(self, flag: &str) -> ConfigError {
        ConfigError::Usage(format!("{flag}: {}", self.into_sentence()))
    }
}

/// Collects everything that is wrong with one file.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    path: &'a str,
    text: &'a str,
    found: RefCell<Vec<(Option<Span>, Fault)>>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(path: &'a str, text: &'a str) -> Self {
        Self {
            path,
            text,
            found: RefCell::default(),
        }
    }

    /// Something is wrong at this spot.
    pub(super) fn at(&self, span: Span, fault: Fault) {
        self.found.borrow_mut().push((Some(span), fault));
    }

    /// Something is wrong with the file as a whole.
    pub(super) fn whole(&self, fault: Fault) {
        self.found.borrow_mut().push((None, fault));
    }

    /// The line, from 1, in which a spot lies.
    pub(super) fn line(&self, span: &Span) -> usize {
        Place::find(self.text, span).line
    }

    /// The value, if nothing was wrong.
    pub(super) fn result<T>(self, value: T) -> Result<T, ConfigError> {
        if self.found.borrow().is_empty() {
            Ok(value)
        } else {
            Err(self.into_error())
        }
    }

    /// What was wrong, in the order of the lines.
    pub(super) fn into_error(self) -> ConfigError {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(span, _)| span.as_ref().map_or(usize::MAX, |span| span.start));
        let problem = |(span, fault): (Option<Span>, Fault)| Problem {
            path: self.path.to_owned(),
            place: span.map(|span| Place::find(self.text, &span)),
            message: fault.message,
            help: fault.help,
        };
        // Each place is looked for in the whole text.
        let more = found.len().saturating_sub(MOST_PROBLEMS);
        ConfigError::Invalid {
            problems: found.into_iter().take(MOST_PROBLEMS).map(problem).collect(),
            more,
        }
    }
}
