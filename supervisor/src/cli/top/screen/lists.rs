//! The requests that take longest, and what happened last.

use prefork_api::{Event, WorkerRequest};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

use super::Colors;
use super::words::harmless;
use crate::cli::units::{seconds, utc};

/// The oldest requests, as many as there is room for.
pub(super) fn requests<'a>(
    area: Rect,
    buffer: &mut Buffer,
    requests: impl Iterator<Item = &'a WorkerRequest>,
    colors: Colors,
) {
    let lines = requests.map(
        |WorkerRequest {
             pool,
             slot,
             request,
             ..
         }| {
            let from = request.client.as_deref().unwrap_or("a unix socket");
            let text = format!(
                "{:>6}  {:<14} {:<10} {} {}  from {}",
                seconds(request.age_ms as f64 / 1000.0),
                harmless(&format!("{pool}/{slot}")),
                request.stage.as_str(),
                harmless(&request.method),
                harmless(&request.target),
                harmless(from),
            );
            Line::raw(text)
        },
    );
    list(area, buffer, "SLOWEST REQUESTS", lines, colors);
}

/// The last events, the newest first.
pub(super) fn events<'a>(
    area: Rect,
    buffer: &mut Buffer,
    events: impl Iterator<Item = &'a Event>,
    colors: Colors,
) {
    let lines = events.map(|event| {
        let moment = utc(event.at);
        Line::from(vec![
            Span::styled(format!("{}  ", &moment[11..19]), colors.faint()),
            Span::raw(format!(
                "{:<14} {:<10} {}",
                harmless(&event.whom().unwrap_or_default()),
                harmless(&event.kind),
                harmless(&event.message)
            )),
        ])
    });
    list(area, buffer, "LAST EVENTS (UTC)", lines, colors);
}

/// A title and lines below it, as many as there is room for.
fn list<'a>(
    area: Rect,
    buffer: &mut Buffer,
    title: &'a str,
    lines: impl Iterator<Item = Line<'a>>,
    colors: Colors,
) {
    let title = Line::styled(title, colors.title());
    let lines = [title].into_iter().chain(lines);
    let lines: Vec<Line<'_>> = lines.take(usize::from(area.height)).collect();
    Paragraph::new(lines).render(area, buffer);
}
