//! Pools whose applications use one name for different things.

use prefork_proto::metrics;
use serde_json::{Value, json};

use super::*;

/// A worker of the pool reports these families, its first time.
fn report(metrics: &mut Metrics, pool: &str, families: Value) {
    metrics.pool(pool);
    let report: metrics::Metrics =
        serde_json::from_value(json!({ "seq": 1, "families": families })).unwrap();
    let slot = metrics.slot(pool, 0);
    slot.started(1, 100, 1, at(1));
    slot.application(1, &report);
}

fn counter(name: &str, labels: Value, value: f64) -> Value {
    json!({ "name": name, "help": "Jobs.", "type": "counter",
            "series": [{ "labels": labels, "value": value }] })
}

fn histogram(name: &str, bounds: &[f64]) -> Value {
    let buckets: Vec<Value> = bounds.iter().map(|bound| json!([bound, 1])).collect();
    json!({ "name": name, "help": "Times.", "type": "histogram",
            "series": [{ "buckets": buckets, "sum": 0.5, "count": 1 }] })
}

fn refused(metrics: &Metrics) -> f64 {
    let all = samples(metrics);
    let refusals = all
        .iter()
        .filter(|(name, _)| name.starts_with("prefork_application_families_refused"));
    refusals.map(|(_, refused)| refused).sum()
}

/// The types that the exposition names; each name has one.
fn types(metrics: &Metrics) -> BTreeMap<String, String> {
    let mut types = BTreeMap::new();
    for line in metrics.encode().lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|it| it.split_once(' '))
        {
            let twice = types.insert(name.to_owned(), kind.to_owned());
            assert_eq!(twice, None, "{name}");
        }
    }
    types
}

#[test]
fn other_labels_and_buckets_are_nothing_to_the_other_pool() {
    let mut metrics = metrics();
    report(
        &mut metrics,
        "web",
        json!([
            counter("jobs_total", json!({ "kind": "mail" }), 3.0),
            histogram("job_seconds", &[0.1, 1.0])
        ]),
    );
    report(
        &mut metrics,
        "api",
        json!([
            counter("jobs_total", json!({}), 4.0),
            histogram("job_seconds", &[5.0])
        ]),
    );
    assert_eq!(refused(&metrics), 0.0);
    // The one that restarts takes nothing from the other.
    let web = metrics.slot("web", 0);
    web.exited(1, ExitReason::Signal);
    report(
        &mut metrics,
        "web",
        json!([counter("jobs_total", json!({ "kind": "mail" }), 2.0)]),
    );
    let samples = samples(&metrics);
    assert_eq!(samples["jobs_total{pool=\"web\",kind=\"mail\"}"], 5.0);
    assert_eq!(samples["jobs_total{pool=\"api\"}"], 4.0);
    assert_eq!(samples["job_seconds_bucket{pool=\"web\",le=\"0.1\"}"], 1.0);
    assert_eq!(samples["job_seconds_bucket{pool=\"api\",le=\"5\"}"], 1.0);
    let types = types(&metrics);
    assert_eq!(types["jobs_total"], "counter");
    assert_eq!(types["job_seconds"], "histogram");
}

#[test]
fn other_types_stand_beside_each_other_as_gauges() {
    let mut metrics = metrics();
    report(&mut metrics, "web", json!([histogram("jobs", &[1.0])]));
    report(
        &mut metrics,
        "api",
        json!([counter("jobs", json!({}), 4.0)]),
    );
    report(&mut metrics, "batch", json!([histogram("jobs", &[2.5])]));
    assert_eq!(refused(&metrics), 0.0);
    let samples = samples(&metrics);
    assert_eq!(samples["jobs{pool=\"api\"}"], 4.0);
    assert_eq!(samples["jobs_bucket{pool=\"web\",le=\"1\"}"], 1.0);
    assert_eq!(samples["jobs_bucket{pool=\"batch\",le=\"2.5\"}"], 1.0);
    assert_eq!(samples["jobs_bucket{pool=\"batch\",le=\"+Inf\"}"], 1.0);
    assert_eq!(samples["jobs_sum{pool=\"web\"}"], 0.5);
    assert_eq!(samples["jobs_count{pool=\"web\"}"], 1.0);
    let types = types(&metrics);
    for name in ["jobs", "jobs_bucket", "jobs_sum", "jobs_count"] {
        assert_eq!(types[name], "gauge", "{name}");
    }
}

#[test]
fn a_name_that_is_a_sample_of_another_pools_histogram_stands_beside_it() {
    let mut metrics = metrics();
    report(&mut metrics, "web", json!([histogram("jobs", &[1.0])]));
    report(
        &mut metrics,
        "api",
        json!([counter("jobs_count", json!({}), 4.0)]),
    );
    let samples = samples(&metrics);
    assert_eq!(samples["jobs_count{pool=\"web\"}"], 1.0);
    assert_eq!(samples["jobs_count{pool=\"api\"}"], 4.0);
    assert_eq!(types(&metrics)["jobs_count"], "gauge");
    // When the other has gone, it is a histogram again.
    metrics.remove_pool("api");
    let types = types(&metrics);
    assert_eq!(types["jobs"], "histogram");
    assert!(!types.contains_key("jobs_count"));
}
