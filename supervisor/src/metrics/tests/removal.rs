//! Series that end.

use super::*;

/// The series of an exposition that have this label.
fn labelled(metrics: &Metrics, label: &str) -> Vec<String> {
    let series = samples(metrics).into_keys();
    series.filter(|series| series.contains(label)).collect()
}

#[test]
fn a_pool_that_is_removed_takes_its_series_and_those_of_its_slots_along() {
    let mut metrics = metrics();
    for pool in ["web", "api"] {
        metrics.pool(pool).booted(Duration::from_millis(20));
        for slot in 0..2 {
            let slot = metrics.slot(pool, slot);
            slot.started(1, 100, 1, at(10));
            slot.health(1, &served(500), at(11));
        }
    }
    let [web, api] = ["web", "api"].map(|pool| labelled(&metrics, &format!("pool=\"{pool}\"")));
    assert_eq!(web.len(), api.len());
    assert!(web.iter().any(|series| series.contains("slot=\"1\"")));

    metrics.remove_pool("api");
    assert_eq!(labelled(&metrics, "pool=\"api\""), [""; 0]);
    assert_eq!(labelled(&metrics, "pool=\"web\""), web);
    assert!(metrics.known_slot("api", 0).is_none());
    assert_eq!(metrics.slot("web", 0).requests(), Some(500));

    metrics.remove_pool("api");
    metrics.pool("api");
    assert_eq!(metrics.slot("api", 0).requests(), Some(0), "it begins anew");
    let boots = "prefork_worker_boot_duration_seconds_count{pool=\"api\"}";
    assert_eq!(samples(&metrics)[boots], 0.0);
}

#[test]
fn without_a_pool_there_are_no_families_of_workers() {
    let mut metrics = metrics();
    metrics.pool("web");
    metrics.slot("web", 0);
    metrics.remove_pool("web");
    let text = metrics.encode();
    assert!(!text.contains("prefork_worker_"), "{text}");
    assert!(text.contains("prefork_build_info"), "{text}");
}

#[test]
fn a_listener_that_is_closed_takes_its_series_along() {
    let mut metrics = metrics();
    for port in [80, 81] {
        let name = format!("0.0.0.0:{port}");
        metrics
            .listener(&name, "web", &name, "shared")
            .backlog(Some(3), 4096);
        metrics
            .listener(&name, "web", &name, "shared")
            .certificates([("a.example".to_owned(), 7), ("b.example".to_owned(), 8)].into());
    }
    assert_eq!(labelled(&metrics, "listener=\"0.0.0.0:81\"").len(), 5);
    metrics
        .listener("0.0.0.0:81", "web", "0.0.0.0:81", "shared")
        .certificates([("b.example".to_owned(), 9)].into());
    let until = "prefork_listener_certificate_expiry_timestamp_seconds{listener=\"0.0.0.0:81\",name=\"b.example\"}";
    assert_eq!(samples(&metrics)[until], 9.0);
    assert_eq!(labelled(&metrics, "listener=\"0.0.0.0:81\"").len(), 4);
    metrics.remove_listener("0.0.0.0:81");
    assert_eq!(labelled(&metrics, "listener=\"0.0.0.0:81\""), [""; 0]);
    let waiting = "prefork_listener_backlog_connections{listener=\"0.0.0.0:80\"}";
    assert_eq!(samples(&metrics)[waiting], 3.0);
    metrics.remove_listener("0.0.0.0:81");
}

#[test]
fn a_listener_that_moves_to_another_pool_is_there_once() {
    let mut metrics = metrics();
    let name = "0.0.0.0:80";
    metrics
        .listener(name, "web", name, "shared")
        .backlog(Some(3), 4096);
    metrics.listener(name, "web", name, "shared");
    let waiting = "prefork_listener_backlog_connections{listener=\"0.0.0.0:80\"}";
    assert_eq!(samples(&metrics)[waiting], 3.0, "nothing has changed");

    metrics
        .listener(name, "api", name, "per-slot")
        .backlog(Some(5), 4096);
    assert_eq!(samples(&metrics)[waiting], 5.0);
    let info = labelled(&metrics, "prefork_listener_info");
    let expected = "prefork_listener_info{address=\"0.0.0.0:80\",listener=\"0.0.0.0:80\",\
                    mode=\"per-slot\",pool=\"api\"}";
    assert_eq!(info, [expected]);
}
