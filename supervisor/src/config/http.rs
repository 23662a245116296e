//! `[pool.NAME.http]`: what the workers hold their clients to. A key that is
//! absent leaves the choice to the program.

use std::ops::RangeInclusive;
use std::time::Duration;

use prefork_proto::message::{ClientHeader, HttpLimits};
use prefork_proto::network::Network;
use toml::de::DeValue;

use super::error::Fault;
use super::section::{Section, Setting, duration, integer, string, within};
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
    let trusted_proxies = proxies(&mut http);
    let client_header = client_header(&mut http, trusted_proxies.is_some());
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
        trusted_proxies,
        client_header,
    };
    http.finish();
    limits
}

/// Whose word is taken on who a client is.
fn proxies(http: &mut Section<'_>) -> Option<Vec<Network>> {
    let what = "an array such as [\"10.0.0.0/8\"]";
    let list = http.list("trusted_proxies", what, |element| {
        network(element.get_ref())
    })?;
    Some(list.value.into_iter().map(|it| it.value).collect())
}

fn network(value: &DeValue<'_>) -> Result<Network, Fault> {
    let text = string(value, "a network such as \"10.0.0.0/8\"")?;
    text.parse().map_err(|why| {
        let fault = Fault::new(format!("\"{}\" {why}", text.escape_debug()));
        fault.help("write an address, a network as in \"10.0.0.0/8\", or \"unix\"")
    })
}

/// By which header they say it.
fn client_header(http: &mut Section<'_>, has_proxies: bool) -> Option<ClientHeader> {
    const HEADERS: &str = "\"x-forwarded-for\" or \"forwarded\"";
    let read = |value: &DeValue<'_>| match string(value, HEADERS)? {
        "x-forwarded-for" => Ok(ClientHeader::XForwardedFor),
        "forwarded" => Ok(ClientHeader::Forwarded),
        other => Err(Fault::new(format!(
            "expected {HEADERS}, found \"{}\"",
            other.escape_debug()
        ))),
    };
    let header: Setting<Option<ClientHeader>> = http.take("client_header", read);
    if header.value.is_some() && !has_proxies {
        let fault = Fault::new("`client_header` needs `trusted_proxies`");
        let help = "say whose header is believed: trusted_proxies = [\"10.0.0.0/8\"]";
        http.fault(header.span, fault.of_key("client_header").help(help));
    }
    header.value
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
        ref trusted_proxies,
        client_header,
    } = *limits;
    let proxies = trusted_proxies.as_ref().map(|it| show_proxies(it));
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
        (
            "http.trusted_proxies",
            proxies.unwrap_or_else(|| "default".to_owned()),
        ),
        ("http.client_header", show_header(client_header).to_owned()),
    ]
}

fn show_proxies(networks: &[Network]) -> String {
    match networks {
        [] => "none".to_owned(),
        some => some
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" "),
    }
}

fn show_header(header: Option<ClientHeader>) -> &'static str {
    match header {
        None => "default",
        Some(ClientHeader::XForwardedFor) => "x-forwarded-for",
        Some(ClientHeader::Forwarded) => "forwarded",
    }
}
