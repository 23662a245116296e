//! Numbers and words, short enough for a column.

use prefork_api::{SlotState, WorkerStatus};

use super::super::figures::Rates;
use crate::cli::units::seconds;
use crate::cli::{exit_words, own_words};
use crate::sanitize::{cut, one_line};

/// How much of a stranger's text is looked at at all, in characters.
const MOST: usize = 300;

/// A stranger's text, which drives no terminal.
pub(super) fn harmless(text: &str) -> String {
    one_line(&cut(text, MOST)).into_owned()
}

/// `0`, `4.2`, `8123`, `812k`.
pub(super) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(few) if few < 9.95 => format!("{few:.1}"),
        Some(many) if many < 100_000.0 => format!("{many:.0}"),
        Some(many) => format!("{:.0}k", many / 1000.0),
    }
}

/// A quantile; beyond the last bucket it is only known that it is.
pub(super) fn latency(quantile: Option<f64>, rates: &Rates) -> String {
    let served = rates.requests_per_second.is_some_and(|rate| rate > 0.0);
    match quantile {
        Some(quantile) => seconds(quantile),
        None if served => ">10s".to_owned(),
        None => "-".to_owned(),
    }
}

/// `512K`, `4.1M`, `123M`, `1.2G`.
pub(super) fn memory(bytes: u64) -> String {
    let mut value = bytes as f64 / 1024.0;
    let mut unit = "K";
    for larger in ["M", "G", "T", "P"] {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    match value < 9.95 && unit != "K" {
        true => format!("{value:.1}{unit}"),
        false => format!("{value:.0}{unit}"),
    }
}

/// What else there is to know of a worker: the next try, how the last process ended, what
/// it says.
pub(super) fn note(worker: &WorkerStatus) -> String {
    let next = worker
        .backoff_seconds
        .map(|wait| format!("next start in {}", seconds(wait.max(0.0))));
    let drains = worker
        .draining
        .iter()
        .map(|old| format!("pid {} drains, {} in flight", old.pid, old.in_flight));
    let ended = worker
        .last_exit
        .as_ref()
        .filter(|exit| worker.state != SlotState::Ready || exit.reason.is_failure());
    let ended = ended.map(|exit| {
        let own = own_words(exit).map(|own| format!(" ({own})"));
        format!("last exit: {}{}", exit_words(exit), own.unwrap_or_default())
    });
    let says = Some(worker.status.clone()).filter(|says| !says.is_empty());
    let all: Vec<String> = next
        .into_iter()
        .chain(drains)
        .chain(ended)
        .chain(says)
        .collect();
    harmless(&all.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_columns() {
        for (number, shown) in [(0.0, "0"), (4.24, "4.2"), (9.96, "10"), (812_345.0, "812k")] {
            assert_eq!(rate(Some(number)), shown);
        }
        let sizes = [
            (0, "0K"),
            (524_288, "512K"),
            (4_300_000, "4.1M"),
            (u64::MAX, "16384P"),
        ];
        for (bytes, shown) in sizes {
            assert_eq!(memory(bytes), shown);
        }
    }

    #[test]
    fn what_lies_beyond_the_last_bucket_is_not_nothing() {
        let served = Rates {
            requests_per_second: Some(1.0),
            ..Rates::default()
        };
        assert_eq!(latency(None, &served), ">10s");
        assert_eq!(latency(None, &Rates::default()), "-");
        assert_eq!(latency(Some(0.25), &served), "0.2s");
    }
}
