//! `prefork top`: the service at work, drawn anew every second on a terminal.
//!
//! A `reading` is what the control API says at one moment; two of them make the `figures`.
//! The `view` is what the operator looks at and by which keys; the `screen` draws it, and
//! `live` is the terminal that it is drawn on. `--once` and JSON are the same figures.

mod figures;
mod live;
mod reading;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal};
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::args::Top;
use super::client::Client;
use super::error::Error;
use super::terminal::Terminal;
use figures::Figures;
use reading::Source;
use view::View;

/// How wide a picture is that no terminal limits.
const WIDTH: u16 = 160;

/// Shows it until somebody has seen enough: the exit code.
pub(super) async fn run(
    client: &Client,
    terminal: Terminal,
    timeout: Duration,
    wanted: Top,
) -> Result<u8, Error> {
    let can_draw = terminal.screen && io::stdin().is_terminal();
    if !wanted.once && !terminal.is_json() && !can_draw {
        return Err(Error::NoScreen);
    }
    let mut source = Source::new(client.clone(), timeout);
    let first = source.read().await?;
    if !wanted.once && !terminal.is_json() {
        return live::run(source, first, terminal.color, wanted.interval).await;
    }
    let mut before = first;
    loop {
        tokio::time::sleep(wanted.interval).await;
        let now = source.read().await?;
        let figures = Figures::of(&before, &now);
        terminal.data(match terminal.is_json() {
            true => json(&figures),
            false => picture(&figures),
        })?;
        if wanted.once {
            return Ok(0);
        }
        before = now;
    }
}

/// The figures as a line of JSON.
fn json(figures: &Figures) -> String {
    let line = serde_json::to_string(figures);
    line.expect("figures hold nothing that JSON cannot say") + "\n"
}

/// The screen as text, as high as it takes to have all workers.
fn picture(figures: &Figures) -> String {
    let area = Rect::new(0, 0, WIDTH, screen::whole_height(figures));
    let mut buffer = Buffer::empty(area);
    screen::draw(area, &mut buffer, figures, &mut View::still());
    let mut picture = String::new();
    // It is as high as it may have to be.
    for line in text(&buffer).trim_end().lines() {
        if !line.is_empty() || !picture.ends_with("\n\n") {
            picture.push_str(line);
            picture.push('\n');
        }
    }
    picture
}

/// What a buffer has, without its colours.
fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for row in buffer
        .content()
        .chunks(usize::from(buffer.area.width.max(1)))
    {
        let mut line = String::new();
        let mut covered = 0;
        for cell in row {
            // The second half of a wide character is no character.
            if covered > 0 {
                covered -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            covered = unicode_columns(cell.symbol()).saturating_sub(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How many columns a symbol takes.
fn unicode_columns(symbol: &str) -> usize {
    ratatui::text::Span::raw(symbol).width()
}
