//! The clock by which the process holds its clients to their times. A process that
//! was stopped or frozen, or whose machine was, has heard nobody meanwhile: what its
//! clients sent lies in their sockets. So that time counts for nothing, or it would
//! cut all of them off when it goes on.

use std::time::Duration;

use tokio::time::Instant;

/// While anybody waits for a time, the clock is looked at this often. A little more than
/// the usual time from report to report, so that it is no wake-up more.
pub(crate) const PULSE: Duration = Duration::from_millis(1250);

/// More than ever lies between two looks while the process runs.
const STANDSTILL: Duration = Duration::from_secs(2);

/// A clock that stands still while the process does.
#[derive(Debug)]
pub(crate) struct Clock {
    /// When it was last looked at.
    seen: Instant,
    /// How long it has stood still.
    lost: Duration,
}

impl Clock {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            seen: now,
            lost: Duration::ZERO,
        }
    }

    /// What it shows now. A look after a standstill shows the time of the last one.
    pub(crate) fn show(&mut self, now: Instant) -> Instant {
        let gap = now.saturating_duration_since(std::mem::replace(&mut self.seen, now));
        if gap > STANDSTILL {
            self.lost += gap;
        }
        self.shown(now)
    }

    /// What it would show at this time of the system's, as far as is known by now.
    pub(crate) fn shown(&self, at: Instant) -> Instant {
        // It has stood still only since the process began.
        at.checked_sub(self.lost).unwrap_or(at)
    }

    /// When the system's clock will be there, if nothing stands still until then.
    pub(crate) fn instant(&self, shown: Instant) -> Instant {
        shown + self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_nobody_looked_does_not_pass() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut clock = Clock::new(start);
        assert_eq!(clock.show(start + second), start + second);
        assert_eq!(clock.show(start + 61 * second), start + second);
        assert_eq!(clock.show(start + 62 * second), start + 2 * second);
        assert_eq!(clock.instant(start + 10 * second), start + 70 * second);
        assert_eq!(clock.shown(start + 70 * second), start + 10 * second);
    }
}
