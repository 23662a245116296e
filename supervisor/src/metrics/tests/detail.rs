//! The slots of a pool taken together.

use super::*;

/// Two workers that serve, of two generations, and a slot that waits.
fn three_slots() -> Metrics {
    let mut metrics = metrics();
    for (slot, generation, born, heard) in [(0, 3, 50, 100), (1, 2, 40, 90)] {
        let slot = metrics.slot("web", slot);
        slot.started(1, 100, generation, at(born));
        slot.state(SlotState::Ready, Some(1));
        slot.channel_up(1, true);
        slot.send_queue(1, 7);
        slot.health(1, &served(500), at(heard));
        let usage = Usage {
            cpu: Duration::from_millis(1500),
            resident_bytes: 4096,
            open_fds: 9,
            ..Usage::default()
        };
        slot.process(1, usage);
        slot.round_trip(Duration::from_micros(60));
    }
    let waiting = metrics.slot("web", 2);
    waiting.started(1, 102, 3, at(60));
    waiting.exited(1, ExitReason::Crash);
    waiting.state(SlotState::Backoff, None);
    waiting.backoff(Duration::from_millis(400));
    metrics.set_detail(Detail::Pool);
    metrics
}

#[test]
fn totals_and_what_workers_hold_are_summed() {
    let metrics = three_slots();
    for (family, labels, expected) in [
        ("http_requests_total", ",code_class=\"2xx\"", 1000.0),
        ("http_request_duration_seconds_count", "", 1000.0),
        ("http_request_duration_seconds_sum", "", 4.0),
        (
            "http_request_duration_seconds_bucket",
            ",le=\"0.0025\"",
            0.0,
        ),
        (
            "http_request_duration_seconds_bucket",
            ",le=\"0.005\"",
            1000.0,
        ),
        ("http_requests_in_flight", "", 4.0),
        ("http_connections_active", "", 6.0),
        ("channel_round_trip_seconds_count", "", 2.0),
        ("channel_send_queue_bytes", "", 14.0),
        ("channel_up", "", 2.0),
        ("worker_starts_total", "", 3.0),
        ("worker_exits_total", ",reason=\"crash\"", 1.0),
        ("worker_up", "", 2.0),
        ("worker_state", ",state=\"ready\"", 2.0),
        ("worker_state", ",state=\"backoff\"", 1.0),
        ("worker_state", ",state=\"starting\"", 0.0),
        ("worker_cpu_seconds_total", "", 3.0),
        ("worker_resident_memory_bytes", "", 8192.0),
        ("worker_open_fds", "", 18.0),
    ] {
        assert_eq!(
            of_pool(&metrics, family, labels),
            expected,
            "{family}{labels}"
        );
    }
}

#[test]
fn of_times_and_generations_the_worker_that_is_behind_is_shown() {
    let metrics = three_slots();
    assert_eq!(of_pool(&metrics, "worker_generation", ""), 2.0);
    assert_eq!(of_pool(&metrics, "worker_start_time_seconds", ""), 40.0);
    let heard = of_pool(&metrics, "channel_last_heartbeat_timestamp_seconds", "");
    assert_eq!(heard, 90.0);
    assert_eq!(of_pool(&metrics, "worker_restart_backoff_seconds", ""), 0.4);
    assert_eq!(of_pool(&metrics, "worker_loop_lag_seconds", ""), 0.0015);
}

#[test]
fn no_series_names_a_slot_or_a_process() {
    let text = three_slots().encode();
    assert!(text.contains("prefork_worker_up"), "{text}");
    assert!(!text.contains("slot=\""), "{text}");
    assert!(!text.contains("prefork_worker_pid"), "{text}");
}

#[test]
fn the_exposition_does_not_grow_with_the_workers() {
    let lines = |workers| {
        let mut metrics = metrics();
        metrics.set_detail(Detail::Pool);
        for slot in 0..workers {
            metrics.slot("web", slot);
        }
        metrics.encode().lines().count()
    };
    assert_eq!(lines(1), lines(1000));
}

#[test]
fn a_pool_that_shrinks_keeps_what_its_slots_have_counted() {
    let metrics = three_slots();
    let slot = metrics.known_slot("web", 1).unwrap();
    slot.exited(1, ExitReason::ScaleDown);
    slot.state(SlotState::Empty, None);
    let total = of_pool(&metrics, "http_requests_total", ",code_class=\"2xx\"");
    assert_eq!(total, 1000.0);
    assert_eq!(of_pool(&metrics, "worker_cpu_seconds_total", ""), 3.0);
    assert_eq!(of_pool(&metrics, "worker_generation", ""), 3.0);
    assert_eq!(of_pool(&metrics, "worker_state", ",state=\"empty\""), 1.0);
}

#[test]
fn a_change_of_detail_loses_nothing() {
    let mut metrics = three_slots();
    metrics.set_detail(Detail::Slot);
    let slot = of_slot(&metrics, "http_requests_total", ",code_class=\"2xx\"");
    assert_eq!(slot, 500.0);
    assert_eq!(of_slot(&metrics, "worker_pid", ""), 100.0);
    metrics.set_detail(Detail::Pool);
    let pool = of_pool(&metrics, "http_requests_total", ",code_class=\"2xx\"");
    assert_eq!(pool, 1000.0);
}
