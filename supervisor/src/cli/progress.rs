//! What a job is at: a line for each step, or on a terminal one line that moves.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::terminal::Terminal;
use super::units::seconds;
use crate::kernel::sys::terminal::columns;
use crate::sanitize::one_line;

/// The width of a terminal that does not say how wide it is.
const USUAL_COLUMNS: u16 = 80;

/// Goes to the beginning of the line and erases it (ECMA-48, EL).
const ERASE: &str = "\r\x1b[2K";

/// What a job is at, as it is told to people. The line that moves is gone when this is.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: Terminal,
    began: Instant,
    /// What the last step was, once there was one.
    step: String,
    /// How many workers are done, of all.
    counted: Option<(u32, u32)>,
    /// Whether there is a line to be erased.
    shown: bool,
}

impl Progress {
    pub(super) fn new(terminal: Terminal) -> Self {
        Self {
            terminal,
            began: Instant::now(),
            step: String::new(),
            counted: None,
            shown: false,
        }
    }

    pub(super) fn terminal(&self) -> Terminal {
        self.terminal
    }

    /// A step of one worker, of which there may be thousands.
    pub(super) fn of_worker(&mut self, step: String, counted: Option<(u32, u32)>) {
        if !self.terminal.moving {
            return self.terminal.note(&step);
        }
        self.step = step;
        self.counted = counted.or(self.counted);
        self.show();
    }

    /// What is to be read later, too.
    pub(super) fn note(&mut self, text: &str) {
        self.erase();
        self.terminal.note(text);
        self.show();
    }

    /// Draws the line that moves, if there is one.
    pub(super) fn show(&mut self) {
        if !self.terminal.moving || self.step.is_empty() {
            return;
        }
        let columns = columns(io::stderr()).unwrap_or(USUAL_COLUMNS);
        let line = line(&self.step, self.counted, self.began.elapsed());
        // In the last column the cursor would wait to go to the next line.
        let line = cut(&one_line(&line), usize::from(columns).saturating_sub(1));
        // A closed stderr is no reason to leave a job's end unreported.
        let _ = write!(io::stderr().lock(), "{ERASE}{line}");
        self.shown = true;
    }

    fn erase(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr().lock(), "{ERASE}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.erase();
    }
}

/// How many are done, how long the others will take, and what is at.
fn line(step: &str, counted: Option<(u32, u32)>, elapsed: Duration) -> String {
    let Some((done, all)) = counted else {
        return format!("{}: {step}", whole(elapsed.as_secs()));
    };
    match left(done, all, elapsed) {
        Some(left) => format!("{done} of {all}, about {left} left: {step}"),
        None => format!("{done} of {all}: {step}"),
    }
}

/// How long the others will take if they take as long as those that are done.
fn left(done: u32, all: u32, elapsed: Duration) -> Option<String> {
    let rest = all.checked_sub(done).filter(|rest| *rest > 0)?;
    let each = elapsed.as_secs_f64() / f64::from((done > 0).then_some(done)?);
    Some(whole(
        Duration::try_from_secs_f64(each * f64::from(rest))
            .ok()?
            .as_secs()
            + 1,
    ))
}

/// So many seconds, without fractions of which nobody knows.
fn whole(number: u64) -> String {
    match number {
        0..10 => format!("{number}s"),
        _ => seconds(number as f64),
    }
}

/// As much of a text as has room in so many columns.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept = text.chars().take(columns.saturating_sub(1));
    kept.chain(['\u{2026}']).take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_what_is_done() {
        let at = |done, seconds| {
            line(
                "web/2: ready",
                Some((done, 8)),
                Duration::from_secs(seconds),
            )
        };
        assert_eq!(at(0, 3), "0 of 8: web/2: ready");
        assert_eq!(at(2, 3), "2 of 8, about 10s left: web/2: ready");
        assert_eq!(at(8, 12), "8 of 8: web/2: ready");
        let uncounted = line("web/2: drained", None, Duration::from_millis(4_900));
        assert_eq!(uncounted, "4s: web/2: drained");
    }

    #[test]
    fn a_line_has_room_in_any_terminal() {
        assert_eq!(cut("2 of 8: web/2: ready", 20), "2 of 8: web/2: ready");
        assert_eq!(cut("2 of 8: web/2: ready", 8), "2 of 8:\u{2026}");
        assert_eq!(cut("2 of 8", 1), "\u{2026}");
        assert_eq!(cut("2 of 8", 0), "");
    }
}
