//! `[pool.NAME.canary]`: how the first new workers of a reload are judged.

use std::time::Duration;

use toml::de::DeValue;

use super::error::Fault;
use super::section::{Section, expected, integer, string};
use super::units;
use prefork_fleet::{Canary, NoVerdict};

const RATIO: &str = "a ratio from 1 to 1000 such as 2.0, or 0 for none";
const NO_VERDICT: &str = "\"proceed\" or \"undo\"";

/// The ratios of two durations that can be asked for.
const RATIOS: std::ops::RangeInclusive<f64> = 1.0..=1000.0;

/// The most workers that a pool can have.
const MOST_WORKERS: u64 = 10_000;

/// The most requests that can be asked for.
const MOST_REQUESTS: u64 = 1_000_000_000;

/// Reads the table, if there is one.
pub(super) fn read(pool: &mut Section<'_>, workers: u32, is_counted: bool) -> Option<Canary> {
    // Where the number of processors decides, it may be one all the same.
    let is_given = matches!(
        pool.table.get("workers").map(|it| it.get_ref()),
        Some(DeValue::Integer(_))
    );
    let name = format!("`canary` of {}", pool.name);
    let mut section = pool.section("canary", name)?;
    if !is_counted {
        let fault = Fault::new(
            "nobody counts the requests of a program behind an adapter that takes its clients \
             itself",
        );
        let help = "give it {socket} or {port} instead of `listen`, and `forward` to it from a \
                    pool of the bundled web server";
        section.fault(section.span.clone(), fault.help(help));
    }
    let usual = Canary::default();
    let wanted = section.take_or("workers", usual.workers, |value| {
        let wanted = integer(value, &(1..=MOST_WORKERS))?;
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        if is_given && wanted >= workers {
            let fault = Fault::new(format!(
                "a canary of {wanted} leaves no worker of the old generation to compare it with"
            ));
            return Err(fault.help(format!("the pool has {workers}")));
        }
        Ok(wanted)
    });
    let duration = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
    let canary = Canary {
        workers: wanted.value,
        duration: section.duration("duration", usual.duration, duration).value,
        min_requests: section
            .integer("min_requests", usual.min_requests, 1..=MOST_REQUESTS)
            .value,
        max_p99_ratio: section
            .take_or("max_p99_ratio", usual.max_p99_ratio, ratio)
            .value,
        on_no_verdict: section
            .take_or("on_no_verdict", usual.on_no_verdict, no_verdict)
            .value,
    };
    section.finish();
    Some(canary)
}

fn ratio(value: &DeValue<'_>) -> Result<f64, Fault> {
    let number = match value {
        DeValue::Integer(number) => number.as_str().parse().ok(),
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        _ => None,
    };
    number
        .filter(|number| *number == 0.0 || RATIOS.contains(number))
        .ok_or_else(|| expected(RATIO, value))
}

fn no_verdict(value: &DeValue<'_>) -> Result<NoVerdict, Fault> {
    match string(value, NO_VERDICT)? {
        "proceed" => Ok(NoVerdict::Proceed),
        "undo" => Ok(NoVerdict::Undo),
        _ => Err(expected(NO_VERDICT, value)),
    }
}

/// As the summary and a reload's changes show it.
pub(super) fn show(canary: &Canary) -> String {
    let Canary {
        workers,
        duration,
        min_requests,
        max_p99_ratio,
        on_no_verdict,
    } = canary;
    let otherwise = match on_no_verdict {
        NoVerdict::Proceed => "proceed",
        NoVerdict::Undo => "undo",
    };
    format!(
        "{workers} for {}, at least {min_requests} requests, p99 ratio {max_p99_ratio}, \
         otherwise {otherwise}",
        units::show_duration(*duration)
    )
}
