//! Reads one TOML table, key by key. What was never asked for is an unknown key.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Fault, Problems, Span};
use super::{elsewhere, units};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Setting<T> {
    /// The checked value: the file's, or the default.
    pub(super) value: T,
    /// Where it stands; the section's header for a default.
    pub(super) span: Span,
    /// Whether it can be compared with others: false when the file's was wrong.
    pub(super) sound: bool,
}

/// One table of the file.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// For people: `[pool.web]`.
    pub(super) name: String,
    /// Its header.
    pub(super) span: Span,
    pub(super) table: &'a DeTable<'a>,
    pub(super) problems: &'a Problems<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        name: impl Into<String>,
        table: &'a DeTable<'a>,
        span: Span,
        problems: &'a Problems<'a>,
    ) -> Self {
        Self {
            name: name.into(),
            span,
            table,
            problems,
            known: Vec::new(),
        }
    }

    /// The raw value of a key.
    fn raw(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// The value of a key as `read` understands it; what is wrong with it is
    /// reported. `None` when it is absent or wrong.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a DeValue<'a>) -> Result<T, Fault>,
    ) -> Setting<Option<T>> {
        let Some(raw) = self.raw(key) else {
            return Setting {
                value: None,
                span: self.span.clone(),
                sound: true,
            };
        };
        let value = read(raw.get_ref())
            .map_err(|fault| self.problems.at(raw.span(), fault.of_key(key)))
            .ok();
        Setting {
            sound: value.is_some(),
            span: raw.span(),
            value,
        }
    }

    /// The same with a default.
    pub(super) fn take_or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&'a DeValue<'a>) -> Result<T, Fault>,
    ) -> Setting<T> {
        let Setting { value, span, sound } = self.take(key, read);
        Setting {
            value: value.unwrap_or(default),
            span,
            sound,
        }
    }

    /// A duration within a range.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Setting<Duration> {
        self.take_or(key, default, |value| {
            within(duration(value)?, &range, units::show_duration)
        })
    }

    /// An integer within a range.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Setting<u64> {
        self.take_or(key, default, |value| integer(value, &range))
    }

    /// A table within this one. What is not a table is reported.
    pub(super) fn section(&mut self, key: &'static str, name: impl Into<String>) -> Option<Self> {
        let raw = self.raw(key)?;
        match raw.get_ref() {
            DeValue::Table(table) => Some(Section::new(name, table, raw.span(), self.problems)),
            other => {
                let fault = expected("a table", other);
                self.problems.at(raw.span(), fault.of_key(key));
                None
            }
        }
    }

    /// An array, element by element; what is wrong with one is reported there
    /// and makes the whole unsound. `None` when there is no array.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        what: &str,
        mut read: impl FnMut(&'a Spanned<DeValue<'a>>) -> Result<T, Fault>,
    ) -> Option<Setting<Vec<Setting<T>>>> {
        let raw = self.raw(key)?;
        let DeValue::Array(elements) = raw.get_ref() else {
            let fault = expected(what, raw.get_ref()).of_key(key);
            self.problems.at(
                raw.span(),
                match raw.get_ref().as_str() {
                    Some(text) => fault.help(format!("write [\"{}\"]", text.escape_debug())),
                    None => fault,
                },
            );
            return None;
        };
        let mut list = Vec::new();
        for element in elements {
            match read(element) {
                Ok(value) => list.push(Setting {
                    value,
                    span: element.span(),
                    sound: true,
                }),
                Err(fault) => self.problems.at(element.span(), fault),
            }
        }
        Some(Setting {
            sound: list.len() == elements.len(),
            value: list,
            span: raw.span(),
        })
    }

    /// Whether the file has this key, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The entries of a table whose keys the operator chose, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(&'a str, Span, &'a Spanned<DeValue<'a>>)> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), key.span(), value))
            .collect();
        entries.sort_by_key(|(_, span, _)| span.start);
        entries
    }

    /// Reports something wrong at a spot of this section.
    pub(super) fn fault(&self, span: Span, fault: Fault) {
        self.problems.at(span, fault);
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        for (key, span, value) in self.entries() {
            if !self.known.contains(&key) {
                let fault = Fault::new(format!("unknown key `{key}` in {}", self.name));
                let help = elsewhere::answer(key, value.get_ref(), &self.name)
                    .unwrap_or_else(|| nearest(key, &self.known));
                self.problems.at(span, fault.help(help));
            }
        }
    }
}

/// What to write instead of an unknown key: the one that is meant, or all of them, the
/// likest first.
pub(super) fn nearest(key: &str, known: &[&str]) -> String {
    let (nearest, distance) = known
        .iter()
        .map(|name| (*name, strsim::damerau_levenshtein(key, name)))
        .min_by_key(|(_, distance)| *distance)
        .unwrap_or(("", usize::MAX));
    if distance <= (key.chars().count() / 3).max(2) {
        format!("did you mean `{nearest}`?")
    } else {
        let mut known = known.to_vec();
        let likeness = |name: &str| strsim::jaro_winkler(key, name);
        known.sort_by(|one, other| likeness(other).total_cmp(&likeness(one)));
        format!("valid keys: {}", known.join(", "))
    }
}

/// A string; `what` says what kind of string for the message.
pub(super) fn string<'a>(value: &'a DeValue<'a>, what: &str) -> Result<&'a str, Fault> {
    value.as_str().ok_or_else(|| expected(what, value))
}

/// A duration in its unit.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, Fault> {
    match value {
        DeValue::String(text) => units::duration(text),
        DeValue::Integer(number) => {
            let help = format!("write its unit: \"{number}s\" or \"{number}ms\"");
            Err(expected("a duration such as \"30s\"", value).help(help))
        }
        _ => Err(expected("a duration such as \"30s\"", value)),
    }
}

/// Permission bits, as chmod(1) has them.
pub(super) fn permissions(value: &DeValue<'_>) -> Result<u32, Fault> {
    let text = string(value, "permission bits such as \"0660\"")?;
    units::permissions(text)
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Fault> {
    value
        .as_bool()
        .ok_or_else(|| expected("true or false", value))
}

/// An integer within a range.
pub(super) fn integer(value: &DeValue<'_>, range: &RangeInclusive<u64>) -> Result<u64, Fault> {
    let Some(raw) = value.as_integer() else {
        return Err(expected("an integer", value));
    };
    // Whatever does not fit u64 is out of every range.
    u64::from_str_radix(raw.as_str(), raw.radix())
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| out_of_range(raw, range.start(), range.end()))
}

/// The value, if it lies in the range; `show` writes it for the message.
pub(super) fn within<T: PartialOrd + Copy>(
    value: T,
    range: &RangeInclusive<T>,
    show: impl Fn(T) -> String,
) -> Result<T, Fault> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(out_of_range(
        show(value),
        show(*range.start()),
        show(*range.end()),
    ))
}

fn out_of_range(found: impl Display, least: impl Display, most: impl Display) -> Fault {
    Fault::new(format!("{found} is out of range")).help(format!("from {least} to {most}"))
}

/// The fault of a value of the wrong type.
pub(super) fn expected(what: &str, found: &DeValue<'_>) -> Fault {
    let found = match found {
        DeValue::String(text) => format!("string \"{}\"", text.escape_debug()),
        DeValue::Integer(number) => format!("integer {number}"),
        DeValue::Float(number) => format!("float {number}"),
        DeValue::Boolean(flag) => format!("boolean {flag}"),
        DeValue::Datetime(time) => format!("datetime {time}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    Fault::new(format!("expected {what}, found {found}"))
}
