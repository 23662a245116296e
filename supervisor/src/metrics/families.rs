//! How a slot's numbers are exported: a row per family. In the rows, `n` are the
//! slot's numbers, `p` is one of its live processes and `l` are the label values.

use prefork_proto::control::{ExitReason, SlotState};
use prefork_proto::message::DURATION_BOUNDS;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

use super::Labels;
use super::distribution::Distribution;
use super::slot::{Numbers, SlotMetrics};
use Value::{Gauge, Histogram, Seconds, State, Total, Totals};

/// A family by `pool` and `slot`.
struct Family {
    name: &'static str,
    help: &'static str,
    value: Value,
}

/// Where a family's samples come from.
enum Value {
    /// One number that only grows.
    Total(fn(&Numbers) -> u64),
    /// One such number with a fraction.
    Seconds(fn(&Numbers) -> f64),
    /// One number that goes up and down.
    Gauge(fn(&Numbers) -> f64),
    /// A total for each value of one more label.
    Totals {
        label: &'static str,
        values: fn(&Labels) -> Vec<&'static str>,
        numbers: fn(&Numbers) -> Vec<u64>,
    },
    /// 1 for the state that the slot is in, 0 for the others.
    State,
    /// A histogram.
    Histogram(fn(&Numbers) -> Distribution),
}

const CODE_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const FAMILIES: &[Family] = &[
    family(
        "prefork_channel_up",
        "Whether the channel to the worker is open and past its handshake.",
        Gauge(|n| flag(n.current().is_some_and(|p| p.channel_up))),
    ),
    family(
        "prefork_channel_messages_sent_total",
        "Messages sent to the slot's workers, by type.",
        Totals {
            label: "kind",
            values: |l| l.sent_kinds.clone(),
            numbers: |n| n.channel.sent.clone(),
        },
    ),
    family(
        "prefork_channel_messages_received_total",
        "Messages received from the slot's workers, by type.",
        Totals {
            label: "kind",
            values: |l| l.received_kinds.clone(),
            numbers: |n| n.channel.received.clone(),
        },
    ),
    family(
        "prefork_channel_sent_bytes_total",
        "Bytes sent to the slot's workers.",
        Total(|n| n.channel.sent_bytes),
    ),
    family(
        "prefork_channel_received_bytes_total",
        "Bytes received from the slot's workers.",
        Total(|n| n.channel.received_bytes),
    ),
    family(
        "prefork_channel_fds_sent_total",
        "Descriptors sent to the slot's workers.",
        Total(|n| n.channel.fds_sent),
    ),
    family(
        "prefork_channel_fds_received_total",
        "Descriptors received with a message that carries one.",
        Total(|n| n.channel.fds_received),
    ),
    family(
        "prefork_channel_fds_rejected_total",
        "Descriptors received that no message claimed, and closed.",
        Total(|n| n.channel.fds_rejected),
    ),
    family(
        "prefork_channel_decode_errors_total",
        "What workers sent that could not be understood or broke a rule of the protocol.",
        Totals {
            label: "reason",
            values: |l| l.decode_reasons.clone(),
            numbers: |n| n.decode_errors.clone(),
        },
    ),
    family(
        "prefork_channel_send_errors_total",
        "Messages that could not be sent.",
        Totals {
            label: "reason",
            values: |l| l.send_reasons.clone(),
            numbers: |n| n.send_errors.clone(),
        },
    ),
    family(
        "prefork_channel_round_trip_seconds",
        "Time from a ping to its reply.",
        Histogram(|n| n.round_trips.clone()),
    ),
    family(
        "prefork_channel_send_queue_bytes",
        "Bytes that wait to be sent to the slot's workers.",
        Gauge(|n| n.sum(|p| p.send_queue_bytes) as f64),
    ),
    family(
        "prefork_channel_last_heartbeat_timestamp_seconds",
        "When the last health report came, in seconds since the epoch; 0 without one.",
        Gauge(|n| n.newest(|p| p.last_heartbeat)),
    ),
    family(
        "prefork_channel_heartbeats_missed_total",
        "Health reports that did not come in time.",
        Total(|n| n.heartbeats_missed),
    ),
    family(
        "prefork_worker_state",
        "What the slot is doing: 1 for its state, 0 for the others.",
        State,
    ),
    family(
        "prefork_worker_up",
        "Whether a process runs in the slot.",
        Gauge(|n| flag(n.is_up())),
    ),
    family(
        "prefork_worker_pid",
        "The process id of the slot's worker; 0 without one.",
        Gauge(|n| n.current().map_or(0.0, |p| f64::from(p.pid))),
    ),
    family(
        "prefork_worker_generation",
        "The generation of the slot's worker; 0 without one.",
        Gauge(|n| n.current().map_or(0.0, |p| p.generation as f64)),
    ),
    family(
        "prefork_worker_start_time_seconds",
        "When the slot's worker started, in seconds since the epoch; 0 without one.",
        Gauge(|n| n.current().map_or(0.0, |p| p.started_at)),
    ),
    family(
        "prefork_worker_starts_total",
        "Processes started in the slot.",
        Total(|n| n.starts),
    ),
    family(
        "prefork_worker_exits_total",
        "Processes of the slot that have gone, by who or what caused it.",
        Totals {
            label: "reason",
            values: |_| ExitReason::ALL.map(ExitReason::as_str).to_vec(),
            numbers: |n| n.exits.clone(),
        },
    ),
    family(
        "prefork_worker_restart_backoff_seconds",
        "How long the slot waits before its next start; 0 when it does not.",
        Gauge(|n| n.backoff),
    ),
    family(
        "prefork_worker_resident_memory_bytes",
        "Resident memory of the slot's processes.",
        Gauge(|n| n.sum(|p| p.usage.resident_bytes) as f64),
    ),
    family(
        "prefork_worker_cpu_seconds_total",
        "Processor time of the slot's processes, in user and kernel mode.",
        Seconds(Numbers::cpu_seconds),
    ),
    family(
        "prefork_worker_open_fds",
        "Descriptors that the slot's processes have open.",
        Gauge(|n| n.sum(|p| p.usage.open_fds) as f64),
    ),
    family(
        "prefork_worker_loop_lag_seconds",
        "How late the loop that serves was when it came to its last report.",
        Gauge(|n| n.newest(|p| p.loop_lag)),
    ),
    family(
        "prefork_worker_counters_held_total",
        "Totals in workers' reports that were lower than before, so that the old value was kept.",
        Total(|n| n.counters_held),
    ),
    family(
        "prefork_http_requests_total",
        "Responses, by the class of their status code.",
        Totals {
            label: "code_class",
            values: |_| CODE_CLASSES.to_vec(),
            numbers: |n| n.http().requests.to_vec(),
        },
    ),
    family(
        "prefork_http_requests_in_flight",
        "Requests whose response has not been written yet.",
        Gauge(|n| n.sum(|p| p.in_flight) as f64),
    ),
    family(
        "prefork_http_request_duration_seconds",
        "Time from a request's head until its response was written.",
        Histogram(http_durations),
    ),
    family(
        "prefork_http_connections_accepted_total",
        "Connections accepted.",
        Total(|n| n.http().accepted),
    ),
    family(
        "prefork_http_connections_active",
        "Open connections.",
        Gauge(|n| n.sum(|p| p.connections) as f64),
    ),
    family(
        "prefork_http_received_bytes_total",
        "Bytes read from clients.",
        Total(|n| n.http().received_bytes),
    ),
    family(
        "prefork_http_sent_bytes_total",
        "Bytes written to clients.",
        Total(|n| n.http().sent_bytes),
    ),
];

const fn family(name: &'static str, help: &'static str, value: Value) -> Family {
    Family { name, help, value }
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

fn http_durations(numbers: &Numbers) -> Distribution {
    let http = numbers.http();
    let sum = http.duration_sum_us as f64 / 1e6;
    Distribution::of(&DURATION_BOUNDS, &http.duration_buckets, sum)
}

/// Every family with a sample of each slot, made one after the other as they
/// are asked for. Without slots there are no families.
pub(super) fn collect(slots: &[&SlotMetrics]) -> impl Iterator<Item = MetricFamily> {
    let families = if slots.is_empty() { &[] } else { FAMILIES };
    families.iter().map(|family| {
        let mut exported = MetricFamily::default();
        exported.set_name(family.name.to_owned());
        exported.set_help(family.help.to_owned());
        exported.set_field_type(family.value.metric_type());
        let samples = slots.iter().flat_map(|slot| family.value.samples(slot));
        exported.set_metric(samples.collect());
        exported
    })
}

impl Value {
    fn metric_type(&self) -> MetricType {
        match self {
            Total(_) | Seconds(_) | Totals { .. } => MetricType::COUNTER,
            Gauge(_) | State => MetricType::GAUGE,
            Histogram(_) => MetricType::HISTOGRAM,
        }
    }

    fn samples(&self, slot: &SlotMetrics) -> Vec<Metric> {
        let numbers = &*slot.numbers();
        let plain = || Metric::from_label(labels(slot, None));
        match self {
            Total(read) => vec![counter(plain(), read(numbers) as f64)],
            Seconds(read) => vec![counter(plain(), read(numbers))],
            Gauge(read) => vec![gauge(plain(), read(numbers))],
            Totals {
                label,
                values,
                numbers: read,
            } => values(&slot.labels)
                .into_iter()
                .zip(read(numbers))
                .map(|(value, number)| {
                    let labels = labels(slot, Some((label, value)));
                    counter(Metric::from_label(labels), number as f64)
                })
                .collect(),
            State => SlotState::ALL
                .into_iter()
                .map(|state| {
                    let labels = labels(slot, Some(("state", state.as_str())));
                    gauge(Metric::from_label(labels), flag(state == numbers.state))
                })
                .collect(),
            Histogram(read) => {
                let mut metric = plain();
                metric.set_histogram(read(numbers).to_proto());
                vec![metric]
            }
        }
    }
}

fn labels(slot: &SlotMetrics, more: Option<(&str, &str)>) -> Vec<LabelPair> {
    let pair = |name: &str, value: String| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    let mut pairs = vec![
        pair("pool", slot.pool.clone()),
        pair("slot", slot.slot.to_string()),
    ];
    pairs.extend(more.map(|(name, value)| pair(name, value.to_owned())));
    pairs
}

fn counter(mut metric: Metric, value: f64) -> Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

fn gauge(mut metric: Metric, value: f64) -> Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}
