//! The levels that programs write into their lines, in the words of the usual
//! logging libraries.

use serde::Deserialize;
use serde_json::Value;
use tracing::Level;

/// How grave a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Severity {
    /// 2 of syslog(3), and what is worse.
    Critical,
    Error,
    Warning,
    Notice,
    #[default]
    Info,
    Debug,
    Trace,
}

impl Severity {
    /// The supervisor's own level for it.
    pub(super) fn level(self) -> Level {
        match self {
            Self::Critical | Self::Error => Level::ERROR,
            Self::Warning => Level::WARN,
            Self::Notice | Self::Info => Level::INFO,
            Self::Debug => Level::DEBUG,
            Self::Trace => Level::TRACE,
        }
    }

    /// As it is shown.
    pub(super) fn name(self) -> &'static str {
        self.level().as_str()
    }

    /// As the journal knows it, by the numbers of syslog(3).
    pub(super) fn priority(self) -> u8 {
        match self {
            Self::Critical => 2,
            Self::Error => 3,
            Self::Warning => 4,
            Self::Notice => 5,
            Self::Info => 6,
            Self::Debug | Self::Trace => 7,
        }
    }

    fn of_priority(number: u8) -> Self {
        match number & 7 {
            0..=2 => Self::Critical,
            3 => Self::Error,
            4 => Self::Warning,
            5 => Self::Notice,
            6 => Self::Info,
            _ => Self::Debug,
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        const WORDS: [(&str, Severity); 17] = [
            ("TRACE", Severity::Trace),
            ("DEBUG", Severity::Debug),
            ("INFO", Severity::Info),
            ("INFORMATION", Severity::Info),
            ("NOTICE", Severity::Notice),
            ("WARN", Severity::Warning),
            ("WARNING", Severity::Warning),
            ("ERROR", Severity::Error),
            ("ERR", Severity::Error),
            ("SEVERE", Severity::Error),
            ("CRIT", Severity::Critical),
            ("CRITICAL", Severity::Critical),
            ("FATAL", Severity::Critical),
            ("PANIC", Severity::Critical),
            ("ALERT", Severity::Critical),
            ("EMERG", Severity::Critical),
            ("EMERGENCY", Severity::Critical),
        ];
        let known = WORDS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word));
        known.map(|(_, severity)| *severity)
    }

    /// By the numbers of bunyan and pino.
    fn of_number(number: u64) -> Self {
        match number {
            0..20 => Self::Trace,
            20..30 => Self::Debug,
            30..40 => Self::Info,
            40..50 => Self::Warning,
            50..60 => Self::Error,
            _ => Self::Critical,
        }
    }
}

/// `<3>no disk`: a priority with or without a facility (sd-daemon(3), RFC 5424).
pub(super) fn syslog_prefix(line: &str) -> Option<(Severity, &str)> {
    let (number, rest) = line.strip_prefix('<')?.split_once('>')?;
    let is_number = (1..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    let number: u8 = number
        .parse()
        .ok()
        .filter(|number| is_number && *number <= 191)?;
    Some((Severity::of_priority(number), rest))
}

/// The level of a JSON object.
pub(super) fn of_json(line: &str) -> Severity {
    #[derive(Deserialize)]
    struct Line {
        level: Option<Value>,
        severity: Option<Value>,
        levelname: Option<Value>,
        lvl: Option<Value>,
        #[serde(rename = "log.level")]
        log_level: Option<Value>,
    }
    let Ok(line) = serde_json::from_str::<Line>(line) else {
        return Severity::default();
    };
    let fields = [
        line.level,
        line.severity,
        line.levelname,
        line.lvl,
        line.log_level,
    ];
    let mut said = fields
        .into_iter()
        .flatten()
        .filter_map(|value| match value {
            Value::String(word) => Severity::of_word(&word),
            Value::Number(number) => number.as_u64().map(Severity::of_number),
            _ => None,
        });
    said.next().unwrap_or_default()
}

/// A level at the beginning, in capitals or in brackets, and what comes after it:
/// `ERROR: x`, `WARNING:shop:x`, `[error] x`.
pub(super) fn leading(text: &str) -> Option<(Severity, &str)> {
    let in_brackets = text.strip_prefix('[');
    let body = in_brackets.unwrap_or(text);
    let end = body
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(body.len());
    let (word, rest) = body.split_at(end);
    let severity = Severity::of_word(word)?;
    if in_brackets.is_some() {
        return Some((severity, rest.strip_prefix(']')?));
    }
    let is_capitals = word.bytes().all(|byte| byte.is_ascii_uppercase());
    // `ERROR_PAGE=1` is no level.
    let ends = rest.is_empty() || rest.starts_with([' ', '\t', ':', '|', ']', ',']);
    (is_capitals && ends).then_some((severity, rest))
}

/// The level after a time, and what is left of the line without what was said by
/// then: only a bare level is left out.
pub(super) fn after_time(text: &str) -> Option<(Severity, &str)> {
    let rest = text.trim_start_matches([' ', '\t', '-', '|']);
    if !rest.starts_with('[')
        && let Some((severity, behind)) = leading(rest)
    {
        return Some((severity, behind.strip_prefix(':').unwrap_or(behind)));
    }
    // What stands between, such as a process's number, stays.
    let mut rest = rest.trim_start_matches(']').trim_start();
    while let Some((severity, inner)) = bracketed(rest) {
        if let Some(severity) = severity {
            return Some((severity, text));
        }
        rest = inner;
    }
    if let Some((severity, _)) = leading(rest) {
        return Some((severity, text));
    }
    // Python's `%(name)s - %(levelname)s - %(message)s`.
    let mut parts = rest.splitn(3, " - ");
    let (Some(_name), Some(level), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    leading(level).map(|(severity, _)| (severity, text))
}

/// What is in brackets at the beginning, as a level, and what comes after them.
fn bracketed(text: &str) -> Option<(Option<Severity>, &str)> {
    let (inner, rest) = text.strip_prefix('[')?.split_once(']')?;
    Some((Severity::of_word(inner.trim()), rest.trim_start()))
}

/// A level that is told by words of another kind: `level=warn`, and what a
/// runtime says when a program fails.
pub(super) fn of_words(text: &str) -> Option<Severity> {
    let is_failure = (text.starts_with("thread '") && text.contains(" panicked at "))
        || text.starts_with("Traceback (most recent call last)")
        || text.starts_with("panic: ");
    if is_failure {
        return Some(Severity::Error);
    }
    // Near the beginning: further on it is part of what is said.
    let mut words = text.split_ascii_whitespace().take(4);
    let level = words.find_map(|word| word.strip_prefix("level="))?;
    Severity::of_word(level.trim_matches('"'))
}
