//! The fleet's clock: the time in which this supervisor ran. While the process was
//! stopped, or its machine was, nobody could hear the workers; that time counts
//! against none of their deadlines.

use std::cell::Cell;
use std::time::{Duration, Instant};

use prefork_fleet::Time;

/// Longer than ever passes between two looks at the clock while the loop turns:
/// its pulse looks once a second.
const STANDSTILL: Duration = Duration::from_millis(1500);

/// A clock that stands still while the supervisor does.
#[derive(Debug)]
pub(super) struct Clock {
    /// What it shows at `started`.
    epoch: Time,
    /// Moved on by each standstill.
    started: Cell<Instant>,
    /// When it was last looked at.
    seen: Cell<Instant>,
}

impl Clock {
    /// A clock that shows `epoch`.
    pub(super) fn new(epoch: Time, now: Instant) -> Self {
        Self {
            epoch,
            started: Cell::new(now),
            seen: Cell::new(now),
        }
    }

    /// What it shows. A look after a standstill shows the time of the last one.
    pub(super) fn show(&self, now: Instant) -> Time {
        let gap = now.saturating_duration_since(self.seen.replace(now));
        if gap > STANDSTILL {
            tracing::warn!("this supervisor stood still for {gap:.1?}; workers are not held to it");
            self.started.set(self.started.get() + gap);
        }
        self.epoch
            .after(now.saturating_duration_since(self.started.get()))
    }

    /// When it will show `at`, if nothing stands still until then.
    pub(super) fn instant(&self, at: Time) -> Instant {
        self.started.get() + at.since(self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_nobody_saw_does_not_pass() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let clock = Clock::new(Time(Duration::from_secs(100)), start);
        let seen = |after: Duration| clock.show(start + after).0;
        assert_eq!(seen(second), 101 * second);
        assert_eq!(seen(2 * second), 102 * second);
        assert_eq!(seen(62 * second), 102 * second, "a minute's standstill");
        assert_eq!(seen(63 * second), 103 * second);
        let due = Time(110 * second);
        assert_eq!(clock.instant(due), start + 70 * second);
    }
}
