//! How much of what a worker prints is logged: one that prints without end fills no disk
//! and keeps nobody else from being heard.

use std::time::{Duration, Instant};

/// What is logged of one stream of one worker, in bytes a second, and how much more of
/// it at once.
const RATE: f64 = 1024.0 * 1024.0;
const BURST: f64 = 8.0 * RATE;

/// A flood is over when nothing had to be dropped for so long.
const CALM: Duration = Duration::from_secs(10);

/// How much of what is printed is logged.
#[derive(Debug)]
pub(in crate::reactor) struct Allowance {
    left: f64,
    at: Instant,
    /// Since when lines are dropped, and when one last was.
    flood: Option<Instant>,
    bytes: u64,
    pub(in crate::reactor) uncounted: u64,
    is_said: bool,
}

/// What is said of a worker that prints too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// From now on it is not all logged.
    Begun,
    /// So many bytes were not.
    Over(u64),
}

impl Allowance {
    pub(in crate::reactor) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
            flood: None,
            bytes: 0,
            uncounted: 0,
            is_said: false,
        }
    }

    /// Whether this much may be logged.
    pub(in crate::reactor) fn take(&mut self, length: usize, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * RATE).min(BURST);
        self.at = now;
        let length = length as f64;
        if self.left < length {
            return false;
        }
        self.left -= length;
        true
    }

    pub(in crate::reactor) fn dropped(&mut self, length: usize, now: Instant) {
        let length = length as u64;
        self.flood = Some(now);
        self.bytes = self.bytes.saturating_add(length);
        self.uncounted = self.uncounted.saturating_add(length);
    }

    /// Counts what is not logged of a line that is too long. Its entry says so.
    pub(in crate::reactor) fn left_out(&mut self, length: usize) {
        self.uncounted = self.uncounted.saturating_add(length as u64);
    }

    pub(in crate::reactor) fn news(&mut self, now: Instant) -> Option<Flood> {
        let last = self.flood?;
        if !self.is_said {
            self.is_said = true;
            return Some(Flood::Begun);
        }
        if now.saturating_duration_since(last) < CALM {
            return None;
        }
        self.flood = None;
        self.is_said = false;
        Some(Flood::Over(std::mem::take(&mut self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_off_said_once_and_counted() {
        let begun = Instant::now();
        let mut allowance = Allowance::new(begun);
        let line = 1024 * 1024;
        let mut logged = 0;
        while allowance.take(line, begun) {
            logged += 1;
        }
        assert_eq!(logged, 8);
        allowance.dropped(line, begun);
        assert_eq!(allowance.news(begun), Some(Flood::Begun));
        allowance.dropped(line, begun);
        assert_eq!(allowance.news(begun), None);
        let later = begun + Duration::from_secs(1);
        assert!(allowance.take(line, later) && !allowance.take(line, later));
        let calm = begun + CALM;
        assert_eq!(allowance.news(calm), Some(Flood::Over(2 * 1024 * 1024)));
        assert_eq!(allowance.news(calm), None);
        assert_eq!(allowance.uncounted, 2 * 1024 * 1024);
    }
}
