//! The time that a program writes before its line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far the time in a line may be from when it was read and still be the same.
const SAME: Duration = Duration::from_secs(2);

/// Clocks of the world differ by whole quarters of an hour.
const QUARTER: i64 = 15 * 60;

/// A time as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    /// Seconds since the epoch, by the zone that it names, or as if it were UTC.
    seconds: i64,
    has_zone: bool,
}

impl Time {
    /// Whether it is this time, as far as that can be told.
    pub(super) fn is(self, now: SystemTime) -> bool {
        let now = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut apart = self
            .seconds
            .saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
        if !self.has_zone && apart.abs() <= 14 * 3600 {
            apart = (apart + QUARTER / 2).rem_euclid(QUARTER) - QUARTER / 2;
        }
        apart.unsigned_abs() <= SAME.as_secs()
    }
}

/// The time that a text begins with, and how long it is: a date and a time of day, as in
/// RFC 3339, with a space instead of the `T`, a comma before the fraction, slashes in the date, or
/// the zone after a space.
pub(super) fn leading(text: &str) -> Option<(Time, usize)> {
    let mut rest = Rest(text.as_bytes());
    let year = rest.number(4)?;
    let separator = rest.one_of(b"-/")?;
    let month = rest.number(2)?;
    rest.one_of(&[separator])?;
    let day = rest.number(2)?;
    rest.one_of(b"T ")?;
    let hour = rest.number(2)?;
    rest.one_of(b":")?;
    let minute = rest.number(2)?;
    rest.one_of(b":")?;
    let second = rest.number(2)?;
    if rest.one_of(b".,").is_some() {
        while rest.number(1).is_some() {}
    }
    let zone = rest.zone();
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_time = hour < 24 && minute < 60 && second <= 60;
    if !is_date || !is_time {
        return None;
    }
    let of_day = hour * 3600 + minute * 60 + second;
    let time = Time {
        seconds: days(year, month, day) * 86_400 + of_day - zone.unwrap_or(0),
        has_zone: zone.is_some(),
    };
    Some((time, text.len() - rest.0.len()))
}

/// Days since the epoch of a day of the Gregorian calendar. Years begin in March here, so
/// that the day that may be missing is their last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        let mut value = 0;
        for digit in number {
            value = value * 10 + i64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
        }
        self.0 = rest;
        Some(value)
    }

    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        bytes.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    /// Seconds east of Greenwich: `Z`, `+02:00`, ` +0200`.
    fn zone(&mut self) -> Option<i64> {
        if self.one_of(b"Z").is_some() {
            return Some(0);
        }
        let mut rest = Rest(self.0);
        let _ = rest.one_of(b" ");
        let sign = if rest.one_of(b"+-")? == b'-' { -1 } else { 1 };
        let hours = rest.number(2)?;
        let _ = rest.one_of(b":");
        let minutes = rest.number(2)?;
        self.0 = rest.0;
        Some(sign * (hours * 3600 + minutes * 60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_the_usual_ways() {
        for (text, seconds, length) in [
            ("1970-01-01T00:00:00Z", 0, 20),
            ("2000-02-29 23:59:59.999 x", 951_868_799, 23),
            ("2026-11-27T12:00:00+02:00", 1_795_773_600, 25),
            ("2026-11-27 10:00:00 +0000]", 1_795_773_600, 25),
            ("2026/11/27 10:00:00 [", 1_795_773_600, 19),
        ] {
            let (time, read) = leading(text).unwrap();
            assert_eq!((time.seconds, read), (seconds, length), "{text}");
        }
        for none in [
            "",
            "2026",
            "2026-13-01 00:00:00",
            "2026-11-27 24:00:00",
            "2026-11-27T10:00",
        ] {
            assert_eq!(leading(none), None, "{none}");
        }
    }
}
