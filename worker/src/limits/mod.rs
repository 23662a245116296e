//! What a client is held to.

pub(crate) mod concurrency;
pub(crate) mod min_rate;

use std::time::Duration;

use prefork_proto::message::{ClientHeader, HttpLimits};
use prefork_proto::network::Network;

use crate::limits::min_rate::Least;

/// Limits and deadlines of a worker's HTTP. These are the application's own;
/// what the operator writes in `[pool.NAME.http]` stands above them.
///
/// A deadline is looked at now and then, so it passes with up to half as much
/// again as it says.
///
/// ```
/// use std::time::Duration;
///
/// let worker = prefork_worker::Worker::new("shop", "1.0.0").limits(|limits| {
///     limits.max_body_size = Some(1 << 20);
///     limits.request_timeout = Some(Duration::from_secs(5));
///     limits.max_concurrency = Some(64);
/// });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a request's line and headers together; 32 KiB. A request with
    /// more is answered with 431. HTTP/2 measures as RFC 9113, 6.5.2, does.
    pub max_header_size: usize,
    /// Headers of a request; 100. A request with more is answered with 431.
    pub max_headers: usize,
    /// Bytes of the target in a request's line; 8 KiB. A request with more is
    /// answered with 414.
    pub max_uri_size: usize,
    /// Bytes of a request's body; 16 MiB, and `None` for any number. One that
    /// announces more is answered with 413 and never seen by the application;
    /// one in chunks, whose framing is measured, too, fails as it is read, and
    /// what the application answers then is replaced by 413. On HTTP/2 the
    /// application's work on it is dropped for the 413; where its response has
    /// begun, its stream is reset.
    pub max_body_size: Option<u64>,
    /// From the first byte of a request to the end of its head; 10 s. Then it
    /// is answered with 408. An HTTP/2 connection on which nothing else is going
    /// on is ended by GOAWAY then.
    pub header_timeout: Duration,
    /// For a connection without a request; 75 s. Then it is closed.
    pub idle_timeout: Duration,
    /// From the moment a request is there, with its body or as much of it as the
    /// application takes, until its response begins; 60 s, and `None` for any time. Then the application's work on
    /// it is dropped and it is answered with 503.
    pub request_timeout: Option<Duration>,
    /// Between two parts of a request's body; 30 s, and `None` for any
    /// time. Then the request is answered with 408.
    pub body_timeout: Option<Duration>,
    /// For a client that takes nothing more of a response; 30 s, and `None`
    /// for any time. Then its connection is reset.
    pub write_timeout: Option<Duration>,
    /// Bytes a second that a body has to make in either direction; 240, and
    /// `None` for any number. It is measured over [`body_timeout`] and
    /// [`write_timeout`]: a body that makes less in such a time is late, as
    /// one that stands is.
    ///
    /// [`body_timeout`]: Self::body_timeout
    /// [`write_timeout`]: Self::write_timeout
    pub min_rate: Option<u64>,
    /// Connections that are open at a time; 10,000, and `None` for any number.
    /// No more are accepted then: they wait for the pool's other workers, or
    /// for one to close. A worker that is the last to accept takes all.
    pub max_connections: Option<usize>,
    /// Requests that the application has at a time, from their heads to the
    /// ends of their responses; `None`, any number. As long as others wait
    /// for their turn, no connection is accepted.
    pub max_concurrency: Option<usize>,
    /// Requests that wait while `max_concurrency` are served; `None`, as many as
    /// those. One more is answered with 503 and `Retry-After`.
    pub max_queue: Option<usize>,
    /// How long they wait; 1 s. Then they are answered in the same way.
    pub queue_timeout: Duration,
    /// Streams of an HTTP/2 connection that are open at a time; 128.
    pub http2_max_streams: u32,
    /// Streams of an HTTP/2 connection that its client has reset before they
    /// were served, at a time; 20. One more ends the connection.
    pub http2_max_resets: usize,
    /// Bytes that a client may send of an HTTP/2 stream without being asked
    /// for more; 1 MiB.
    pub http2_stream_window: u32,
    /// The same of a connection; 1 MiB.
    pub http2_connection_window: u32,
    /// Between two pings on an HTTP/2 connection; `None`, no pings.
    pub http2_ping_interval: Option<Duration>,
    /// For the answer to a ping; 20 s. Then the connection is closed.
    pub http2_ping_timeout: Duration,
    /// Proxies whose word is taken on who a client is ([`Peer`](crate::Peer)), and on
    /// what its request goes by (`X-Request-Id`). `None`: nobody's on the client, anybody's on the id. On
    /// a listener of the PROXY protocol, others than these are turned away.
    pub trusted_proxies: Option<Vec<Network>>,
    /// By which header they say who the client is; `X-Forwarded-For`.
    pub client_header: ClientHeader,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_header_size: 32 << 10,
            max_headers: 100,
            max_uri_size: 8 << 10,
            max_body_size: Some(16 << 20),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            request_timeout: Some(Duration::from_secs(60)),
            body_timeout: Some(Duration::from_secs(30)),
            write_timeout: Some(Duration::from_secs(30)),
            min_rate: Some(240),
            max_connections: Some(10_000),
            max_concurrency: None,
            max_queue: None,
            queue_timeout: Duration::from_secs(1),
            http2_max_streams: 128,
            http2_max_resets: 20,
            http2_stream_window: 1 << 20,
            http2_connection_window: 1 << 20,
            http2_ping_interval: None,
            http2_ping_timeout: Duration::from_secs(20),
            trusted_proxies: None,
            client_header: ClientHeader::default(),
        }
    }
}

impl Limits {
    /// With what the operator has set in the place of the application's own.
    pub(crate) fn under(&self, operator: &HttpLimits) -> Self {
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let time = Duration::from_millis;
        let some = |value: u64| (value > 0).then_some(value);
        let some_size = |value| some(value).map(size);
        let some_time = |value| some(value).map(time);
        // Taken apart in full, so that a new one does not go unnoticed.
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
        } = *operator;
        Self {
            max_header_size: max_header_size.map_or(self.max_header_size, size),
            max_headers: max_headers.map_or(self.max_headers, size),
            max_uri_size: max_uri_size.map_or(self.max_uri_size, size),
            max_body_size: max_body_size.map_or(self.max_body_size, some),
            header_timeout: header_timeout_ms.map_or(self.header_timeout, time),
            idle_timeout: idle_timeout_ms.map_or(self.idle_timeout, time),
            request_timeout: request_timeout_ms.map_or(self.request_timeout, some_time),
            body_timeout: body_timeout_ms.map_or(self.body_timeout, some_time),
            write_timeout: write_timeout_ms.map_or(self.write_timeout, some_time),
            min_rate: min_rate.map_or(self.min_rate, some),
            max_connections: max_connections.map_or(self.max_connections, some_size),
            max_concurrency: max_concurrency.map_or(self.max_concurrency, some_size),
            max_queue: max_queue.map(size).or(self.max_queue),
            queue_timeout: queue_timeout_ms.map_or(self.queue_timeout, time),
            http2_max_streams: http2_max_streams.map_or(self.http2_max_streams, narrow),
            http2_max_resets: http2_max_resets.map_or(self.http2_max_resets, size),
            http2_stream_window: http2_stream_window.map_or(self.http2_stream_window, narrow),
            http2_connection_window: http2_connection_window
                .map_or(self.http2_connection_window, narrow),
            http2_ping_interval: http2_ping_interval_ms.map_or(self.http2_ping_interval, some_time),
            http2_ping_timeout: http2_ping_timeout_ms.map_or(self.http2_ping_timeout, time),
            trusted_proxies: trusted_proxies
                .clone()
                .or_else(|| self.trusted_proxies.clone()),
            client_header: client_header.unwrap_or(self.client_header),
        }
    }

    /// What of a request's body has to come.
    pub(crate) fn uploading(&self) -> Option<Least> {
        Some(Least::of(self.min_rate, self.body_timeout?))
    }

    /// What of a response has to be taken.
    pub(crate) fn downloading(&self) -> Option<Least> {
        Some(Least::of(self.min_rate, self.write_timeout?))
    }

    /// How often to look at a connection.
    pub(crate) fn look(&self) -> Duration {
        let optional = [self.request_timeout, self.body_timeout, self.write_timeout];
        let shortest = optional
            .into_iter()
            .flatten()
            .fold(self.header_timeout.min(self.idle_timeout), Duration::min);
        (shortest / 2).max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_says_stands_above_the_application_and_nothing_is_no_limit() {
        let own = Limits {
            max_headers: 7,
            max_body_size: Some(7),
            ..Limits::default()
        };
        let operator = HttpLimits {
            max_body_size: Some(0),
            request_timeout_ms: Some(50),
            max_queue: Some(0),
            ..HttpLimits::default()
        };
        let expected = Limits {
            max_headers: 7,
            max_body_size: None,
            request_timeout: Some(Duration::from_millis(50)),
            max_queue: Some(0),
            ..Limits::default()
        };
        assert_eq!(own.under(&operator), expected);
        assert_eq!(expected.look(), Duration::from_millis(25));
    }
}
