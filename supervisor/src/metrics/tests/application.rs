//! The application's own metrics, over workers, deaths and deploys.

use prefork_proto::metrics;
use serde_json::{Value, json};

use super::*;

/// A report of one message, as a worker writes it.
fn report(seq: u64, families: Value) -> metrics::Metrics {
    serde_json::from_value(json!({ "seq": seq, "families": families })).unwrap()
}

fn counter(name: &str, value: f64) -> Value {
    json!({ "name": name, "help": "Orders.", "type": "counter",
            "series": [{ "labels": { "method": "card" }, "value": value }] })
}

fn gauge(rule: &str, value: f64) -> Value {
    json!({ "name": "carts", "type": "gauge", "rule": rule, "series": [{ "value": value }] })
}

fn histogram(low: u64, count: u64, sum: f64) -> Value {
    json!({ "name": "price", "type": "histogram",
            "series": [{ "buckets": [[1.0, low], [10.0, count]], "sum": sum, "count": count }] })
}

/// A pool with a live worker in each of its slots.
fn pool(slots: u32) -> Metrics {
    let mut metrics = metrics();
    metrics.pool("web");
    for slot in 0..slots {
        metrics.slot("web", slot).started(1, 100, 1, at(1));
    }
    metrics
}

fn say(metrics: &mut Metrics, slot: u32, incarnation: u64, report: &metrics::Metrics) {
    metrics.slot("web", slot).application(incarnation, report);
}

fn die(metrics: &mut Metrics, slot: u32, incarnation: u64) {
    let slot = metrics.slot("web", slot);
    slot.exited(incarnation, ExitReason::Signal);
    slot.started(incarnation + 1, 200, 1, at(2));
}

const ORDERS: &str = "orders_total{pool=\"web\",method=\"card\"}";

fn refused(metrics: &Metrics, reason: &str) -> f64 {
    let series =
        format!("prefork_application_families_refused_total{{pool=\"web\",reason=\"{reason}\"}}");
    samples(metrics)[&series]
}

#[test]
fn counters_and_histograms_are_summed_over_workers_and_their_successors() {
    let mut metrics = pool(2);
    for slot in 0..2 {
        let first = report(
            1,
            json!([counter("orders_total", 5.0), histogram(1, 3, 12.5)]),
        );
        say(&mut metrics, slot, 1, &first);
    }
    assert_eq!(samples(&metrics)[ORDERS], 10.0);
    die(&mut metrics, 0, 1);
    assert_eq!(samples(&metrics)[ORDERS], 10.0, "what has died stays");
    say(
        &mut metrics,
        0,
        2,
        &report(
            1,
            json!([counter("orders_total", 2.0), histogram(0, 1, 9.0)]),
        ),
    );
    say(
        &mut metrics,
        1,
        1,
        &report(2, json!([counter("orders_total", 6.0)])),
    );
    let samples = samples(&metrics);
    assert_eq!(samples[ORDERS], 13.0);
    assert_eq!(samples["price_bucket{pool=\"web\",le=\"1\"}"], 2.0);
    assert_eq!(samples["price_bucket{pool=\"web\",le=\"+Inf\"}"], 7.0);
    assert_eq!(samples["price_count{pool=\"web\"}"], 7.0);
    assert_eq!(samples["price_sum{pool=\"web\"}"], 34.0);
}

#[test]
fn gauges_follow_their_rule_and_go_with_their_worker() {
    for (rule, together, after) in [("sum", 7.0, 3.0), ("max", 4.0, 3.0), ("min", 3.0, 3.0)] {
        let mut metrics = pool(2);
        say(&mut metrics, 0, 1, &report(1, json!([gauge(rule, 4.0)])));
        say(&mut metrics, 1, 1, &report(1, json!([gauge(rule, 3.0)])));
        assert_eq!(samples(&metrics)["carts{pool=\"web\"}"], together, "{rule}");
        die(&mut metrics, 0, 1);
        assert_eq!(samples(&metrics)["carts{pool=\"web\"}"], after, "{rule}");
        say(&mut metrics, 1, 1, &report(2, json!([])));
        assert!(
            !samples(&metrics).contains_key("carts{pool=\"web\"}"),
            "no longer reported"
        );
    }
    let mut metrics = pool(2);
    say(&mut metrics, 0, 1, &report(1, json!([gauge("slot", 4.0)])));
    say(&mut metrics, 1, 1, &report(1, json!([gauge("slot", 3.0)])));
    let samples = samples(&metrics);
    assert_eq!(samples["carts{pool=\"web\",slot=\"0\"}"], 4.0);
    assert_eq!(samples["carts{pool=\"web\",slot=\"1\"}"], 3.0);
}

#[test]
fn what_runs_backwards_is_held_and_counted_once() {
    let mut metrics = pool(1);
    for (seq, value) in [(1, 5.0), (2, 3.0), (3, 4.0), (4, 6.0)] {
        say(
            &mut metrics,
            0,
            1,
            &report(seq, json!([counter("orders_total", value)])),
        );
        let held = if seq == 1 { 0.0 } else { 1.0 };
        assert_eq!(samples(&metrics)[ORDERS], f64::max(value, 5.0));
        assert_eq!(of_slot(&metrics, "worker_counters_held_total", ""), held);
    }
}

#[test]
fn each_reason_to_refuse_a_family_is_counted_and_the_others_are_taken() {
    let of = |name: &str, kind: &str, series: Value| {
        json!([
            { "name": name, "type": kind, "series": [series] }, counter("orders_total", 1.0)
        ])
    };
    let one = json!({ "value": 1.0 });
    for (reason, families) in [
        ("invalid_name", of("a-b", "counter", one.clone())),
        ("invalid_name", of("", "counter", one.clone())),
        (
            "invalid_name",
            of("a\n# TYPE b counter\nb", "counter", one.clone()),
        ),
        (
            "reserved_name",
            of("prefork_worker_up", "gauge", one.clone()),
        ),
        (
            "reserved_name",
            of("process_open_fds", "gauge", one.clone()),
        ),
        ("unsupported_type", of("a", "summary", one.clone())),
        (
            "invalid_label",
            of(
                "a",
                "counter",
                json!({ "labels": { "__name__": "b" }, "value": 1.0 }),
            ),
        ),
        (
            "invalid_label",
            of(
                "a",
                "counter",
                json!({ "labels": { "x y": "b" }, "value": 1.0 }),
            ),
        ),
        (
            "invalid_label",
            of(
                "a",
                "counter",
                json!({ "labels": { "pool": "b", "exported_pool": "c" }, "value": 1.0 }),
            ),
        ),
        (
            "invalid_label",
            of(
                "a",
                "histogram",
                json!({ "labels": { "le": "1" }, "sum": 1.0, "count": 1 }),
            ),
        ),
        (
            "invalid_value",
            of("a", "counter", json!({ "value": -1.0 })),
        ),
        (
            "invalid_value",
            of("a", "counter", json!({ "sum": 1.0, "count": 1 })),
        ),
        ("invalid_value", of("a", "histogram", one)),
        (
            "invalid_value",
            of(
                "a",
                "histogram",
                json!({ "buckets": [[2.0, 1], [1.0, 1]], "sum": 1.0, "count": 1 }),
            ),
        ),
        (
            "invalid_value",
            of(
                "a",
                "histogram",
                json!({ "buckets": [[1.0, 5], [2.0, 1]], "sum": 1.0, "count": 9 }),
            ),
        ),
        (
            "invalid_value",
            of(
                "a",
                "histogram",
                json!({ "buckets": [[1.0, 5]], "sum": 1.0, "count": 4 }),
            ),
        ),
        (
            "too_long",
            of(
                "a",
                "counter",
                json!({ "labels": { "x": "y".repeat(2048) }, "value": 1.0 }),
            ),
        ),
    ] {
        let mut metrics = pool(1);
        assert_eq!(refused(&metrics, reason), 0.0);
        say(&mut metrics, 0, 1, &report(1, families.clone()));
        assert_eq!(refused(&metrics, reason), 1.0, "{families}");
        let samples = samples(&metrics);
        assert_eq!(samples[ORDERS], 1.0, "the other one is taken: {families}");
        let foreign = |name: &&String| !name.starts_with("prefork") && !name.starts_with("process");
        let others: Vec<_> = samples.keys().filter(foreign).collect();
        assert_eq!(others, [ORDERS], "{families}");
    }
}

#[test]
fn another_form_waits_until_no_live_worker_reports_the_first() {
    let mut metrics = pool(2);
    say(
        &mut metrics,
        0,
        1,
        &report(1, json!([counter("carts", 5.0)])),
    );
    for (seq, other) in [
        (1, gauge("sum", 1.0)),
        (2, gauge("max", 1.0)),
        (3, histogram(1, 1, 1.0)),
    ] {
        let mut other = other;
        other["name"] = "carts".into();
        say(&mut metrics, 1, 1, &report(seq, json!([other])));
        assert_eq!(refused(&metrics, "clash"), seq as f64);
    }
    assert_eq!(
        samples(&metrics)["carts{pool=\"web\",method=\"card\"}"],
        5.0
    );
    die(&mut metrics, 0, 1);
    say(&mut metrics, 1, 1, &report(4, json!([gauge("sum", 1.0)])));
    let samples = samples(&metrics);
    assert_eq!(samples["carts{pool=\"web\"}"], 1.0);
    assert!(!samples.contains_key("carts{pool=\"web\",method=\"card\"}"));
}

#[test]
fn a_name_that_another_familys_samples_have_is_a_clash() {
    let mut metrics = pool(1);
    say(
        &mut metrics,
        0,
        1,
        &report(
            1,
            json!([histogram(1, 1, 1.0), counter("price_count", 1.0)]),
        ),
    );
    assert_eq!(refused(&metrics, "clash"), 1.0);
    let mut metrics = pool(1);
    say(
        &mut metrics,
        0,
        1,
        &report(1, json!([counter("price_sum", 1.0), histogram(1, 1, 1.0)])),
    );
    assert_eq!(refused(&metrics, "clash"), 1.0);
}

#[test]
fn labels_that_the_supervisor_adds_are_renamed_where_the_application_has_them() {
    let mut metrics = pool(1);
    let own = json!({ "labels": { "pool": "a", "slot": "b" }, "value": 1.0 });
    let family = |name: &str, rule: &str| json!({ "name": name, "type": "gauge", "rule": rule, "series": [own.clone()] });
    say(
        &mut metrics,
        0,
        1,
        &report(1, json!([family("a", "slot"), family("b", "sum")])),
    );
    let samples = samples(&metrics);
    assert_eq!(
        samples["a{pool=\"web\",exported_pool=\"a\",exported_slot=\"b\",slot=\"0\"}"],
        1.0
    );
    assert_eq!(
        samples["b{pool=\"web\",exported_pool=\"a\",slot=\"b\"}"],
        1.0
    );
}

#[test]
fn a_pool_has_no_more_samples_than_it_may() {
    let mut metrics = pool(2);
    metrics.set_max_series(10);
    let many = |from: u32, to: u32| {
        let series: Vec<_> = (from..to)
            .map(|number| json!({ "labels": { "n": number.to_string() }, "value": 1.0 }))
            .collect();
        json!([{ "name": "many_total", "type": "counter", "series": series }])
    };
    let there = |metrics: &Metrics| {
        let samples = samples(metrics);
        samples
            .keys()
            .filter(|name| name.starts_with("many") || name.starts_with("price"))
            .count()
    };
    say(&mut metrics, 0, 1, &report(1, many(0, 8)));
    assert_eq!(
        (there(&metrics), refused(&metrics, "too_many_series")),
        (8, 0.0)
    );
    // Two buckets, the infinite one, the sum and the count.
    say(
        &mut metrics,
        1,
        1,
        &report(1, json!([histogram(1, 1, 1.0)])),
    );
    assert_eq!(
        (there(&metrics), refused(&metrics, "too_many_series")),
        (8, 1.0)
    );
    say(&mut metrics, 1, 1, &report(2, many(5, 100)));
    assert_eq!(
        (there(&metrics), refused(&metrics, "too_many_series")),
        (10, 2.0)
    );
    assert_eq!(
        samples(&metrics)["many_total{pool=\"web\",n=\"5\"}"],
        2.0,
        "known ones go on"
    );
    // Gauges give their place back.
    let mut metrics = pool(1);
    metrics.set_max_series(1);
    for seq in 1..5 {
        let family =
            json!([{ "name": format!("g{seq}"), "type": "gauge", "series": [{ "value": 1.0 }] }]);
        say(&mut metrics, 0, 1, &report(2 * seq, family));
        say(&mut metrics, 0, 1, &report(2 * seq + 1, json!([])));
    }
    assert_eq!(refused(&metrics, "too_many_series"), 0.0);
}

#[test]
fn huge_values_and_odd_words_leave_the_exposition_sound() {
    let mut metrics = pool(2);
    for slot in 0..2 {
        let odd = "\"\\\n# HELP x\u{0}é\r";
        say(
            &mut metrics,
            slot,
            1,
            &report(
                1,
                json!([
                    { "name": "odd_total", "help": odd, "type": "counter",
                      "series": [{ "labels": { "x": odd }, "value": f64::MAX }] },
                    { "name": "large", "help": odd, "type": "gauge", "series": [{ "value": f64::MIN }] },
                    { "name": "deep", "help": odd, "type": "histogram",
                      "series": [{ "buckets": [[-1e300, u64::MAX]], "sum": -f64::MAX, "count": u64::MAX }] },
                ]),
            ),
        );
    }
    let samples = samples(&metrics);
    assert_eq!(samples["large{pool=\"web\"}"], f64::MIN);
    assert_eq!(samples["deep_count{pool=\"web\"}"], u64::MAX as f64);
    assert!(
        samples.values().all(|value| value.is_finite()),
        "{samples:?}"
    );
    promtool_is_silent_on(&metrics.encode());
}

#[test]
fn a_pool_that_goes_takes_its_applications_metrics_along() {
    let mut metrics = pool(1);
    say(
        &mut metrics,
        0,
        1,
        &report(1, json!([counter("orders_total", 5.0)])),
    );
    metrics.remove_pool("web");
    let text = metrics.encode();
    assert!(
        !text.contains("orders_total") && !text.contains("pool=\"web\""),
        "{text}"
    );
}

#[test]
fn a_part_of_a_report_counts_and_only_the_whole_ends_a_gauge() {
    let mut metrics = pool(1);
    say(
        &mut metrics,
        0,
        1,
        &report(1, json!([gauge("sum", 4.0), counter("orders_total", 1.0)])),
    );
    let mut part = report(2, json!([counter("orders_total", 3.0)]));
    part.more = true;
    say(&mut metrics, 0, 1, &part);
    assert_eq!(samples(&metrics)[ORDERS], 3.0);
    assert_eq!(samples(&metrics)["carts{pool=\"web\"}"], 4.0);
    say(&mut metrics, 0, 1, &report(2, json!([])));
    assert!(!samples(&metrics).contains_key("carts{pool=\"web\"}"));
}
