//! `prefork logs`.

use prefork_api::LogEntry;

use crate::cli::table::Style;
use crate::sanitize::{harmless, one_line};

/// What comes before the text of a further line.
const INDENT: &str = "    ";

/// One entry: when, how grave, of whom, and what was said.
pub(in crate::cli) fn log_entry(entry: &LogEntry, color: bool) -> String {
    let whom = entry.whom().map(|whom| format!(" {}", one_line(&whom)));
    let who = match &entry.stream {
        Some(stream) => format!(" {}", one_line(stream)),
        None => String::new(),
    };
    let style = match entry.level.as_str() {
        "error" => Style::Bad,
        "warn" => Style::Busy,
        "debug" | "trace" => Style::Faint,
        _ => Style::Plain,
    };
    let level = format!("{:>5}", entry.level.to_ascii_uppercase());
    let mut shown = match entry.lost {
        0 => String::new(),
        1 => "(an entry is missing here)\n".to_owned(),
        lost => format!("({lost} entries are missing here)\n"),
    };
    let text = harmless(&entry.message);
    let mut lines = text.split('\n');
    shown.push_str(&format!(
        "{} {}{}{who}: {}",
        one_line(&entry.time),
        style.paint(&one_line(&level), color),
        whom.unwrap_or_default(),
        lines.next().unwrap_or_default(),
    ));
    for (key, value) in &entry.fields {
        shown.push_str(&format!(" {}={}", one_line(key), one_line(value)));
    }
    for line in lines {
        shown.push_str(&format!("\n{INDENT}{line}"));
    }
    shown.push('\n');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> LogEntry {
        LogEntry {
            time: "2026-11-27T10:00:00.250000Z".to_owned(),
            level: "error".to_owned(),
            pool: Some("web".to_owned()),
            slot: Some(0),
            pid: Some(4711),
            stream: Some("stderr".to_owned()),
            message: "Traceback\n  at a\x1b[2J".to_owned(),
            fields: Default::default(),
            seq: 7,
            lost: 0,
        }
    }

    #[test]
    fn an_entry_says_who_said_it_and_drives_no_terminal() {
        assert_eq!(
            log_entry(&entry(), false),
            "2026-11-27T10:00:00.250000Z ERROR web/0 stderr: Traceback\n      at a\\u{1b}[2J\n"
        );
    }

    #[test]
    fn what_is_missing_is_said_before_it() {
        let of_supervisor = LogEntry {
            level: "info".to_owned(),
            pool: None,
            slot: None,
            stream: None,
            message: "prefork starts".to_owned(),
            fields: [("version".to_owned(), "0.1.0".to_owned())].into(),
            lost: 3,
            ..entry()
        };
        assert_eq!(
            log_entry(&of_supervisor, false),
            "(3 entries are missing here)\n\
             2026-11-27T10:00:00.250000Z  INFO: prefork starts version=0.1.0\n"
        );
    }
}
