//! Numbers and words, short enough for a column.

use prefork_api::{SlotState, WorkerStatus};

use super::super::figures::Rates;
use crate::cli::units::{self, seconds};
use crate::cli::{exit_words, own_words};
use crate::sanitize::{cut, one_line};

/// How much of a stranger's text is looked at at all, in characters.
const MOST: usize = 300;

/// A stranger's text, which drives no terminal.
pub(super) fn harmless(text: &str) -> String {
    one_line(&cut(text, MOST)).into_owned()
}

/// A rate; `-` where nothing is counted.
pub(super) fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), units::rate)
}

/// A quantile; `-` where nothing was served.
pub(super) fn latency(quantile: Option<f64>, rates: &Rates) -> String {
    let served = rates.requests_per_second.is_some_and(|rate| rate > 0.0);
    units::quantile(quantile, served).unwrap_or_else(|| "-".to_owned())
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
        assert_eq!([rate(None), rate(Some(4.24))], ["-", "4.2"]);
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
