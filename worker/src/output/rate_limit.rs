//! Lines that a client may cause: said as long as they are few, and counted where
//! they are many, so that nobody fills a log.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::output::say;

/// One kind of line.
#[derive(Debug)]
pub(crate) struct Sparing(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Lines that are said one after the other.
    burst: u32,
    /// How long it takes until one more may be said.
    each: Duration,
    /// Lines that may be said now.
    left: u32,
    /// Since when there have been fewer than `burst`.
    since: Option<Instant>,
    /// Lines that were not said since the last one that was.
    unsaid: u64,
}

impl Sparing {
    /// So many at once, and then one more in each of such times.
    pub(crate) const fn of(burst: u32, each: Duration) -> Self {
        Self(Mutex::new(State {
            burst,
            each,
            left: burst,
            since: None,
            unsaid: 0,
        }))
    }

    /// Says a line, if it is not one of too many.
    pub(crate) fn say(&self, line: fmt::Arguments<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.admit(Instant::now()) {
            Some(0) => say(line),
            Some(unsaid) => say(format_args!("{line} (and {unsaid} more like it)")),
            None => {}
        }
    }
}

impl State {
    /// Whether a line may be said now; how many were not said before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if let Some(since) = self.since {
            let gained = now.duration_since(since).as_secs() / self.each.as_secs();
            let gained = u32::try_from(gained).unwrap_or(u32::MAX).min(self.burst);
            self.left = (self.left + gained).min(self.burst);
            self.since = (self.left < self.burst).then(|| since + self.each * gained);
        }
        if self.left == 0 {
            self.unsaid += 1;
            return None;
        }
        self.left -= 1;
        self.since.get_or_insert(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 10;
    const EACH: Duration = Duration::from_secs(1);

    #[test]
    fn few_lines_are_said_and_many_are_counted() {
        let Sparing(state) = Sparing::of(BURST, EACH);
        let mut state = state.into_inner().unwrap();
        let begin = Instant::now();
        for _ in 0..BURST {
            assert_eq!(state.admit(begin), Some(0));
        }
        for _ in 0..1_000 {
            assert_eq!(state.admit(begin + EACH / 2), None);
        }
        assert_eq!(state.admit(begin + EACH), Some(1_000));
        assert_eq!(state.admit(begin + EACH), None);
        assert_eq!(state.admit(begin + 2 * EACH), Some(1));
        let later = begin + EACH * 1_000;
        for _ in 0..BURST {
            assert_eq!(state.admit(later), Some(0));
        }
        assert_eq!(state.admit(later), None);
    }
}
