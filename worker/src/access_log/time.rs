//! Time as logs write it, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A moment, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts {
    year: u64,
    /// From 1.
    month: u64,
    /// From 1.
    day: u64,
    /// Of the day.
    seconds: u64,
    milliseconds: u32,
}

impl Parts {
    /// The proleptic Gregorian calendar, in eras of 400 years that begin on the
    /// first of March, so that the leap day is a year's last.
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let days = since.as_secs() / 86_400 + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        Self {
            year: era * 400 + year + u64::from(month >= 10),
            month: if month < 10 { month + 3 } else { month - 9 },
            day: day - (153 * month + 2) / 5 + 1,
            seconds: since.as_secs() % 86_400,
            milliseconds: since.subsec_millis(),
        }
    }

    fn clock(&self) -> String {
        let (minutes, seconds) = (self.seconds / 60, self.seconds % 60);
        format!("{:02}:{:02}:{seconds:02}", minutes / 60, minutes % 60)
    }
}

/// `25/Nov/2026:13:02:21 +0000`.
pub(super) fn common(time: SystemTime) -> String {
    let parts = Parts::of(time);
    let month = usize::try_from(parts.month - 1).map_or("", |month| MONTHS[month]);
    format!(
        "{:02}/{month}/{:04}:{} +0000",
        parts.day,
        parts.year,
        parts.clock()
    )
}

/// `2026-11-25T13:02:21.123Z` (RFC 3339).
pub(super) fn rfc3339(time: SystemTime) -> String {
    let parts = Parts::of(time);
    format!(
        "{:04}-{:02}-{:02}T{}.{:03}Z",
        parts.year,
        parts.month,
        parts.day,
        parts.clock(),
        parts.milliseconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn days_are_right_around_leap_days_and_the_turn_of_years() {
        // From date(1).
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_709_164_800, "2024-02-29T00:00:00.007Z"),
            (1_767_225_599, "2025-12-31T23:59:59.007Z"),
            (1_767_225_600, "2026-01-01T00:00:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(7);
            assert_eq!(rfc3339(time), text);
        }
        let time = UNIX_EPOCH + Duration::from_secs(1_709_165_045);
        assert_eq!(common(time), "29/Feb/2024:00:04:05 +0000");
    }
}
