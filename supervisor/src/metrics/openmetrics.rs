//! The exposition in OpenMetrics' text format, 1.0.0, made from that in Prometheus' own.
//!
//! Names of samples stay as they are, so that it is the same series whichever format is
//! scraped. What OpenMetrics wants otherwise is the name of a counter's family, units,
//! bounds with a point, and an end. It has no exemplars and no times of creation: nobody
//! notes here which request fell into which bucket.

use std::collections::HashSet;
use std::fmt::Write as _;

/// Units that the names of families end with.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Labels whose values are numbers.
const NUMBERS: [&str; 2] = ["le", "quantile"];

/// Says the exposition in text format 0.0.4 anew.
pub(crate) fn openmetrics(text: &str) -> String {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.filter_map(|line| line.split_once(' '));
    let names: HashSet<&str> = names.map(|(name, _)| name).collect();
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut help = "";
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some(said) = line.strip_prefix("# TYPE ") {
            let (name, kind) = said.split_once(' ').unwrap_or((said, "untyped"));
            describe(&mut out, name, kind, help, &names);
            help = "";
        } else if !line.starts_with('#') && !line.is_empty() {
            sample(&mut out, line);
        }
    }
    out.push_str("# EOF\n");
    out
}

/// Writes what is said of a family before its samples.
fn describe(out: &mut String, name: &str, kind: &str, help: &str, names: &HashSet<&str>) {
    let stem = name.strip_suffix("_total");
    let (name, kind) = match (kind, stem.filter(|stem| !names.contains(stem))) {
        ("counter", Some(stem)) => (stem, "counter"),
        // Its samples would have another name, or its family that of another.
        ("counter" | "untyped", _) => (name, "unknown"),
        _ => (name, kind),
    };
    // A string takes all that is written.
    let _ = writeln!(out, "# TYPE {name} {kind}");
    let has_unit = |unit: &&&str| {
        name.strip_suffix(**unit)
            .is_some_and(|it| it.ends_with('_'))
    };
    if let Some(unit) = UNITS.iter().find(has_unit) {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
    if !help.is_empty() {
        let _ = writeln!(out, "# HELP {name} {}", help.replace('"', "\\\""));
    }
}

/// Writes a sample, its bound with a point.
fn sample(out: &mut String, line: &str) {
    let bound = NUMBERS.iter().find_map(|label| bound(line, label));
    match bound {
        Some(end) => {
            out.push_str(&line[..end]);
            out.push_str(".0");
            out.push_str(&line[end..]);
        }
        None => out.push_str(line),
    }
    out.push('\n');
}

/// Where a whole number ends that is the value of this label. A quotation mark within
/// another label's value has a backslash before it, so what is found is no part of one.
fn bound(line: &str, label: &str) -> Option<usize> {
    let mut found = line.match_indices(label).filter_map(|(at, _)| {
        let is_label = line[..at].ends_with(['{', ',']);
        let start = at + label.len() + 2;
        let value = line[at + label.len()..].strip_prefix("=\"")?;
        let digits = value.find(|c: char| !c.is_ascii_digit())?;
        let is_whole = digits > 0 && value[digits..].starts_with('"');
        (is_label && is_whole).then_some(start + digits)
    });
    found.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_the_names_units_and_bounds_that_openmetrics_wants() {
        let text = "\
# HELP x_bytes_total Bytes \"sent\".
# TYPE x_bytes_total counter
x_bytes_total{pool=\"web\"} 1
# HELP y_seconds Time.
# TYPE y_seconds histogram
y_seconds_bucket{table=\"5\",le=\"0.5\"} 1
y_seconds_bucket{table=\"a,le=\\\"1\",le=\"10\"} 1
y_seconds_bucket{table=\"5\",le=\"+Inf\"} 1
y_seconds_sum{table=\"5\"} 0.25
y_seconds_count{table=\"5\"} 1
# HELP hits Without a suffix.
# TYPE hits counter
hits 3
# HELP jobs_total Beside another family of that name.
# TYPE jobs_total counter
jobs_total 3
# HELP jobs Now.
# TYPE jobs gauge
jobs 1
";
        let expected = "\
# TYPE x_bytes counter
# UNIT x_bytes bytes
# HELP x_bytes Bytes \\\"sent\\\".
x_bytes_total{pool=\"web\"} 1
# TYPE y_seconds histogram
# UNIT y_seconds seconds
# HELP y_seconds Time.
y_seconds_bucket{table=\"5\",le=\"0.5\"} 1
y_seconds_bucket{table=\"a,le=\\\"1\",le=\"10.0\"} 1
y_seconds_bucket{table=\"5\",le=\"+Inf\"} 1
y_seconds_sum{table=\"5\"} 0.25
y_seconds_count{table=\"5\"} 1
# TYPE hits unknown
# HELP hits Without a suffix.
hits 3
# TYPE jobs_total unknown
# HELP jobs_total Beside another family of that name.
jobs_total 3
# TYPE jobs gauge
# HELP jobs Now.
jobs 1
# EOF
";
        assert_eq!(openmetrics(text), expected);
        assert_eq!(openmetrics(""), "# EOF\n");
    }
}
