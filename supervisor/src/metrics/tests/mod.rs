//! What a scrape shows of what has been recorded.

mod application;
mod detail;
mod page;
mod pools_apart;
mod removal;
mod saved;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use prefork_api::{ExitReason, SlotState};
use prefork_proto::channel::Counters;
use prefork_proto::message::{Health, HttpCounts};
use prefork_proto::scoreboard::Snapshot;
use proptest::prelude::*;

use super::*;
use crate::kernel::procfs::Usage;

fn metrics() -> Metrics {
    let started = UNIX_EPOCH + Duration::from_secs(1_770_000_000);
    Metrics::new("0.1.0", started, &["not_json"], &["queue_full"])
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The samples of an exposition by name and labels.
fn samples(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.encode();
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        (
            series.to_owned(),
            value.parse().expect("a value is a number"),
        )
    };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(sample)
        .collect()
}

/// One sample of `web/0`; `labels` begin with a comma.
fn of_slot(metrics: &Metrics, family: &str, labels: &str) -> f64 {
    let series = format!("prefork_{family}{{pool=\"web\",slot=\"0\"{labels}}}");
    let samples = samples(metrics);
    *samples
        .get(&series)
        .unwrap_or_else(|| panic!("no {series} in {samples:#?}"))
}

/// One sample of the pool `web`; `labels` begin with a comma.
fn of_pool(metrics: &Metrics, family: &str, labels: &str) -> f64 {
    let series = format!("prefork_{family}{{pool=\"web\"{labels}}}");
    let samples = samples(metrics);
    *samples
        .get(&series)
        .unwrap_or_else(|| panic!("no {series} in {samples:#?}"))
}

#[test]
fn an_idle_worker_has_few_samples_of_its_own() {
    let mut metrics = metrics();
    metrics.pool("web");
    for slot in 0..3 {
        metrics.slot("web", slot);
    }
    let text = metrics.encode();
    let of_slot = |slot| text.lines().filter(|line| line.contains(slot)).count();
    assert!(
        (60..=90).contains(&of_slot("slot=\"1\"")),
        "{}",
        of_slot("slot=\"1\"")
    );
}

fn served(requests: u64) -> Health {
    let mut http = HttpCounts::default();
    http.requests[1] = requests;
    http.duration_buckets[3] = requests;
    http.duration_sum_us = requests * 4000;
    Health {
        in_flight: 2,
        connections: 3,
        loop_lag_us: 1500,
        http: Some(Box::new(http)),
        ..Health::default()
    }
}

#[test]
fn every_series_of_a_slot_is_there_from_its_birth() {
    let mut metrics = metrics();
    metrics.slot("web", 0);
    metrics.pool("web");
    for (family, labels) in [
        ("channel_round_trip_seconds_count", ""),
        ("worker_exits_total", ",reason=\"heartbeat_timeout\""),
        ("worker_state", ",state=\"ready\""),
        ("http_requests_total", ",code_class=\"5xx\""),
        ("http_request_duration_seconds_bucket", ",le=\"+Inf\""),
        ("worker_up", ""),
        ("worker_cpu_seconds_total", ""),
    ] {
        assert_eq!(of_slot(&metrics, family, labels), 0.0, "{family}{labels}");
    }
    for (family, labels) in [
        ("channel_messages_sent_total", ",kind=\"welcome\""),
        ("channel_messages_received_total", ",kind=\"health\""),
        ("channel_messages_received_total", ",kind=\"unknown\""),
        ("channel_decode_errors_total", ",reason=\"not_json\""),
        ("channel_decode_errors_total", ",reason=\"other\""),
        ("channel_send_errors_total", ",reason=\"queue_full\""),
    ] {
        assert_eq!(of_pool(&metrics, family, labels), 0.0, "{family}{labels}");
    }
    assert_eq!(of_slot(&metrics, "worker_state", ",state=\"empty\""), 1.0);
    let samples = samples(&metrics);
    assert_eq!(
        samples["prefork_worker_boot_duration_seconds_count{pool=\"web\"}"],
        0.0
    );
    assert_eq!(
        samples["prefork_control_commands_total{command=\"scale\"}"],
        0.0
    );
    assert_eq!(samples["prefork_config_reload_failures_total"], 0.0);
    assert_eq!(samples["prefork_config_last_reload_successful"], 1.0);
    assert_eq!(samples["prefork_build_info{version=\"0.1.0\"}"], 1.0);
    assert!(samples["process_resident_memory_bytes"] > 100_000.0);
    assert!(samples["process_open_fds"] >= 3.0);
    assert!(samples["process_max_fds"] >= samples["process_open_fds"]);
    assert_eq!(samples["process_start_time_seconds"], 1.77e9);
}

#[test]
fn totals_go_on_over_the_death_of_a_worker() {
    let mut metrics = metrics();
    let slot = metrics.slot("web", 0);
    slot.started(1, 100, 1, at(10));
    slot.health(1, &served(500), at(11));
    let cpu = |seconds| Usage {
        cpu: Duration::from_secs(seconds),
        resident_bytes: 4096,
        ..Usage::default()
    };
    slot.process(1, cpu(7));
    slot.exited(1, ExitReason::Signal);
    slot.started(2, 101, 1, at(12));
    slot.health(2, &served(3), at(13));
    slot.process(2, cpu(1));

    assert_eq!(
        of_slot(&metrics, "http_requests_total", ",code_class=\"2xx\""),
        503.0
    );
    assert_eq!(
        of_slot(&metrics, "http_request_duration_seconds_count", ""),
        503.0
    );
    assert_eq!(
        of_slot(
            &metrics,
            "http_request_duration_seconds_bucket",
            ",le=\"0.0025\""
        ),
        0.0
    );
    assert_eq!(
        of_slot(
            &metrics,
            "http_request_duration_seconds_bucket",
            ",le=\"0.005\""
        ),
        503.0
    );
    assert_eq!(
        of_slot(&metrics, "http_request_duration_seconds_sum", ""),
        2.012
    );
    assert_eq!(of_slot(&metrics, "worker_cpu_seconds_total", ""), 8.0);
    assert_eq!(
        of_slot(&metrics, "worker_exits_total", ",reason=\"signal\""),
        1.0
    );
    assert_eq!(of_slot(&metrics, "worker_starts_total", ""), 2.0);
    assert_eq!(slot.requests(), Some(503));
    assert_eq!(slot.requests_of(2), Some(3));
    assert_eq!(
        slot.usage_of(2).map(|usage| usage.resident_bytes),
        Some(4096)
    );
    assert_eq!(slot.usage_of(1), None);
}

#[test]
fn a_successor_and_its_draining_predecessor_count_together() {
    let mut metrics = metrics();
    let slot = metrics.slot("web", 0);
    slot.started(1, 100, 1, at(10));
    slot.health(1, &served(500), at(11));
    slot.state(SlotState::Ready, Some(1));
    slot.started(2, 101, 2, at(12));
    slot.health(2, &served(3), at(13));
    slot.state(SlotState::Ready, Some(2));
    slot.health(1, &served(501), at(14));

    assert_eq!(slot.requests(), Some(504));
    assert_eq!(of_slot(&metrics, "http_requests_in_flight", ""), 4.0);
    assert_eq!(of_slot(&metrics, "http_connections_active", ""), 6.0);
    assert_eq!(of_slot(&metrics, "worker_pid", ""), 101.0);
    assert_eq!(of_slot(&metrics, "worker_generation", ""), 2.0);
    assert_eq!(of_slot(&metrics, "worker_start_time_seconds", ""), 12.0);
    assert_eq!(
        of_slot(&metrics, "channel_last_heartbeat_timestamp_seconds", ""),
        14.0
    );
    slot.exited(1, ExitReason::Reload);
    assert_eq!(slot.requests(), Some(504));
    assert_eq!(of_slot(&metrics, "http_requests_in_flight", ""), 2.0);
}

#[test]
fn a_total_that_runs_backwards_is_held_and_counted() {
    let mut metrics = metrics();
    let slot = metrics.slot("web", 0);
    slot.started(1, 100, 1, at(10));
    slot.health(1, &served(500), at(11));
    slot.health(1, &served(20), at(12));
    assert_eq!(slot.requests(), Some(500));
    // The requests, their bucket and their sum.
    assert_eq!(of_slot(&metrics, "worker_counters_held_total", ""), 3.0);
    slot.health(1, &served(20), at(13));
    slot.health(1, &served(501), at(14));
    assert_eq!(slot.requests(), Some(501));
    assert_eq!(of_slot(&metrics, "worker_counters_held_total", ""), 3.0);
}

#[test]
fn a_scoreboard_is_read_until_its_process_is_gone_and_its_counts_stay() {
    let mut metrics = metrics();
    let slot = metrics.slot("web", 0);
    let counted = |requests, in_flight| Snapshot {
        http: *served(requests).http.unwrap(),
        in_flight,
        connections: 7,
    };
    slot.started(1, 100, 1, at(10));
    slot.counted(1, &counted(500, 5));
    assert_eq!(
        (slot.requests(), slot.requests_of(1)),
        (Some(500), Some(500))
    );
    assert_eq!(of_slot(&metrics, "http_requests_in_flight", ""), 5.0);
    assert_eq!(of_slot(&metrics, "http_connections_active", ""), 7.0);
    let nonsense = u64::MAX / 4000;
    slot.counted(1, &counted(nonsense, u64::MAX));
    slot.counted(1, &counted(3, 0));
    assert_eq!(of_slot(&metrics, "worker_counters_held_total", ""), 3.0);
    slot.exited(1, ExitReason::Signal);
    slot.counted(1, &counted(4, 9));
    assert_eq!(slot.requests(), Some(nonsense));
    assert_eq!(of_slot(&metrics, "http_connections_active", ""), 0.0);
}

#[test]
fn a_cell_at_its_maximum_is_held_and_the_total_goes_on() {
    let mut metrics = metrics();
    let slot = metrics.slot("web", 0);
    let counted = |requests: u64| {
        let mut http = *served(0).http.unwrap();
        http.accepted = requests;
        Snapshot {
            http,
            in_flight: 0,
            connections: 0,
        }
    };
    let accepted = |metrics: &Metrics| of_slot(metrics, "http_connections_accepted_total", "");
    slot.started(1, 100, 1, at(10));
    slot.counted(1, &counted(500));
    for _ in 0..2 {
        slot.counted(1, &counted(u64::MAX));
        assert_eq!(accepted(&metrics), 500.0);
    }
    assert_eq!(of_slot(&metrics, "worker_counters_held_total", ""), 1.0);
    slot.counted(1, &counted(600));
    slot.exited(1, ExitReason::Signal);
    slot.started(2, 101, 1, at(11));
    slot.counted(2, &counted(u64::MAX));
    slot.counted(2, &counted(7));
    assert_eq!(accepted(&metrics), 607.0);
}

#[test]
fn a_slot_that_is_removed_keeps_its_counters_and_nothing_else() {
    let mut metrics = metrics();
    let slot = metrics.slot("web", 0);
    slot.started(1, 100, 1, at(10));
    slot.state(SlotState::Ready, Some(1));
    slot.channel_up(1, true);
    slot.send_queue(1, 77);
    slot.health(1, &served(500), at(11));
    assert_eq!(of_slot(&metrics, "channel_up", ""), 1.0);
    assert_eq!(of_slot(&metrics, "worker_loop_lag_seconds", ""), 0.0015);
    slot.exited(1, ExitReason::ScaleDown);
    slot.state(SlotState::Empty, None);
    for gauge in [
        "channel_up",
        "channel_send_queue_bytes",
        "channel_last_heartbeat_timestamp_seconds",
        "worker_up",
        "worker_pid",
        "worker_generation",
        "worker_start_time_seconds",
        "worker_loop_lag_seconds",
        "worker_resident_memory_bytes",
        "http_requests_in_flight",
        "http_connections_active",
    ] {
        assert_eq!(of_slot(&metrics, gauge, ""), 0.0, "{gauge}");
    }
    assert_eq!(of_slot(&metrics, "worker_state", ",state=\"empty\""), 1.0);
    assert_eq!(of_slot(&metrics, "worker_state", ",state=\"ready\""), 0.0);
    assert_eq!(metrics.slot("web", 0).requests(), Some(500));
}

#[test]
fn channel_totals_grow_by_what_each_channel_adds() {
    let mut metrics = metrics();
    let slot = metrics.slot("web", 0);
    let counted = |bytes, pings| {
        let mut counters = Counters {
            sent_bytes: bytes,
            fds_sent: 1,
            sent: vec![0; ToWorker::KINDS.len()],
            received: vec![0; ToSupervisor::KINDS.len() + 1],
            ..Counters::default()
        };
        let ping = ToWorker::KINDS.iter().position(|kind| *kind == "ping");
        counters.sent[ping.unwrap()] = pings;
        counters.received[ToSupervisor::KINDS.len()] = 1;
        counters
    };
    slot.started(1, 100, 1, at(10));
    slot.state(SlotState::Ready, Some(1));
    slot.channel_up(1, true);
    slot.channel_counters(1, &counted(100, 5));
    slot.channel_counters(1, &counted(150, 8));
    slot.started(2, 101, 1, at(11));
    slot.channel_counters(2, &counted(40, 2));
    slot.channel_counters(1, &counted(160, 8));
    slot.exited(1, ExitReason::MaxAge);
    slot.decode_error("not_json");
    slot.decode_error("a reason of its own");
    slot.send_error("queue_full");
    slot.heartbeat_missed();
    slot.round_trip(Duration::from_micros(60));
    slot.health(2, &served(1), at(20));
    slot.send_queue(2, 12);
    slot.state(SlotState::Ready, Some(2));

    assert_eq!(of_slot(&metrics, "channel_sent_bytes_total", ""), 200.0);
    assert_eq!(
        of_pool(&metrics, "channel_messages_sent_total", ",kind=\"ping\""),
        10.0
    );
    assert_eq!(
        of_pool(
            &metrics,
            "channel_messages_received_total",
            ",kind=\"unknown\""
        ),
        2.0
    );
    assert_eq!(
        of_pool(&metrics, "channel_decode_errors_total", ",reason=\"other\""),
        1.0
    );
    let round_trips = |bound| of_slot(&metrics, "channel_round_trip_seconds_bucket", bound);
    assert_eq!(round_trips(",le=\"0.00005\""), 0.0);
    assert_eq!(round_trips(",le=\"0.0001\""), 1.0);

    let status = slot.channel_status();
    assert!(!status.up, "the successor has not shaken hands");
    assert_eq!((status.pool.as_str(), status.slot), ("web", 0));
    assert_eq!((status.messages_sent, status.messages_received), (10, 2));
    assert_eq!(
        (status.sent_bytes, status.fds_sent, status.send_queue_bytes),
        (200, 2, 12)
    );
    assert_eq!((status.decode_errors, status.send_errors), (2, 1));
    assert_eq!(status.heartbeats_missed, 1);
    assert_eq!(status.round_trip_seconds, Some(0.000_06));
    assert_eq!(status.last_heartbeat_at, Some(20.0));
}

#[test]
fn a_slot_shows_its_wait_until_it_does_something_else() {
    let mut metrics = metrics();
    let slot = metrics.slot("web", 0);
    slot.state(SlotState::Backoff, None);
    slot.backoff(Duration::from_millis(400));
    assert_eq!(of_slot(&metrics, "worker_restart_backoff_seconds", ""), 0.4);
    slot.state(SlotState::Starting, None);
    assert_eq!(of_slot(&metrics, "worker_restart_backoff_seconds", ""), 0.0);
}

#[test]
fn a_reload_that_fails_leaves_the_time_of_the_last_good_one() {
    let metrics = metrics();
    metrics.supervisor().reloaded(true, at(1_780_000_000));
    metrics.supervisor().reloaded(false, at(1_790_000_000));
    let samples = samples(&metrics);
    assert_eq!(samples["prefork_config_reloads_total"], 2.0);
    assert_eq!(samples["prefork_config_reload_failures_total"], 1.0);
    assert_eq!(samples["prefork_config_last_reload_successful"], 0.0);
    let stamp = "prefork_config_last_reload_success_timestamp_seconds";
    assert_eq!(samples[stamp], 1.78e9);
}

#[test]
fn the_exposition_is_as_promtool_wants_it() {
    let mut metrics = metrics();
    metrics.slot("web", 0).started(1, 100, 1, at(10));
    metrics.slot("web", 1).round_trip(Duration::from_millis(1));
    metrics.pool("web").booted(Duration::from_millis(20));
    metrics.supervisor().loop_lag(Duration::from_micros(3));
    metrics.supervisor().command("tell");
    metrics.supervisor().command_failed("tell");
    let listener = metrics.listener("unix:a\"b", "web", "unix:/run/a\"b", "shared");
    listener.backlog(Some(3), 4096);
    listener.certificates([("a.example".to_owned(), 1)].into());
    for detail in [Detail::Slot, Detail::Pool] {
        metrics.set_detail(detail);
        promtool_is_silent_on(&metrics.encode());
    }
}

fn promtool_is_silent_on(exposition: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("SKIPPED: promtool is not installed");
        return;
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(exposition.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&said), "");
    assert!(output.status.success());
}

/// What a slot goes through; numbers are what the worker claims.
#[derive(Debug, Clone)]
enum Step {
    Report(u64),
    Successor,
    Exit,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![0..1000_u64, Just(u64::MAX), any::<u64>()].prop_map(Step::Report),
        1 => Just(Step::Successor),
        1 => Just(Step::Exit),
    ]
}

proptest! {
    // Each step makes two expositions.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn totals_never_go_backwards_whatever_workers_report(
        steps in prop::collection::vec((step(), any::<bool>()), 1..60)
    ) {
        let mut metrics = metrics();
        let slot = metrics.slot("web", 0);
        let neighbour = metrics.slot("web", 1);
        neighbour.started(1, 99, 1, at(1));
        neighbour.health(1, &served(7), at(1));
        let mut live: Vec<u64> = Vec::new();
        let mut born = 0;
        let mut before: BTreeMap<String, f64> = BTreeMap::new();
        for (step, newest) in steps {
            let chosen = if newest { live.last() } else { live.first() }.copied();
            match (step, chosen) {
                (Step::Report(claim), Some(incarnation)) => {
                    let http = HttpCounts {
                        requests: [claim; 5],
                        accepted: claim,
                        duration_buckets: [claim; 15],
                        duration_sum_us: claim,
                        tls_failures: [claim; 5],
                        ..HttpCounts::default()
                    };
                    let health = Health { http: Some(Box::new(http)), ..Health::default() };
                    slot.health(incarnation, &health, at(1));
                }
                (Step::Exit, Some(incarnation)) => {
                    slot.exited(incarnation, ExitReason::Crash);
                    live.retain(|known| *known != incarnation);
                }
                _ => {
                    born += 1;
                    slot.started(born, 100, 1, at(1));
                    live.push(born);
                }
            }
            let mut now = samples(&metrics);
            metrics.set_detail(Detail::Pool);
            now.append(&mut samples(&metrics));
            metrics.set_detail(Detail::Slot);
            for (series, value) in &before {
                if series.contains("_total") || series.contains("_bucket") {
                    prop_assert!(now[series] >= *value, "{series} was {value}");
                }
            }
            before = now;
        }
    }
}
