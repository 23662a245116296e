//! Quantities as people write them: durations, sizes, percentages, permission
//! bits; and back again.

use std::time::Duration;

use super::error::Fault;

/// One unit: its names, the first being the one that is written here, and how much it is.
type Unit = (&'static [&'static str], u64);

/// Units of time and their milliseconds, longest first.
const TIME: [Unit; 5] = [
    (&["d", "day", "days"], 86_400_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["m", "min", "mins", "minute", "minutes"], 60_000),
    (&["s", "sec", "secs", "second", "seconds"], 1000),
    (&["ms", "millisecond", "milliseconds"], 1),
];

/// Units of memory and their bytes, largest first; the binary ones before the decimal ones.
/// A letter alone is the binary one, as for systemd, nginx and Docker.
const MEMORY: [Unit; 9] = [
    (&["TiB", "T"], 1 << 40),
    (&["GiB", "G"], 1 << 30),
    (&["MiB", "M"], 1 << 20),
    (&["KiB", "K"], 1 << 10),
    (&["TB"], 1_000_000_000_000),
    (&["GB"], 1_000_000_000),
    (&["MB"], 1_000_000),
    (&["KB", "kB"], 1000),
    (&["B", "byte", "bytes"], 1),
];

/// Whole numbers with their units, the largest first, multiplied out and added up:
/// `1h30m`, `1h 30m`, `90 minutes`. `what` is for messages.
fn quantity(text: &str, what: &str, units: &[Unit]) -> Result<u64, Fault> {
    let of_kind = |fault: Fault| fault.of(what);
    let too_large = || {
        of_kind(Fault::new(format!(
            "\"{}\" is too large",
            text.escape_debug()
        )))
    };
    let (mut total, mut smallest, mut rest) = (0_u64, u64::MAX, text);
    loop {
        let (number, unit, after) = piece(text, rest, units).map_err(of_kind)?;
        let factor = factor(number, unit, units).map_err(of_kind)?;
        if factor >= smallest {
            let fault = Fault::new(format!(
                "in \"{}\" a unit comes after a smaller one, or twice",
                text.escape_debug()
            ));
            return Err(of_kind(
                fault.help("write the larger one first, as in \"1h30m\""),
            ));
        }
        let amount = number.parse::<u64>().ok();
        let amount = amount.and_then(|number| number.checked_mul(factor));
        let sum = amount.and_then(|amount| total.checked_add(amount));
        (total, smallest, rest) = (sum.ok_or_else(too_large)?, factor, after);
        if rest.is_empty() {
            return Ok(total);
        }
    }
}

/// The number and the unit at the beginning of `rest`, and what comes after them.
/// `text` is the whole of it, for messages.
fn piece<'a>(
    text: &str,
    rest: &'a str,
    units: &[Unit],
) -> Result<(&'a str, &'a str, &'a str), Fault> {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, after) = rest.split_at(digits);
    let quoted = text.escape_debug();
    if number.is_empty() {
        let why = match rest == text {
            true => format!("\"{quoted}\" does not begin with a whole number"),
            false => format!("in \"{quoted}\" a whole number has to follow before \"{rest}\""),
        };
        return Err(Fault::new(why));
    }
    if after.starts_with(['.', ',']) {
        let fault = Fault::new(format!("\"{quoted}\" has a fraction"));
        return Err(fault.help("write whole numbers of smaller units"));
    }
    let after = after.trim_start_matches(' ');
    let letters = after.find(|c: char| c == ' ' || c.is_ascii_digit());
    let (unit, after) = after.split_at(letters.unwrap_or(after.len()));
    if unit.is_empty() {
        return Err(Fault::new(format!("\"{quoted}\" has no unit")).help(names(units)));
    }
    Ok((number, unit, after.trim_start_matches(' ')))
}

/// What a unit is worth.
fn factor(number: &str, unit: &str, units: &[Unit]) -> Result<u64, Fault> {
    if let Some((_, factor)) = units.iter().find(|(names, _)| names.contains(&unit)) {
        return Ok(*factor);
    }
    let fault = Fault::new(format!("\"{}\" is not a unit", unit.escape_debug()));
    let meant = units.iter().filter(|(names, _)| {
        let alike = |name: &&str| bare(name) == bare(unit);
        names.iter().any(alike)
    });
    let meant: Vec<String> = meant
        .map(|(names, _)| format!("\"{number}{}\"", names[0]))
        .collect();
    Err(fault.help(match meant.as_slice() {
        [] => names(units),
        meant => format!("write {}", meant.join(" or ")),
    }))
}

/// A unit without what people confuse in it: upper and lower case, GB and GiB.
fn bare(unit: &str) -> String {
    let unit = unit.to_ascii_lowercase();
    match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')) {
        Some(letter) if letter.len() == 1 => letter.to_owned(),
        _ => unit,
    }
}

fn names(units: &[Unit]) -> String {
    let names: Vec<&str> = units.iter().map(|(names, _)| names[0]).collect();
    format!("units: {}", names.join(", "))
}

/// A duration of the command line: `250ms`, `30s`, `5m`. The error says what
/// is wrong and what would be right.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|fault| fault.into_sentence())
}

/// `250ms`, `30s`, `5m`, `24h`, `7d`, `1m30s`, `5 minutes`.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    quantity(text, "a duration such as \"30s\"", &TIME).map(Duration::from_millis)
}

/// `512B`, `64KiB`, `10MB`, `1GiB`, `1G`, `512 MB`: bytes.
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

/// `75%`: 75. Nothing where it is anything but digits and the sign.
pub(super) fn whole_percentage(text: &str) -> Option<u8> {
    let number = text.strip_suffix('%')?;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| digits)
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
pub(crate) fn show_duration(duration: Duration) -> String {
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
fn show(amount: u64, units: &[Unit]) -> String {
    units
        .iter()
        .find(|(_, factor)| amount.is_multiple_of(*factor))
        .map_or_else(
            || amount.to_string(),
            |(names, factor)| format!("{}{}", amount / factor, names[0]),
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
