//! What is known of a listening socket.

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

use super::supervisor::registered;

/// The families by `listener`.
#[derive(Debug)]
pub(super) struct ListenerFamilies {
    info: IntGaugeVec,
    backlog: IntGaugeVec,
    limit: IntGaugeVec,
}

/// One listener's metrics.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// Its name, pool, address and mode.
    info: [String; 4],
    backlog: IntGauge,
    limit: IntGauge,
}

impl ListenerFamilies {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        Self {
            info: gauges(
                "prefork_listener_info",
                "What the listener is bound to and whose it is; always 1.",
                &["listener", "pool", "address", "mode"],
            ),
            backlog: gauges(
                "prefork_listener_backlog_connections",
                "Connections that wait to be accepted.",
                &["listener"],
            ),
            limit: gauges(
                "prefork_listener_backlog_limit_connections",
                "Connections that may wait to be accepted.",
                &["listener"],
            ),
        }
    }

    /// `info` is the listener's name, pool, address and mode.
    pub(super) fn listener(&self, info: [&str; 4]) -> ListenerMetrics {
        let [name, ..] = info;
        self.info.with_label_values(&info).set(1);
        ListenerMetrics {
            info: info.map(str::to_owned),
            backlog: self.backlog.with_label_values(&[name]),
            limit: self.limit.with_label_values(&[name]),
        }
    }

    pub(super) fn remove(&self, listener: &ListenerMetrics) {
        let known = "a listener's series are there until they are removed";
        let info = listener.info.each_ref().map(String::as_str);
        let name = &info[..1];
        self.info.remove_label_values(&info).expect(known);
        self.backlog.remove_label_values(name).expect(known);
        self.limit.remove_label_values(name).expect(known);
    }
}

impl ListenerMetrics {
    pub(super) fn is_about(&self, info: [&str; 4]) -> bool {
        self.info.each_ref().map(String::as_str) == info
    }

    /// How many connections wait, and how many may.
    pub fn backlog(&self, waiting: u64, limit: u64) {
        self.backlog.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}
