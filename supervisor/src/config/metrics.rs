//! `[metrics]`.

use super::checked::Detail;
use super::error::Fault;
use super::section::{Section, string};

const DETAILS: &str = "\"slot\" or \"pool\"";

/// Reads the section; without one everything is as by default.
pub(super) fn read(section: Option<Section<'_>>, default: Detail) -> Detail {
    let Some(mut section) = section else {
        return default;
    };
    let detail = section.take_or("detail", default, |value| match string(value, DETAILS)? {
        "slot" => Ok(Detail::Slot),
        "pool" => Ok(Detail::Pool),
        other => Err(Fault::new(format!(
            "expected {DETAILS}, found \"{}\"",
            other.escape_debug()
        ))),
    });
    section.finish();
    detail.value
}
