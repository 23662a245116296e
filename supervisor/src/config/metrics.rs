//! `[metrics]`.

use super::checked::Detail;
use super::defaults::MAX_SERIES;
use super::error::Fault;
use super::section::{Section, string};

const DETAILS: &str = "\"slot\" or \"pool\"";

/// Reads the section; without one everything is as by default.
pub(super) fn read(section: Option<Section<'_>>, default: Detail) -> (Detail, u32) {
    let Some(mut section) = section else {
        return (default, MAX_SERIES);
    };
    let detail = section.take_or("detail", default, |value| match string(value, DETAILS)? {
        "slot" => Ok(Detail::Slot),
        "pool" => Ok(Detail::Pool),
        other => Err(Fault::new(format!(
            "expected {DETAILS}, found \"{}\"",
            other.escape_debug()
        ))),
    });
    let max_series = section.integer("max_series", MAX_SERIES.into(), 0..=1_000_000);
    section.finish();
    let max_series = u32::try_from(max_series.value).unwrap_or(MAX_SERIES);
    (detail.value, max_series)
}
