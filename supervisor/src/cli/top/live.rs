//! The terminal that `top` draws on: in its own screen, with keys as they are pressed, and
//! as it was before on every way out.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{Event, poll, read};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::figures::Figures;
use super::reading::{Reading, Source};
use super::screen;
use super::view::{Asked, View};
use crate::cli::error::Error;
use crate::kernel::sys::stdin_to_wait_for;
use crate::sanitize::one_line;

/// The terminal, which is given back as it was. A panic gives it back first, and then is
/// seen.
struct Session(DefaultTerminal);

impl Session {
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| {
            // What was half done is undone.
            let _ = ratatui::try_restore();
        })
    }

    fn draw(&mut self, figures: &Figures, view: &mut View) -> io::Result<()> {
        self.0.draw(|frame| {
            let area = frame.area();
            screen::draw(area, frame.buffer_mut(), figures, view);
        })?;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = ratatui::try_restore();
    }
}

/// What ends the program or has it drawn anew.
struct Signals {
    ends: [(Signal, u8); 4],
    resized: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let end = |kind: SignalKind| -> io::Result<(Signal, u8)> {
            let number = u8::try_from(kind.as_raw_value()).unwrap_or(0);
            Ok((signal(kind)?, number))
        };
        Ok(Self {
            ends: [
                end(SignalKind::terminate())?,
                end(SignalKind::interrupt())?,
                end(SignalKind::hangup())?,
                end(SignalKind::quit())?,
            ],
            resized: signal(SignalKind::window_change())?,
        })
    }

    /// The number of the one that ends the program; none for a new size.
    async fn next(&mut self) -> Option<u8> {
        let [(term, a), (int, b), (hup, c), (quit, d)] = &mut self.ends;
        tokio::select! {
            _ = term.recv() => Some(*a),
            _ = int.recv() => Some(*b),
            _ = hup.recv() => Some(*c),
            _ = quit.recv() => Some(*d),
            _ = self.resized.recv() => None,
        }
    }
}

/// A reading that is on its way, and its source.
type Pending = Pin<Box<dyn Future<Output = (Source, Result<Reading, Error>)>>>;

/// Reads after a while.
fn reading(mut source: Source, after: Duration) -> Pending {
    Box::pin(async move {
        tokio::time::sleep(after).await;
        let read = source.read().await;
        (source, read)
    })
}

/// Draws until somebody has seen enough: the exit code, 128 and its number for a signal.
pub(super) async fn run(
    source: Source,
    first: Reading,
    color: bool,
    interval: Duration,
) -> Result<u8, Error> {
    let mut signals = Signals::new()?;
    let keys = stdin_to_wait_for()?;
    let mut session = Session::open()?;
    let mut view = View::live(color);
    let mut figures = Figures::of(&first, &first);
    let mut last = first;
    let mut pending = reading(source, interval);
    loop {
        session.draw(&figures, &mut view)?;
        tokio::select! {
            (source, read) = &mut pending => {
                match read {
                    Ok(now) => {
                        figures = Figures::of(&last, &now);
                        last = now;
                        view.trouble = None;
                    }
                    // It may come back.
                    Err(error) => view.trouble = Some(one_line(&error.to_string()).into_owned()),
                }
                pending = reading(source, interval);
            }
            readable = keys.readable() => {
                let mut readable = readable?;
                if take_keys(&mut view, &figures)? == Asked::Quit {
                    return Ok(0);
                }
                readable.clear_ready();
            }
            ended = signals.next() => {
                if let Some(number) = ended {
                    return Ok(128 + number);
                }
                // crossterm has heard of the new size, too. Were it to learn of that and of
                // a key at once, it would keep the key to itself until the next one.
                if take_keys(&mut view, &figures)? == Asked::Quit {
                    return Ok(0);
                }
            }
        }
    }
}

/// Takes every key that has been pressed.
fn take_keys(view: &mut View, figures: &Figures) -> io::Result<Asked> {
    while poll(Duration::ZERO)? {
        if let Event::Key(key) = read()?
            && view.press(key, figures) == Asked::Quit
        {
            return Ok(Asked::Quit);
        }
    }
    Ok(Asked::Nothing)
}
