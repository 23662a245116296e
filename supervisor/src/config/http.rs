//! `[pool.NAME.http]`: what the workers hold their clients to. A key that is
//! absent leaves the choice to the program.

use std::ops::RangeInclusive;
use std::time::Duration;

use prefork_proto::message::HttpLimits;

use super::section::{Section, duration, integer, string, within};
use super::units;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// What a timeout may be that is always there; one that may be absent can be 0, too.
const SOME_TIME: RangeInclusive<Duration> = Duration::from_millis(10)..=DAY;
const ANY_TIME: RangeInclusive<Duration> = Duration::ZERO..=DAY;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// More than any process can have descriptors.
const MOST: u64 = 1 << 30;

/// The longest URI that hyper takes; longer ones are 414 whatever is said here.
const LONGEST_URI: u64 = 65_534;

/// RFC 9113, 6.9.2: a window begins with so much less one byte; hyper sets it
/// to no less.
const WINDOW: RangeInclusive<u64> = 64 * KIB..=GIB;

/// Reads the table of a pool, if it has one.
pub(super) fn read(pool: &mut Section<'_>) -> HttpLimits {
    let Some(mut http) = pool.section("http", format!("`http` of {}", pool.name)) else {
        return HttpLimits::default();
    };
    let limits = HttpLimits {
        max_header_size: size(&mut http, "max_header_size", KIB..=MIB),
        max_headers: count(&mut http, "max_headers", 1..=10_000),
        max_uri_size: size(&mut http, "max_uri_size", 64..=LONGEST_URI),
        max_body_size: size(&mut http, "max_body_size", 0..=1024 * 1024 * GIB),
        header_timeout_ms: time(&mut http, "header_timeout", SOME_TIME),
        idle_timeout_ms: time(&mut http, "idle_timeout", SOME_TIME),
        request_timeout_ms: time(&mut http, "request_timeout", ANY_TIME),
        body_timeout_ms: time(&mut http, "body_timeout", ANY_TIME),
        write_timeout_ms: time(&mut http, "write_timeout", ANY_TIME),
        min_rate: size(&mut http, "min_rate", 0..=MIB),
        max_connections: count(&mut http, "max_connections", 0..=MOST),
        max_concurrency: count(&mut http, "max_concurrency", 0..=MOST),
        max_queue: count(&mut http, "max_queue", 0..=MOST),
        queue_timeout_ms: time(&mut http, "queue_timeout", ANY_TIME),
        http2_max_streams: count(&mut http, "http2_max_streams", 1..=10_000),
        http2_max_resets: count(&mut http, "http2_max_resets", 1..=100_000),
        http2_stream_window: size(&mut http, "http2_stream_window", WINDOW),
        http2_connection_window: size(&mut http, "http2_connection_window", WINDOW),
        http2_ping_interval_ms: time(&mut http, "http2_ping_interval", ANY_TIME),
        http2_ping_timeout_ms: time(&mut http, "http2_ping_timeout", SECOND..=DAY),
    };
    http.finish();
    limits
}

fn size(http: &mut Section<'_>, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
    let read = |value| {
        let size = units::size(string(value, "a size such as \"16KiB\"")?)?;
        within(size, &range, units::show_size)
    };
    http.take(key, read).value
}

fn count(http: &mut Section<'_>, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
    http.take(key, |value| integer(value, &range)).value
}

/// In milliseconds.
fn time(http: &mut Section<'_>, key: &'static str, range: RangeInclusive<Duration>) -> Option<u64> {
    let read = |value| within(duration(value)?, &range, units::show_duration);
    let time = http.take(key, read).value?;
    u64::try_from(time.as_millis()).ok()
}

/// Every key, as it would be written; `default` where the program chooses.
pub(super) fn settings(limits: &HttpLimits) -> Vec<(&'static str, String)> {
    let shown = |value: Option<u64>, show: fn(u64) -> String| {
        value.map_or_else(|| "default".to_owned(), show)
    };
    let size = |value| shown(value, units::show_size);
    let count = |value| shown(value, |count| count.to_string());
    let time = |value| shown(value, |ms| units::show_duration(Duration::from_millis(ms)));
    // Taken apart in full, so that a new key does not go unnoticed.
    let HttpLimits {
        max_header_size,
        max_headers,
        max_uri_size,
        max_body_size,
        header_timeout_ms,
        idle_timeout_ms,
        request_timeout_ms,
        body_timeout_ms,
        write_timeout_ms,
        min_rate,
        max_connections,
        max_concurrency,
        max_queue,
        queue_timeout_ms,
        http2_max_streams,
        http2_max_resets,
        http2_stream_window,
        http2_connection_window,
        http2_ping_interval_ms,
        http2_ping_timeout_ms,
    } = *limits;
    vec![
        ("http.max_header_size", size(max_header_size)),
        ("http.max_headers", count(max_headers)),
        ("http.max_uri_size", size(max_uri_size)),
        ("http.max_body_size", size(max_body_size)),
        ("http.header_timeout", time(header_timeout_ms)),
        ("http.idle_timeout", time(idle_timeout_ms)),
        ("http.request_timeout", time(request_timeout_ms)),
        ("http.body_timeout", time(body_timeout_ms)),
        ("http.write_timeout", time(write_timeout_ms)),
        ("http.min_rate", size(min_rate)),
        ("http.max_connections", count(max_connections)),
        ("http.max_concurrency", count(max_concurrency)),
        ("http.max_queue", count(max_queue)),
        ("http.queue_timeout", time(queue_timeout_ms)),
        ("http.http2_max_streams", count(http2_max_streams)),
        ("http.http2_max_resets", count(http2_max_resets)),
        ("http.http2_stream_window", size(http2_stream_window)),
        (
            "http.http2_connection_window",
            size(http2_connection_window),
        ),
        ("http.http2_ping_interval", time(http2_ping_interval_ms)),
        ("http.http2_ping_timeout", time(http2_ping_timeout_ms)),
    ]
}
