//! A line that a worker has written, as an entry of the log: at the level that it
//! says of itself, with one time.

mod level;
mod time;
mod trace;

use std::borrow::Cow;
use std::time::SystemTime;

use level::Severity;
use tracing::{Level, error, info, warn};

use crate::sanitize::without_colours;

pub(crate) use trace::length_of_block;

/// The target of what workers say.
pub(super) const WORKER: &str = "worker";

/// Fields that are shown as the entry's level, and as its priority in the journal.
pub(super) const SHOWN_LEVEL: &str = "shown_level";
pub(super) const SHOWN_PRIORITY: &str = "shown_priority";

/// Logs a line of a worker's.
///
/// What a worker says below `info` is logged as if it were `info`: a worker's own settings
/// say what it writes, and what it has written is not lost.
pub(crate) fn worker_said(
    slot: &dyn std::fmt::Display,
    pid: i32,
    stream: &str,
    voice: &mut Voice,
    line: &str,
) {
    let line = without_colours(line);
    let (severity, line) = voice.hear(&line, SystemTime::now());
    let (shown_level, shown_priority) = (severity.name(), u64::from(severity.priority()));
    macro_rules! say {
        ($macro:ident) => {
            $macro!(
                target: WORKER, %slot, pid, stream,
                shown_level = %shown_level, shown_priority,
                "{line}"
            )
        };
    }
    match severity.level() {
        Level::ERROR => say!(error),
        Level::WARN => say!(warn),
        _ => say!(info),
    }
}

/// What has been said on a stream by now, as far as it tells of what comes next.
#[derive(Debug, Default)]
pub(crate) struct Voice {
    severity: Severity,
    /// The next line that is not indented belongs to this one, too.
    goes_on: bool,
}

impl Voice {
    /// The level of a line and what is shown of it. Lines of a trace have the level of
    /// its beginning: those that are indented, and those that a runtime says with it.
    fn hear<'a>(&mut self, line: &'a str, now: SystemTime) -> (Severity, Cow<'a, str>) {
        let head = line.lines().next().unwrap_or_default();
        if head.starts_with([' ', '\t']) {
            return (self.severity, Cow::Borrowed(line));
        }
        let (severity, said) = read(line, now);
        let follows = std::mem::take(&mut self.goes_on) || trace::is_between(head);
        let is_plain = severity == Severity::default();
        if !(follows && is_plain) {
            self.severity = severity;
        }
        self.goes_on = trace::has_an_end(head);
        (self.severity, said)
    }
}

/// What a line says of its level, and the line without what the log says itself.
fn read(line: &str, now: SystemTime) -> (Severity, Cow<'_, str>) {
    if let Some((severity, rest)) = level::syslog_prefix(line) {
        return (severity, Cow::Borrowed(rest));
    }
    if line.starts_with('{') {
        return (level::of_json(line), Cow::Borrowed(line));
    }
    let bracket = usize::from(line.starts_with('['));
    let Some((time, length)) = time::leading(&line[bracket..]) else {
        let severity = level::leading(line).map(|(severity, _)| severity);
        let severity = severity.or_else(|| level::of_words(line));
        return (severity.unwrap_or_default(), Cow::Borrowed(line));
    };
    let after = &line[bracket + length..];
    let (severity, behind) = match level::after_time(after) {
        Some((severity, behind)) => (severity, behind),
        None => (level::of_words(after).unwrap_or_default(), after),
    };
    if !time.is(now) {
        // It says when it happened, which is not now.
        return (severity, Cow::Borrowed(line));
    }
    let behind = behind.trim_start_matches([' ', '\t']);
    let behind = behind.strip_prefix("- ").unwrap_or(behind);
    match (bracket, behind.strip_prefix(']')) {
        (0, _) => (severity, Cow::Borrowed(behind)),
        (_, Some(rest)) => (severity, Cow::Borrowed(rest.trim_start())),
        (_, None) => (severity, Cow::Owned(format!("[{behind}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 2026-11-27T10:00:00.5Z.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_773_600_500)
    }

    #[test]
    fn a_trace_has_the_level_of_its_beginning() {
        let mut voice = Voice::default();
        for (line, name) in [
            ("Traceback (most recent call last):", "ERROR"),
            (
                "  File \"shop.py\", line 1, in <module>\n    buy()",
                "ERROR",
            ),
            ("ValueError: sold out", "ERROR"),
            ("", "ERROR"),
            (
                "During handling of the above exception, another exception occurred:",
                "ERROR",
            ),
            ("plain", "INFO"),
            ("  indented", "INFO"),
            ("thread 'main' (7) panicked at src/main.rs:1:2:", "ERROR"),
            ("sold out", "ERROR"),
            (
                "note: run with `RUST_BACKTRACE=1` environment variable",
                "ERROR",
            ),
            ("plain", "INFO"),
            ("WARN slow\n  at a", "WARN"),
            ("  at b", "WARN"),
            ("Caused by: timeout", "WARN"),
            ("plain", "INFO"),
        ] {
            let (severity, said) = voice.hear(line, now());
            assert_eq!((severity.name(), said.as_ref()), (name, line));
        }
    }

    #[test]
    fn a_line_is_of_the_level_that_it_says_and_has_one_time() {
        for (line, name, text) in [
            ("plain", "INFO", "plain"),
            ("<3>no disk", "ERROR", "no disk"),
            ("<28>no disk", "WARN", "no disk"),
            ("<9999>x", "INFO", "<9999>x"),
            ("<b>x", "INFO", "<b>x"),
            // tracing
            (
                "2026-11-27T10:00:00.123456Z  WARN shop::db: slow",
                "WARN",
                "shop::db: slow",
            ),
            (
                "2026-11-27T10:00:00.123456Z ERROR shop: no disk",
                "ERROR",
                "shop: no disk",
            ),
            ("2026-11-27T12:00:00+02:00 DEBUG x", "DEBUG", "x"),
            // env_logger
            (
                "[2026-11-27T10:00:00Z ERROR shop] no disk",
                "ERROR",
                "[shop] no disk",
            ),
            // Python
            (
                "2026-11-27 10:00:00,123 - shop.db - WARNING - slow",
                "WARN",
                "shop.db - WARNING - slow",
            ),
            ("2026-11-27 12:30:00,123 ERROR slow", "ERROR", "slow"),
            ("WARNING:shop:slow", "WARN", "WARNING:shop:slow"),
            ("INFO:     Started", "INFO", "INFO:     Started"),
            ("CRITICAL:root:x", "ERROR", "CRITICAL:root:x"),
            // gunicorn, nginx
            (
                "[2026-11-27 10:00:00 +0000] [7] [ERROR] bad",
                "ERROR",
                "[7] [ERROR] bad",
            ),
            (
                "2026/11/27 10:00:00 [warn] 7#0: bad",
                "WARN",
                "[warn] 7#0: bad",
            ),
            // logfmt, slog
            (
                "time=2026-11-27T10:00:00Z level=ERROR msg=x",
                "ERROR",
                "time=2026-11-27T10:00:00Z level=ERROR msg=x",
            ),
            ("level=warning msg=x", "WARN", "level=warning msg=x"),
            // JSON
            (
                r#"{"level":"error","msg":"x"}"#,
                "ERROR",
                r#"{"level":"error","msg":"x"}"#,
            ),
            (
                r#"{"severity":"WARNING"}"#,
                "WARN",
                r#"{"severity":"WARNING"}"#,
            ),
            (
                r#"{"level":50,"msg":"x"}"#,
                "ERROR",
                r#"{"level":50,"msg":"x"}"#,
            ),
            (
                r#"{"levelname":"DEBUG"}"#,
                "DEBUG",
                r#"{"levelname":"DEBUG"}"#,
            ),
            ("{level", "INFO", "{level"),
            // What a runtime says at its end.
            (
                "thread 'main' (7) panicked at src/main.rs:1:2:",
                "ERROR",
                "thread 'main' (7) panicked at src/main.rs:1:2:",
            ),
            (
                "Traceback (most recent call last):",
                "ERROR",
                "Traceback (most recent call last):",
            ),
            // Words of a sentence.
            ("ERRORS: none", "INFO", "ERRORS: none"),
            (
                "the ERROR page is served",
                "INFO",
                "the ERROR page is served",
            ),
            ("info is power", "INFO", "info is power"),
            // Another time is told, since it says something.
            (
                "2026-11-27T09:59:00Z  WARN late",
                "WARN",
                "2026-11-27T09:59:00Z  WARN late",
            ),
            ("2026-11-27 and then", "INFO", "2026-11-27 and then"),
            ("", "INFO", ""),
            ("[", "INFO", "["),
        ] {
            let (severity, said) = read(line, now());
            assert_eq!((severity.name(), said.as_ref()), (name, text), "{line}");
        }
    }
}
