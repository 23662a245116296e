//! Whether an output is the one that a page shows, but for numbers, the width of columns, and what the page leaves
//! out: a line that is `…` stands for any lines, one within a line for any text.

use std::fmt::Write as _;

/// Units that are written without a space.
const UNITS: [&str; 8] = ["ns", "µs", "us", "ms", "s", "m", "h", "d"];

/// Panics where `output` is not what a place of a page shows.
#[track_caller]
pub(super) fn same(place: &str, shown: &str, output: &str) {
    assert!(
        is_shown(shown, output),
        "{place} shows\n{shown}\nand it is\n{output}"
    );
}

/// Whether `output` is what a page shows.
pub(super) fn is_shown(shown: &str, output: &str) -> bool {
    let wanted: Vec<_> = shown.lines().map(without_numbers).collect();
    let got: Vec<_> = output.lines().map(without_numbers).collect();
    lines_match(&wanted, &got)
}

fn lines_match(wanted: &[String], got: &[String]) -> bool {
    match (wanted, got) {
        ([], []) => true,
        ([first, rest @ ..], _) if first == "…" => {
            lines_match(rest, got)
                || got
                    .split_first()
                    .is_some_and(|(_, got)| lines_match(wanted, got))
        }
        ([first, wanted @ ..], [line, got @ ..]) => {
            line_matches(first, line) && lines_match(wanted, got)
        }
        _ => false,
    }
}

fn line_matches(wanted: &str, line: &str) -> bool {
    let wanted = match wanted.strip_suffix(" …") {
        // Nothing at the end of a line has no space before it either.
        Some(whole) if whole == line => return true,
        _ => wanted,
    };
    let Some((before, after)) = wanted.split_once('…') else {
        return wanted == line;
    };
    let Some(rest) = line.strip_prefix(before) else {
        return false;
    };
    // From each place on, since what follows may come more than once.
    let mut places = rest
        .char_indices()
        .map(|(place, _)| place)
        .chain([rest.len()]);
    places.any(|place| line_matches(after, &rest[place..]))
}

/// The line with `#` for each number and its unit, and one space between words. An exit code is what it is.
fn without_numbers(line: &str) -> String {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.starts_with("exit code ") {
        return line;
    }
    let mut out = String::new();
    let mut rest = line.as_str();
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let _ = write!(out, "{}", &rest[..start]);
        rest = rest[start..]
            .trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        let word = rest.find(|letter: char| !letter.is_alphabetic());
        let (unit, after) = rest.split_at(word.unwrap_or(rest.len()));
        if UNITS.contains(&unit) {
            rest = after;
        }
        if !out.ends_with('#') {
            out.push('#');
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_units_and_widths_are_not_compared() {
        assert!(is_shown("up 1.2s,  pid 7", "up 850ms, pid 4711"));
        assert!(is_shown("0/4096 1h30m", "0/128 2s"));
        assert!(!is_shown("3 workers", "3 slots"));
        assert!(!is_shown("one", "one\ntwo"));
    }

    #[test]
    fn an_exit_code_is_compared() {
        assert!(is_shown("exit code 78", "exit code 78"));
        assert!(!is_shown("exit code 78", "exit code 1"));
    }

    #[test]
    fn what_is_left_out_may_be_anything() {
        assert!(is_shown("…\nlast", "first\nsecond\nlast"));
        assert!(is_shown("a … z", "a b z c z"));
        assert!(is_shown("a …", "a"));
        assert!(!is_shown("…\nlast", "first\nlast\nmore"));
        assert!(!is_shown("a … z", "a b"));
    }
}
