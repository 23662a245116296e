//! `prefork events`.

use prefork_api::Event;

use crate::cli::table::Style;
use crate::cli::units::utc;
use crate::sanitize::one_line;

/// One event on a line of its own: when, what, to whom, in words.
pub(in crate::cli) fn event(event: &Event, color: bool) -> String {
    let whom = event.whom().unwrap_or_else(|| "-".to_owned());
    let process = event
        .pid
        .map_or(String::new(), |pid| format!(" (pid {pid})"));
    let is_failure = event
        .exit
        .as_ref()
        .is_some_and(|exit| exit.reason.is_failure());
    let kind = format!("{:<16}", one_line(&event.kind));
    let kind = if is_failure {
        Style::Bad.paint(&kind, color)
    } else {
        kind
    };
    let (at, whom) = (utc(event.at), one_line(&whom));
    format!(
        "{at}  {:>6}  {kind}  {whom:<10}  {}{process}\n",
        event.seq,
        one_line(&event.message)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_with_a_time_that_can_be_read() {
        let happened = Event {
            seq: 12,
            at: 1_795_773_600.25,
            kind: "ready".to_owned(),
            pool: Some("web".to_owned()),
            slot: Some(0),
            pid: Some(4711),
            message: "ready\nafter 12 ms".to_owned(),
            exit: None,
        };
        assert_eq!(
            event(&happened, false),
            "2026-11-27T10:00:00.250Z      12  ready             web/0       ready\\nafter 12 ms (pid 4711)\n"
        );
    }
}
