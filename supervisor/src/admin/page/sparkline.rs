//! Ten minutes as a line in a picture, drawn by the browser.

use std::fmt::Write;

use super::html::escape;

/// How many points the picture has room for. It ends with the last one on the right.
const WIDTH: usize = 120;

/// How high it is.
const HEIGHT: f64 = 30.0;

/// A line through these values, the oldest first; it has a gap where there is none. The
/// label says what it is, for who cannot see it.
pub(super) fn sparkline(label: &str, values: &[Option<f64>]) -> String {
    let values = &values[values.len().saturating_sub(WIDTH)..];
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let offset = WIDTH - values.len();
    let mut line = String::new();
    let mut is_drawn = false;
    for (index, value) in values.iter().enumerate() {
        let Some(value) = value else {
            is_drawn = false;
            continue;
        };
        let share = if most > 0.0 { value / most } else { 0.0 };
        let (x, y) = (offset + index, (1.0 - share) * (HEIGHT - 2.0) + 1.0);
        // A point without neighbours is a line to itself.
        let step = if is_drawn {
            format!("L{x} {y:.1}")
        } else {
            format!("M{x} {y:.1}l.5 0")
        };
        // Writing to a string cannot fail.
        let _ = write!(line, "{step}");
        is_drawn = true;
    }
    format!(
        "<svg role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         preserveAspectRatio=\"none\"><path d=\"{line}\"/></svg>",
        escape(label)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_is_on_the_right_and_the_largest_on_top() {
        let drawn = sparkline("x", &[Some(0.0), None, Some(5.0), Some(10.0)]);
        assert!(
            drawn.contains("d=\"M116 29.0l.5 0M118 15.0l.5 0L119 1.0\""),
            "{drawn}"
        );
    }

    #[test]
    fn a_line_without_values_or_height_is_one() {
        assert!(sparkline("x", &[]).contains("d=\"\""));
        assert!(sparkline("x", &[Some(0.0)]).contains("M119 29.0"));
        let longer = sparkline("x", &[Some(1.0); 300]);
        assert!(longer.contains("M0 1.0") && longer.contains("L119 1.0"));
    }
}
