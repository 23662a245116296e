//! Quantities as people write them: durations, sizes, percentages, permission
//! bits; and back again.

use std::time::Duration;

use super::error::Fault;

/// Units of time and their milliseconds, longest first.
const TIME: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Units of memory and their bytes, largest first; the binary ones before the decimal ones.
const MEMORY: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// A whole number and its unit, multiplied out. `what` is for messages.
fn quantity(text: &str, what: &str, units: &[(&str, u64)]) -> Result<u64, Fault> {
    let fault = |why: String| Fault::new(format!("expected {what}: {why}"));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let names = || {
        let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        format!("units: {}", names.join(", "))
    };
    let quoted = text.escape_debug();
    if number.is_empty() {
        let why = format!("\"{quoted}\" does not begin with a whole number");
        return Err(fault(why));
    }
    if unit.is_empty() {
        return Err(fault(format!("\"{quoted}\" has no unit")).help(names()));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let why = format!("\"{}\" is not a unit", unit.escape_debug());
        return Err(fault(why).help(names()));
    };
    let number = number.parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| fault(format!("\"{quoted}\" is too large")))
}

/// A duration of the command line: `250ms`, `30s`, `5m`. The error says what
/// is wrong and what would be right.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|fault| fault.into_sentence())
}

/// `250ms`, `30s`, `5m`, `24h`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    quantity(text, "a duration such as \"30s\"", &TIME).map(Duration::from_millis)
}

/// `512B`, `64KiB`, `10MB`, `1GiB`: bytes.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    quantity(text, "a size such as \"512MiB\"", &MEMORY)
}

/// `10%`: a ratio, 0.1.
pub(super) fn percentage(text: &str) -> Result<f64, Fault> {
    text.strip_suffix('%')
        .filter(|number| {
            number
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
        .and_then(|number| number.parse::<f64>().ok())
        .filter(|number| (0.0..=100.0).contains(number))
        .map(|number| number / 100.0)
        .ok_or_else(|| {
            Fault::new(format!(
                "expected a percentage from \"0%\" to \"100%\", found \"{}\"",
                text.escape_debug()
            ))
        })
}

/// `0660`: permission bits.
pub(super) fn permissions(text: &str) -> Result<u32, Fault> {
    let octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|bits| octal && *bits <= 0o777)
        .ok_or_else(|| {
            Fault::new(format!(
                "expected permission bits from \"0000\" to \"0777\", found \"{}\"",
                text.escape_debug()
            ))
        })
}

/// The shortest way to write a duration.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match show(millis, &TIME) {
        text if millis == 0 => text.replace("0d", "0s"),
        text => text,
    }
}

/// The day of a time in seconds since the Unix epoch, in UTC.
pub(super) fn show_day(time: i64) -> String {
    let time = x509_parser::time::ASN1Time::from_timestamp(time);
    time.map_or_else(
        |_| "no day of a calendar".to_owned(),
        |time| time.to_datetime().date().to_string(),
    )
}

/// The shortest way to write a size.
pub(super) fn show_size(bytes: u64) -> String {
    match bytes {
        0 => "0B".to_owned(),
        bytes => show(bytes, &MEMORY),
    }
}

/// The largest unit that leaves a whole number.
fn show(amount: u64, units: &[(&str, u64)]) -> String {
    units
        .iter()
        .find(|(_, factor)| amount.is_multiple_of(*factor))
        .map_or_else(
            || amount.to_string(),
            |(name, factor)| format!("{}{name}", amount / factor),
        )
}

/// The shortest way to write a percentage.
pub(super) fn show_percentage(ratio: f64) -> String {
    format!("{}%", (ratio * 1e6).round() / 1e4)
}

/// Four octal digits, or `off`.
pub(super) fn show_control_mode(bits: Option<u32>) -> String {
    bits.map_or_else(|| "off".to_owned(), show_permissions)
}

/// Four octal digits.
pub(crate) fn show_permissions(bits: u32) -> String {
    format!("{bits:04o}")
}
