//! The figures as a picture of any size, 80 columns first. Pure: no terminal.

mod detail;
mod lists;
mod tables;
mod words;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::figures::Figures;
use super::view::View;
use crate::cli::units::seconds;
use words::{harmless, rate};

/// From this height on, requests and events have more rows.
const TALL: u16 = 40;

/// How high a picture is that has every worker.
pub(super) fn whole_height(figures: &Figures) -> u16 {
    let rows = figures.pools.len() + figures.workers.len();
    u16::try_from(rows + usize::from(TALL)).unwrap_or(u16::MAX)
}

/// Draws everything.
pub(super) fn draw(area: Rect, buffer: &mut Buffer, figures: &Figures, view: &mut View) {
    let [head, middle, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    let colors = Colors(view.color);
    draw_head(head, buffer, figures, colors);
    match view.chosen(figures).filter(|_| view.looks_into) {
        Some(worker) => detail::draw(middle, buffer, figures, worker, colors),
        None => draw_all(middle, buffer, figures, view),
    }
    draw_foot(foot, buffer, view, colors);
}

/// The pools, the workers, and what is there to know beside them.
fn draw_all(area: Rect, buffer: &mut Buffer, figures: &Figures, view: &mut View) {
    let colors = Colors(view.color);
    let rows = if area.height >= TALL - 3 { 10 } else { 3 };
    let pools = u16::try_from(figures.pools.len()).unwrap_or(u16::MAX);
    let [pool_area, worker_area, request_area, event_area] = Layout::vertical([
        Constraint::Length(pools.min(rows + 1) + 1),
        Constraint::Min(3),
        Constraint::Length(rows + 1),
        Constraint::Length(rows + 1),
    ])
    .areas(area);
    tables::pools(pool_area, buffer, figures, colors);
    tables::workers(worker_area, buffer, figures, view);
    lists::requests(request_area, buffer, figures.requests.iter(), colors);
    lists::events(event_area, buffer, figures.events.iter(), colors);
}

fn draw_head(area: Rect, buffer: &mut Buffer, figures: &Figures, colors: Colors) {
    let style = match figures.readiness.split(':').next() {
        Some("ready") => colors.good(),
        Some("not ready") => colors.bad(),
        _ => colors.busy(),
    };
    let first = Line::from(vec![
        Span::raw(format!(
            "prefork {}  pid {}  up {}  generation {}  ",
            harmless(&figures.version),
            figures.pid,
            seconds(figures.uptime_seconds),
            figures.generation
        )),
        Span::styled(harmless(&figures.readiness), style),
    ]);
    let total = figures.pools.iter();
    let total = total.filter_map(|pool| pool.rates.requests_per_second);
    let total = total.reduce(|sum, it| sum + it);
    let mut second = Line::raw(format!(
        "{} requests/s over {}",
        rate(total),
        seconds(figures.interval_seconds)
    ));
    if let Some(reload) = &figures.last_reload {
        second.push_span(Span::raw("  last reload "));
        second.push_span(match &reload.error {
            None => Span::styled("ok", colors.good()),
            Some(error) => Span::styled(format!("failed: {}", harmless(error)), colors.bad()),
        });
    }
    let [upper, lower] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
    first.render(upper, buffer);
    second.render(lower, buffer);
}

/// What the keys do, or why what is shown is old.
fn draw_foot(area: Rect, buffer: &mut Buffer, view: &View, colors: Colors) {
    if let Some(trouble) = &view.trouble {
        let text = format!("what is shown is old: {trouble}");
        return Line::styled(text, colors.bad().add_modifier(Modifier::REVERSED))
            .render(area, buffer);
    }
    if !view.is_live {
        return;
    }
    let text = if view.typing {
        format!("filter: {}_  Enter keep  Esc clear", harmless(&view.filter))
    } else if view.looks_into {
        "Esc back  q quit".to_owned()
    } else {
        let order = if view.reversed { ", reversed" } else { "" };
        let filter = match view.filter.is_empty() {
            true => String::new(),
            false => format!(" [{}]", harmless(&view.filter)),
        };
        format!(
            "q quit  s sort ({}{order})  r reverse  / filter{filter}  ↑↓ Enter look into",
            view.sort.as_str()
        )
    };
    Line::styled(text, colors.faint()).render(area, buffer);
}

/// How things look; nothing has a colour where there is none (NO_COLOR).
#[derive(Debug, Clone, Copy)]
struct Colors(bool);

impl Colors {
    fn of(self, color: Color) -> Style {
        match self.0 {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    fn good(self) -> Style {
        self.of(Color::Green)
    }

    fn busy(self) -> Style {
        self.of(Color::Yellow)
    }

    fn bad(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }
}
