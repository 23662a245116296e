//! One worker: its numbers, how its last process ended, its requests, its events.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use super::super::figures::{Figures, WorkerFigures};
use super::words::{harmless, latency, memory, note, rate};
use super::{Colors, lists, tables};
use crate::cli::units::seconds;

/// Draws it.
pub(super) fn draw(
    area: Rect,
    buffer: &mut Buffer,
    figures: &Figures,
    worker: &WorkerFigures,
    colors: Colors,
) {
    let [top, requests, events] = Layout::vertical([
        Constraint::Length(9),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ])
    .areas(area);
    Paragraph::new(about(worker, colors))
        .wrap(Wrap { trim: false })
        .render(top, buffer);
    let slot = worker.status.slot;
    let served = figures.requests.iter();
    let served = served.filter(|it| it.pool == worker.pool && it.slot == slot);
    lists::requests(requests, buffer, served, colors);
    let happened = figures.events.iter();
    let happened = happened.filter(|event| {
        event.pool.as_deref() == Some(&worker.pool) && event.slot.is_none_or(|it| it == slot)
    });
    lists::events(events, buffer, happened, colors);
}

fn about(worker: &WorkerFigures, colors: Colors) -> Vec<Line<'static>> {
    let WorkerFigures { status, rates, .. } = worker;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut first = vec![
        Span::styled(format!("{}  ", harmless(&worker.name())), colors.title()),
        Span::styled(
            status.state.as_str(),
            tables::state_style(status.state, colors),
        ),
    ];
    first.push(Span::raw(format!(
        "  pid {}  generation {}  up {}",
        or_dash(status.pid.map(|pid| pid.to_string())),
        or_dash(status.generation.map(|generation| generation.to_string())),
        or_dash(status.uptime_seconds.map(seconds)),
    )));
    vec![
        Line::from(first),
        Line::raw(format!(
            "{} requests/s, {} of them 5xx; p50 {}, p99 {}; {} in flight, {} connections",
            rate(rates.requests_per_second),
            rate(rates.failed_per_second),
            latency(rates.p50_seconds, rates),
            latency(rates.p99_seconds, rates),
            status.in_flight,
            status.connections,
        )),
        Line::raw(format!(
            "{:.0} % of a processor, {} of memory; {} requests, {} restarts, {} crashes",
            rates.cpu_percent,
            or_dash(status.resident_bytes.map(memory)),
            or_dash(status.requests.map(|requests| requests.to_string())),
            status.restarts,
            status.crashes,
        )),
        Line::raw(note(status)),
    ]
}
