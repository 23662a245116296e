//! Numbers that were measured several times.

use std::fmt;

use serde::Serialize;

/// The median of several measurements, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one.
    pub(crate) median: f64,
    /// The lowest.
    pub(crate) low: f64,
    /// The highest.
    pub(crate) high: f64,
}

impl Spread {
    /// Of at least one measurement; `None` of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        // The same one twice where there is a middle one.
        let middle = (values[last / 2] + values[last.div_ceil(2)]) / 2.0;
        Some(Self {
            median: middle,
            low: values[0],
            high: values[last],
        })
    }

    /// Of the ratios of measurements that were taken in turn.
    pub(crate) fn of_ratios(over: &[f64], under: &[f64]) -> Option<Self> {
        Self::of(over.iter().zip(under).map(|(over, under)| over / under))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let Self { median, low, high } = self;
        write!(f, "{median:.digits$} ({low:.digits$} to {high:.digits$})")
    }
}

/// The value that this part of the measurements does not exceed.
pub(crate) fn quantile(values: &[f64], quantile: f64) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let index = (last as f64 * quantile).round() as usize;
    values.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let spread = Spread::of_ratios(&[2.0, 9.0, 4.0], &[1.0, 3.0, 4.0]);
        let (median, low, high) = (2.0, 1.0, 3.0);
        assert_eq!(spread, Some(Spread { median, low, high }));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 2.0, 9.0]);
        assert_eq!(spread.map(|spread| spread.median), Some(3.0));
    }

    #[test]
    fn nothing_measured_gives_no_figure() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(quantile(&[], 0.99), None);
    }
}
