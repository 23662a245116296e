//! Counters that go on in another supervisor.

use super::*;
use crate::metrics::SavedMetrics;

/// Metrics in which everything has been counted, of one slot with a process
/// that has gone and one that lives.
fn counted() -> Metrics {
    let mut metrics = metrics();
    let slot = metrics.slot("web", 0);
    slot.started(1, 4711, 1, at(1));
    slot.health(1, &served(10), at(2));
    slot.exited(1, ExitReason::Crash);
    slot.started(2, 4712, 1, at(3));
    slot.health(2, &served(5), at(4));
    let counters = Counters {
        sent_bytes: 100,
        sent: vec![3; ToWorker::KINDS.len()],
        received: vec![2; ToSupervisor::KINDS.len() + 1],
        ..Counters::default()
    };
    slot.channel_counters(2, &counters);
    slot.decode_error("not_json");
    slot.round_trip(Duration::from_micros(60));
    slot.heartbeat_missed();
    metrics.pool("web").booted(Duration::from_millis(7));
    metrics.pool("web").drained(Duration::from_secs(3));
    metrics.supervisor().command("scale");
    metrics.supervisor().reloaded(false, at(9));
    metrics.supervisor().loop_lag(Duration::from_micros(700));
    metrics.supervisor().rejoin_refused("secret");
    metrics
}

fn handed_over(before: &Metrics) -> Metrics {
    let text = serde_json::to_string(&before.save()).unwrap();
    let saved: SavedMetrics = serde_json::from_str(&text).unwrap();
    let mut after = metrics();
    after.restore(&saved);
    after
}

/// The samples that only ever grow.
fn totals(metrics: &Metrics) -> BTreeMap<String, f64> {
    let grows = |series: &String| {
        let name = series.split('{').next().unwrap_or(series);
        ["_total", "_bucket", "_count", "_sum"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
    };
    samples(metrics)
        .into_iter()
        .filter(|(series, _)| grows(series) && !series.starts_with("process_"))
        .collect()
}

#[test]
fn every_counter_goes_on_where_it_was() {
    let before = counted();
    let after = handed_over(&before);
    let totals_before = totals(&before);
    assert!(totals_before.values().filter(|total| **total > 0.0).count() > 30);
    assert_eq!(totals(&after), totals_before);
}

#[test]
fn a_process_that_lives_on_is_counted_once() {
    let before = counted();
    let mut after = handed_over(&before);
    let slot = after.slot("web", 0);
    slot.health(2, &served(8), at(9));
    assert_eq!(slot.requests(), 18);
    slot.exited(2, ExitReason::Signal);
    assert_eq!(slot.requests(), 18);
}

#[test]
fn what_the_dead_had_counted_stays_counted() {
    let after = handed_over(&counted());
    after.bury_all();
    let requests = of_slot(&after, "http_requests_total", ",code_class=\"2xx\"");
    assert_eq!(requests, 15.0);
    assert_eq!(of_slot(&after, "worker_up", ""), 0.0);
}

#[test]
fn the_processor_time_of_supervisors_before_is_added() {
    let before = counted();
    before.encode();
    let used = samples(&before)["process_cpu_seconds_total"];
    let after = handed_over(&before);
    assert!(samples(&after)["process_cpu_seconds_total"] >= used);
}
