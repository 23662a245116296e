//! How a slot's numbers are exported: a row per family. In the rows, `n` are the
//! slot's numbers, `p` is one of its live processes and `l` are the label values.

use prefork_api::ExitReason;
use prefork_proto::message::DURATION_BOUNDS;
use prefork_proto::passage::Kept;
use prefork_proto::tls::HandshakeFailure;

use super::Labels;
use super::distribution::Distribution;
use super::slot::Numbers;
use Together::{Largest, LeftOut, Oldest, Sum};
use Value::{Gauge, Histogram, Seconds, State, Total, Totals};

/// A family by `pool` and `slot`, or by `pool` alone.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) value: Value,
    /// Whether it has samples only where the workers count HTTP.
    pub(super) counted: bool,
    /// Whether the slots of a pool are always taken together.
    pub(super) by_pool: bool,
}

/// Where a family's samples come from. Everything but gauges is summed where
/// the slots of a pool are taken together.
pub(super) enum Value {
    /// One number that only grows.
    Total(fn(&Numbers) -> u64),
    /// One such number with a fraction.
    Seconds(fn(&Numbers) -> f64),
    /// One number that goes up and down.
    Gauge(fn(&Numbers) -> f64, Together),
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

/// What becomes of a gauge where the slots of a pool are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Together {
    /// The sum of the slots' values.
    Sum,
    /// The largest of them.
    Largest,
    /// The smallest of those that are not 0: of times and generations, it
    /// shows the worker that is behind the others.
    Oldest,
    /// None: together they mean nothing.
    LeftOut,
}

const CODE_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// In the order of the exposition.
pub(super) const FAMILIES: &[Family] = &[
    family(
        "prefork_channel_up",
        "Channels to workers that are open and past their handshake.",
        Gauge(|n| flag(n.current().is_some_and(|p| p.channel_up)), Sum),
    ),
    by_pool(family(
        "prefork_channel_messages_sent_total",
        "Messages sent to workers, by type.",
        Totals {
            label: "kind",
            values: |l| l.sent_kinds.clone(),
            numbers: |n| n.channel.sent.clone(),
        },
    )),
    by_pool(family(
        "prefork_channel_messages_received_total",
        "Messages received from workers, by type.",
        Totals {
            label: "kind",
            values: |l| l.received_kinds.clone(),
            numbers: |n| n.channel.received.clone(),
        },
    )),
    family(
        "prefork_channel_sent_bytes_total",
        "Bytes sent to workers.",
        Total(|n| n.channel.sent_bytes),
    ),
    family(
        "prefork_channel_received_bytes_total",
        "Bytes received from workers.",
        Total(|n| n.channel.received_bytes),
    ),
    family(
        "prefork_channel_fds_sent_total",
        "Descriptors sent to workers.",
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
    by_pool(family(
        "prefork_channel_decode_errors_total",
        "What workers sent that could not be understood or broke a rule of the protocol.",
        Totals {
            label: "reason",
            values: |l| l.decode_reasons.clone(),
            numbers: |n| n.decode_errors.clone(),
        },
    )),
    by_pool(family(
        "prefork_channel_send_errors_total",
        "Messages that could not be sent.",
        Totals {
            label: "reason",
            values: |l| l.send_reasons.clone(),
            numbers: |n| n.send_errors.clone(),
        },
    )),
    family(
        "prefork_channel_round_trip_seconds",
        "Time from a ping to its reply.",
        Histogram(|n| n.round_trips.clone()),
    ),
    family(
        "prefork_channel_send_queue_bytes",
        "Bytes that wait to be sent to workers.",
        Gauge(|n| n.sum(|p| p.send_queue_bytes) as f64, Sum),
    ),
    family(
        "prefork_channel_last_heartbeat_timestamp_seconds",
        "When the last health report came, in seconds since the epoch; 0 without one.",
        Gauge(|n| n.newest(|p| p.last_heartbeat), Oldest),
    ),
    family(
        "prefork_channel_heartbeats_missed_total",
        "Health reports that did not come in time.",
        Total(|n| n.heartbeats_missed),
    ),
    family(
        "prefork_worker_state",
        "Slots that are in this state.",
        State,
    ),
    family(
        "prefork_worker_up",
        "Slots in which a process runs.",
        Gauge(|n| flag(n.is_up()), Sum),
    ),
    family(
        "prefork_worker_pid",
        "The process id of the worker; 0 without one.",
        Gauge(|n| n.current().map_or(0.0, |p| f64::from(p.pid)), LeftOut),
    ),
    family(
        "prefork_worker_generation",
        "The generation of the worker; 0 without one.",
        Gauge(|n| n.current().map_or(0.0, |p| p.generation as f64), Oldest),
    ),
    family(
        "prefork_worker_start_time_seconds",
        "When the worker started, in seconds since the epoch; 0 without one.",
        Gauge(|n| n.current().map_or(0.0, |p| p.started_at), Oldest),
    ),
    family(
        "prefork_worker_starts_total",
        "Worker processes started.",
        Total(|n| n.starts),
    ),
    family(
        "prefork_worker_exits_total",
        "Worker processes that have gone, by who or what caused it.",
        Totals {
            label: "reason",
            values: |_| ExitReason::ALL.map(ExitReason::as_str).to_vec(),
            numbers: |n| n.exits.clone(),
        },
    ),
    family(
        "prefork_worker_restart_backoff_seconds",
        "How long a slot waits before its next start; 0 when it does not.",
        Gauge(|n| n.backoff, Largest),
    ),
    family(
        "prefork_worker_resident_memory_bytes",
        "Resident memory of worker processes.",
        Gauge(|n| n.sum(|p| p.usage.resident_bytes) as f64, Sum),
    ),
    family(
        "prefork_worker_cpu_seconds_total",
        "Processor time of worker processes, in user and kernel mode.",
        Seconds(Numbers::cpu_seconds),
    ),
    family(
        "prefork_worker_starved_seconds_total",
        "Time in which a worker that was silent waited for a processor; not counted as silence.",
        Seconds(|n| n.starved.as_secs_f64()),
    ),
    family(
        "prefork_worker_open_fds",
        "Descriptors that worker processes have open.",
        Gauge(|n| n.sum(|p| p.usage.open_fds) as f64, Sum),
    ),
    family(
        "prefork_worker_loop_lag_seconds",
        "How late the loop that serves was when it came to its last report.",
        Gauge(|n| n.newest(|p| p.loop_lag), Largest),
    ),
    family(
        "prefork_worker_counters_held_total",
        "Totals of workers that were lower than before, so that the old value was kept.",
        Total(|n| n.counters_held),
    ),
    family(
        "prefork_access_log_dropped_lines_total",
        "Lines of the access log that workers could not write.",
        Total(|n| n.access_log_dropped),
    ),
    family(
        "prefork_worker_output_dropped_bytes_total",
        "What workers printed that is not logged: beyond 1 MiB a second of a stream and 8 MiB at once, and beyond 16 KiB of a line.",
        Total(|n| n.output_dropped),
    ),
    counted(
        "prefork_http_requests_total",
        "Responses, by the class of their status code, those to what was no request included.",
        Totals {
            label: "code_class",
            values: |_| CODE_CLASSES.to_vec(),
            numbers: |n| n.http().requests.to_vec(),
        },
    ),
    family(
        "prefork_http_requests_in_flight",
        "Requests whose response has not been written yet.",
        Gauge(|n| n.sum(|p| p.in_flight) as f64, Sum),
    ),
    counted(
        "prefork_http_request_duration_seconds",
        "Time from a request's head until its response was written; none for what was no request.",
        Histogram(http_durations),
    ),
    counted(
        "prefork_http_handler_panics_total",
        "Requests whose handler panicked.",
        Total(|n| n.http().panics),
    ),
    by_pool(counted(
        "prefork_tls_handshake_failures_total",
        "TLS handshakes that came to nothing, by what was the reason.",
        Totals {
            label: "reason",
            values: |_| HandshakeFailure::ALL.map(HandshakeFailure::as_str).to_vec(),
            numbers: |n| n.http().tls_failures.to_vec(),
        },
    )),
    by_pool(counted(
        "prefork_connections_passed_total",
        "Open connections that workers have handed on to others, by why.",
        Totals {
            label: "reason",
            values: |_| vec!["drain"],
            numbers: |n| vec![n.passed_on],
        },
    )),
    by_pool(counted(
        "prefork_connections_lost_total",
        "Idle connections that were closed with their workers, by why no other could take them.",
        Totals {
            label: "reason",
            values: |_| Kept::ALL.map(Kept::as_str).to_vec(),
            numbers: |n| n.not_passed_on.to_vec(),
        },
    )),
    counted(
        "prefork_http_connections_accepted_total",
        "Connections accepted.",
        Total(|n| n.http().accepted),
    ),
    family(
        "prefork_http_connections_active",
        "Open connections.",
        Gauge(|n| n.sum(|p| p.connections) as f64, Sum),
    ),
    counted(
        "prefork_http_received_bytes_total",
        "Bytes read from clients.",
        Total(|n| n.http().received_bytes),
    ),
    counted(
        "prefork_http_sent_bytes_total",
        "Bytes written to clients.",
        Total(|n| n.http().sent_bytes),
    ),
];

const fn family(name: &'static str, help: &'static str, value: Value) -> Family {
    Family {
        name,
        help,
        value,
        counted: false,
        by_pool: false,
    }
}

/// One that has so many label values that a series of each for each slot would be most of
/// the exposition.
const fn by_pool(family: Family) -> Family {
    Family {
        by_pool: true,
        ..family
    }
}

/// One of what workers count of HTTP, where they do.
const fn counted(name: &'static str, help: &'static str, value: Value) -> Family {
    Family {
        counted: true,
        ..family(name, help, value)
    }
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

fn http_durations(numbers: &Numbers) -> Distribution {
    let http = numbers.http();
    let sum = http.duration_sum_us as f64 / 1e6;
    Distribution::of(&DURATION_BOUNDS, &http.duration_buckets, sum)
}
