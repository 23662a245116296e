//! Counters that go on in another supervisor.

use prefork_proto::metrics;
use serde_json::{Value, json};

use super::*;
use crate::metrics::{Known, SavedMetrics};

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
    assert_eq!(slot.requests(), Some(18));
    slot.exited(2, ExitReason::Signal);
    assert_eq!(slot.requests(), Some(18));
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

/// Sums that a reader of decimal numbers in a hurry gets wrong in the last bit.
const AWKWARD: [f64; 2] = [31.245270191439438, 121.48791951161945];

/// A report of the application's, as a worker writes it: so many orders that
/// came to so much.
fn orders(seq: u64, kind: &str, count: u64, euros: f64) -> metrics::Metrics {
    let labels = json!({ "kind": kind });
    serde_json::from_value(json!({ "seq": seq, "families": [
        { "name": "orders_total", "type": "counter", "help": "Orders.",
          "series": [{ "labels": labels, "value": count }] },
        { "name": "euros_total", "type": "counter",
          "series": [{ "labels": labels, "value": euros }] },
        { "name": "price", "type": "histogram",
          "series": [{ "buckets": [[1.0, 0], [10.0, count]], "sum": euros, "count": count }] },
        { "name": "carts", "type": "gauge", "rule": "max", "series": [{ "value": count }] },
        { "name": "tills", "type": "gauge", "rule": "slot", "series": [{ "value": count }] },
        { "name": "prefork_mine", "type": "gauge", "series": [{ "value": 1.0 }] },
    ] }))
    .unwrap()
}

/// A shop of two workers, with one that has gone before.
fn shop() -> Metrics {
    let mut metrics = metrics();
    metrics.pool("shop");
    for slot in 0..2 {
        metrics.slot("shop", slot).started(1, 100, 1, at(1));
    }
    let gone = metrics.slot("shop", 0);
    gone.application(1, &orders(1, "card", 4, AWKWARD[0]));
    gone.exited(1, ExitReason::Signal);
    gone.started(2, 101, 1, at(2));
    gone.application(2, &orders(1, "card", 2, AWKWARD[1]));
    let other = metrics.slot("shop", 1);
    other.application(1, &orders(7, "cash", 5, 0.1 + 0.2));
    metrics
}

/// The samples that are the application's, and what concerns them.
fn of_the_shop(metrics: &Metrics) -> BTreeMap<String, f64> {
    let theirs = ["orders", "euros", "price", "carts", "tills"];
    let concerned = |series: &String| {
        theirs.iter().any(|name| series.starts_with(name)) || series.contains("refused_total{pool")
    };
    samples(metrics)
        .into_iter()
        .filter(|(series, _)| concerned(series))
        .collect()
}

const CARD: &str = "orders_total{pool=\"shop\",kind=\"card\"}";
const CASH: &str = "orders_total{pool=\"shop\",kind=\"cash\"}";

#[test]
fn an_applications_metrics_go_on_where_they_were_to_the_last_bit() {
    let before = shop();
    let after = handed_over(&before);
    let was = of_the_shop(&before);
    assert_eq!((was[CARD], was[CASH]), (6.0, 5.0));
    assert_eq!(was["tills{pool=\"shop\",slot=\"1\"}"], 5.0);
    let refused =
        "prefork_application_families_refused_total{pool=\"shop\",reason=\"reserved_name\"}";
    assert_eq!(was[refused], 3.0);
    assert_eq!(of_the_shop(&after), was);
    let own = |metrics: &Metrics| {
        let text = metrics.encode();
        let lines = text.lines().filter(|line| line.contains(" orders_total"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(own(&after), own(&before));
    assert_eq!(own(&after).len(), 2, "its help and its type");
    let written = |metrics: &Metrics| serde_json::to_value(metrics.save()).unwrap();
    let (first, second) = (written(&before), written(&after));
    assert_eq!(first["application"], second["application"]);
}

#[test]
fn a_worker_that_says_everything_again_adds_only_what_it_has_counted_since() {
    let mut after = handed_over(&shop());
    let was = of_the_shop(&after);
    let worker = after.slot("shop", 0);
    worker.application(2, &orders(2, "card", 2, AWKWARD[1]));
    let totals = |mut samples: BTreeMap<String, f64>| {
        samples.retain(|series, _| !series.contains("refused"));
        samples
    };
    assert_eq!(totals(of_the_shop(&after)), totals(was));
    worker.application(2, &orders(3, "card", 9, 200.0));
    let now = of_the_shop(&after);
    assert_eq!((now[CARD], now[CASH]), (13.0, 5.0));
    assert_eq!(now["price_count{pool=\"shop\"}"], 18.0);
    assert_eq!(now["carts{pool=\"shop\"}"], 9.0);
    // A successor begins at 0.
    worker.exited(2, ExitReason::Clean);
    worker.started(3, 102, 1, at(9));
    worker.application(3, &orders(1, "card", 1, 1.0));
    assert_eq!(of_the_shop(&after)[CARD], 14.0);
    let held = "prefork_worker_counters_held_total{pool=\"shop\",slot=\"0\"}";
    assert_eq!(samples(&after)[held], 0.0);
}

#[test]
fn a_total_that_runs_backwards_is_held_and_not_counted_again() {
    let mut before = shop();
    let held = "prefork_worker_counters_held_total{pool=\"shop\",slot=\"1\"}";
    let less = orders(8, "cash", 3, 0.0);
    before.slot("shop", 1).application(1, &less);
    let counted = samples(&before)[held];
    assert!(counted > 0.0);
    let mut after = handed_over(&before);
    after.slot("shop", 1).application(1, &less);
    assert_eq!(samples(&after)[held], counted);
    assert_eq!(of_the_shop(&after)[CASH], 5.0);
}

#[test]
fn a_familys_form_stands_as_long_as_one_lives_who_reported_it() {
    let mut after = handed_over(&shop());
    let another: metrics::Metrics = serde_json::from_value(json!({ "seq": 1, "families": [
        { "name": "orders_total", "type": "counter", "series": [{ "value": 1.0 }] },
    ] }))
    .unwrap();
    let newcomer = after.slot("shop", 2);
    newcomer.started(1, 103, 2, at(9));
    newcomer.application(1, &another);
    assert_eq!(of_the_shop(&after)[CARD], 6.0, "refused");
    after.bury_all();
    let newcomer = after.slot("shop", 2);
    newcomer.started(2, 104, 2, at(9));
    newcomer.application(2, &another);
    assert_eq!(of_the_shop(&after)["orders_total{pool=\"shop\"}"], 1.0);
}

#[test]
fn what_a_dead_applications_workers_had_counted_stays_and_its_gauges_go() {
    let after = handed_over(&shop());
    after.bury_all();
    let now = of_the_shop(&after);
    assert_eq!((now[CARD], now[CASH]), (6.0, 5.0));
    assert!(
        !now.keys().any(|series| series.starts_with("carts")),
        "{now:?}"
    );
}

#[test]
fn the_limit_on_samples_counts_those_that_were_written_down() {
    let before = shop();
    let mut after = handed_over(&before);
    let room = |metrics: &Metrics| {
        let own = of_the_shop(metrics);
        own.keys()
            .filter(|series| !series.contains("refused"))
            .count()
    };
    let taken = room(&after);
    after.set_max_series(u32::try_from(taken).unwrap());
    let worker = after.slot("shop", 1);
    worker.application(1, &orders(8, "cheque", 1, 1.0));
    let now = of_the_shop(&after);
    assert!(
        !now.keys().any(|series| series.contains("cheque")),
        "{now:?}"
    );
    after.set_max_series(u32::try_from(taken + 2).unwrap());
    worker.application(1, &orders(9, "cheque", 1, 1.0));
    assert_eq!(room(&after), taken + 2);
}

#[test]
fn what_an_earlier_program_wrote_knows_nothing_of_applications() {
    let mut saved: Value = serde_json::to_value(shop().save()).unwrap();
    let part = saved.as_object_mut().unwrap().remove("application");
    assert!(part.is_some_and(|part| part["shop"].is_object()));
    let saved: SavedMetrics = serde_json::from_value(saved).unwrap();
    let mut after = metrics();
    after.restore(&saved);
    let worker = after.slot("shop", 0);
    worker.application(2, &orders(2, "card", 2, AWKWARD[1]));
    assert_eq!(of_the_shop(&after)[CARD], 2.0);
}

#[test]
fn what_is_written_is_what_is_saved() {
    let metrics = counted();
    let written: Value = serde_json::from_str(metrics.to_json().unwrap().get()).unwrap();
    assert_eq!(written, serde_json::to_value(metrics.save()).unwrap());
}

/// The processes may be written down later than the counters.
#[test]
fn counters_that_are_older_than_the_processes_agree_with_them() {
    let mut after = handed_over(&counted());
    let known = Known {
        incarnation: 3,
        pid: 4713,
        generation: 1,
        at: at(5),
    };
    // Number 2 has gone, and number 3 was started.
    after.agree_on(&BTreeMap::from([(("web".to_owned(), 0), vec![known])]));
    assert_eq!(of_slot(&after, "worker_up", ""), 1.0);
    let slot = after.slot("web", 0);
    assert_eq!(slot.requests(), Some(15));
    slot.health(3, &served(4), at(6));
    assert_eq!(slot.requests(), Some(19));
    let starts = of_slot(&after, "worker_starts_total", "");
    // Who is known already is not begun again.
    after.agree_on(&BTreeMap::from([(("web".to_owned(), 0), vec![known])]));
    assert_eq!(of_slot(&after, "worker_starts_total", ""), starts);
    assert_eq!(after.slot("web", 0).requests(), Some(19));
}
