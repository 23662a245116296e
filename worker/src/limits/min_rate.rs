//! How fast a body has to go on.

use std::time::Duration;

use tokio::time::Instant;

/// What a body has to make, and within what time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Least {
    bytes: u64,
    within: Duration,
}

impl Least {
    /// What so many bytes a second come to in this time; a single byte where
    /// there is no such rate.
    pub(crate) fn of(min_rate: Option<u64>, within: Duration) -> Self {
        let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let bytes = min_rate.unwrap_or(0).saturating_mul(millis) / 1000;
        Self {
            bytes: bytes.max(1),
            within,
        }
    }

    /// A single byte in the same time.
    pub(crate) fn anything(self) -> Self {
        Self { bytes: 1, ..self }
    }
}

/// A body's way so far, by looks at it now and then. Each time in which it makes
/// what it has to is followed by another, so what it has made faster before is
/// no help to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    since: Instant,
    from: u64,
}

impl Pace {
    /// Begins to measure, at so many bytes.
    pub(crate) fn from(now: Instant, bytes: u64) -> Self {
        Self {
            since: now,
            from: bytes,
        }
    }

    /// Nobody could go on meanwhile, or nobody had to.
    pub(crate) fn rest(&mut self, now: Instant, bytes: u64) {
        *self = Self::from(now, bytes);
    }

    /// Whether a body that has come to so many bytes takes too long.
    pub(crate) fn is_late(&mut self, now: Instant, bytes: u64, least: Least) -> bool {
        if bytes.saturating_sub(self.from) >= least.bytes {
            self.rest(now, bytes);
        }
        now >= self.since + least.within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn late(rate: Option<u64>, looks: &[(u32, u64)]) -> Vec<bool> {
        let begun = Instant::now();
        let mut pace = Pace::from(begun, 0);
        let least = Least::of(rate, 10 * SECOND);
        let look = |(at, bytes): &(u32, u64)| pace.is_late(begun + *at * SECOND, *bytes, least);
        looks.iter().map(look).collect()
    }

    #[test]
    fn a_body_that_makes_less_in_its_time_is_late_and_one_that_makes_it_has_as_long_again() {
        let drips = [(5, 1), (9, 2), (10, 3)];
        assert_eq!(late(Some(240), &drips), [false, false, true]);
        assert_eq!(late(None, &drips), [false; 3]);
        let stands = [(5, 1), (10, 1), (15, 1)];
        assert_eq!(late(None, &stands), [false, false, true]);
        let goes_on = [(9, 2400), (18, 4800), (27, 4801), (28, 7199), (29, 7200)];
        assert_eq!(
            late(Some(240), &goes_on),
            [false, false, false, true, false]
        );
    }
}
