//! A row per pool, a row per worker.

use prefork_api::SlotState;
use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Text;
use ratatui::widgets::{Cell, Row, StatefulWidget, Table, TableState, Widget};

use super::super::figures::{Figures, PoolFigures, Rates, WorkerFigures};
use super::super::view::{Sort, View};
use super::Colors;
use super::words::{harmless, latency, memory, note, rate};

/// From this width on, there is room for notes.
const WIDE: u16 = 100;

/// A row per pool.
pub(super) fn pools(area: Rect, buffer: &mut Buffer, figures: &Figures, colors: Colors) {
    let widths = [
        name_width(area.width >= WIDE),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(6),
    ];
    let titles = [
        "POOL", "READY", "REQ/S", "5XX/S", "P50", "P99", "IN-FL", "CPU%", "MEM", "QUEUE",
    ];
    let head = titles
        .into_iter()
        .enumerate()
        .map(|(column, title)| match column {
            0 => Cell::from(title),
            _ => number(title),
        });
    let rows = figures.pools.iter().map(|pool| pool_row(pool, colors));
    let table = Table::new(rows, widths).header(Row::new(head).style(colors.title()));
    Widget::render(table, area, buffer);
}

fn pool_row(pool: &PoolFigures, colors: Colors) -> Row<'static> {
    let style = match pool.ready {
        ready if ready >= pool.desired => colors.good(),
        0 => colors.bad(),
        _ => colors.busy(),
    };
    let [requests, failed, p50, p99] = traffic(&pool.rates, colors);
    let queue = pool.queue.map_or("-".to_owned(), |queue| queue.to_string());
    Row::new([
        Cell::from(harmless(&pool.name)),
        number(format!("{}/{}", pool.ready, pool.desired)).style(style),
        requests,
        failed,
        p50,
        p99,
        number(pool.in_flight.to_string()),
        number(format!("{:.0}", pool.rates.cpu_percent)),
        number(memory(pool.resident_bytes)),
        number(queue),
    ])
}

/// A row per worker that is wanted, in the order that is wanted.
pub(super) fn workers(area: Rect, buffer: &mut Buffer, figures: &Figures, view: &mut View) {
    let colors = Colors(view.color);
    let is_wide = area.width >= WIDE;
    let mut widths = vec![
        name_width(is_wide),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(5),
        Constraint::Length(6),
    ];
    if is_wide {
        widths.push(Constraint::Fill(1));
    }
    let rows = view.rows(figures);
    let chosen = view.selected.as_ref();
    let place = chosen.and_then(|name| rows.iter().position(|row| row.name() == *name));
    let mut state = TableState::new()
        .with_selected(place)
        .with_offset(view.scrolled);
    let shown = rows
        .iter()
        .map(|worker| worker_row(worker, is_wide, colors));
    let table = Table::new(shown, widths)
        .header(worker_head(view.sort, is_wide).style(colors.title()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    StatefulWidget::render(table, area, buffer, &mut state);
    view.scrolled = state.offset();
}

/// Where there is room for notes, names are not to fill it.
fn name_width(is_wide: bool) -> Constraint {
    match is_wide {
        true => Constraint::Length(16),
        false => Constraint::Min(10),
    }
}

fn worker_head(sort: Sort, is_wide: bool) -> Row<'static> {
    let columns = [
        ("WORKER", Some(Sort::Name)),
        ("STATE", Some(Sort::Worst)),
        ("PID", None),
        ("REQ/S", Some(Sort::Requests)),
        ("5XX/S", Some(Sort::Failed)),
        ("P50", None),
        ("P99", Some(Sort::P99)),
        ("IN-FL", Some(Sort::InFlight)),
        ("CPU%", Some(Sort::Cpu)),
        ("MEM", Some(Sort::Memory)),
        ("NOTE", None),
    ];
    let shown = if is_wide {
        columns.len()
    } else {
        columns.len() - 1
    };
    let cells = columns.into_iter().take(shown).enumerate();
    Row::new(cells.map(|(column, (title, by))| {
        let cell = match column {
            0 | 1 | 10 => Cell::from(title),
            _ => number(title),
        };
        match by == Some(sort) {
            true => cell.style(Style::new().add_modifier(Modifier::UNDERLINED)),
            false => cell,
        }
    }))
}

fn worker_row(worker: &WorkerFigures, is_wide: bool, colors: Colors) -> Row<'static> {
    let status = &worker.status;
    let [requests, failed, p50, p99] = traffic(&worker.rates, colors);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut cells = vec![
        Cell::from(harmless(&worker.name())),
        Cell::from(status.state.as_str()).style(state_style(status.state, colors)),
        number(or_dash(status.pid.map(|pid| pid.to_string()))),
        requests,
        failed,
        p50,
        p99,
        number(status.in_flight.to_string()),
        number(format!("{:.0}", worker.rates.cpu_percent)),
        number(or_dash(status.resident_bytes.map(memory))),
    ];
    if is_wide {
        cells.push(Cell::from(note(status)));
    }
    Row::new(cells)
}

/// Requests, failures and latencies.
fn traffic(rates: &Rates, colors: Colors) -> [Cell<'static>; 4] {
    let fails = rates.failed_per_second.is_some_and(|rate| rate > 0.0);
    let style = if fails { colors.bad() } else { Style::new() };
    [
        number(rate(rates.requests_per_second)),
        number(rate(rates.failed_per_second)).style(style),
        number(latency(rates.p50_seconds, rates)),
        number(latency(rates.p99_seconds, rates)),
    ]
}

/// How a state looks.
pub(super) fn state_style(state: SlotState, colors: Colors) -> Style {
    match state {
        SlotState::Ready => colors.good(),
        SlotState::Starting | SlotState::Draining | SlotState::Stopping | SlotState::Paused => {
            colors.busy()
        }
        SlotState::Backoff => colors.bad(),
        SlotState::Empty => colors.faint(),
    }
}

fn number(text: impl Into<String>) -> Cell<'static> {
    Cell::from(Text::from(text.into()).alignment(Alignment::Right))
}
