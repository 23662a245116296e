//! Numbers as people read them.

/// A time in seconds: `12s`, `3m12s`, `5h02m`, `3d04h`, `1.5ms`.
pub(crate) fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    if seconds == 0.0 {
        return "0s".to_owned();
    }
    if seconds < 0.001 {
        return format!("{:.0}µs", seconds * 1e6);
    }
    if seconds < 0.1 {
        return format!("{:.1}ms", seconds * 1e3);
    }
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds as u64;
    let (days, hours) = (whole / 86_400, whole / 3600 % 24);
    let (minutes, rest) = (whole / 60 % 60, whole % 60);
    if days > 0 {
        format!("{days}d{hours:02}h")
    } else if hours > 0 {
        format!("{hours}h{minutes:02}m")
    } else if minutes > 0 {
        format!("{minutes}m{rest:02}s")
    } else {
        format!("{rest}s")
    }
}

/// A moment in seconds since the Unix epoch, as RFC 3339 has it: `2026-11-27T10:00:00.250Z`.
pub(crate) fn utc(at: f64) -> String {
    // What is far from now is no moment; the year stays one of four digits.
    let milliseconds = (at.clamp(0.0, 253_402_300_799.0) * 1000.0).round() as u64;
    let (seconds, millis) = (milliseconds / 1000, milliseconds % 1000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the day that may be missing is their last one.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// A number per second: `0`, `4.2`, `8123`, `812k`.
pub(crate) fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        few if few < 9.95 => format!("{few:.1}"),
        many if many < 100_000.0 => format!("{many:.0}"),
        many => format!("{:.0}k", many / 1000.0),
    }
}

/// A quantile of durations; beyond the last bucket it is only known that it is. Nothing
/// where nothing was served.
pub(crate) fn quantile(quantile: Option<f64>, is_served: bool) -> Option<String> {
    match quantile {
        Some(quantile) => Some(seconds(quantile)),
        None => is_served.then(|| ">10s".to_owned()),
    }
}

/// A size in bytes: `512 B`, `4.1 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter();
    let mut unit = units.next().expect("the list is not empty");
    // From 1023.95 on, one digit behind the point would show 1024.0.
    while value >= 1023.95 {
        let Some(larger) = units.next() else { break };
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date() {
        assert_eq!(utc(0.0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_868_799.999), "2000-02-29T23:59:59.999Z");
        assert_eq!(utc(1_795_773_600.25), "2026-11-27T10:00:00.250Z");
        assert_eq!(utc(f64::INFINITY), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn times_keep_two_units_at_most() {
        let cases = [
            (0.0, "0s"),
            (0.000_25, "250µs"),
            (0.0123, "12.3ms"),
            (0.35, "0.3s"),
            (9.94, "9.9s"),
            (12.9, "12s"),
            (192.0, "3m12s"),
            (18_120.0, "5h02m"),
            (273_600.0, "3d04h"),
            (f64::NAN, "?"),
        ];
        for (value, text) in cases {
            assert_eq!(seconds(value), text, "{value}");
        }
    }

    #[test]
    fn rates_are_short() {
        for (number, shown) in [(0.0, "0"), (4.24, "4.2"), (9.96, "10"), (812_345.0, "812k")] {
            assert_eq!(rate(number), shown);
        }
    }

    #[test]
    fn sizes_carry_binary_units() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (4_300_000, "4.1 MiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (value, text) in cases {
            assert_eq!(bytes(value), text, "{value}");
        }
    }
}
