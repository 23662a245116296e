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

    pub(super) fn listener(
        &self,
        name: &str,
        pool: &str,
        address: &str,
        mode: &str,
    ) -> ListenerMetrics {
        let info = [name, pool, address, mode];
        self.info.with_label_values(&info).set(1);
        ListenerMetrics {
            backlog: self.backlog.with_label_values(&[name]),
            limit: self.limit.with_label_values(&[name]),
        }
    }
}

impl ListenerMetrics {
    /// How many connections wait, and how many may.
    pub fn backlog(&self, waiting: u64, limit: u64) {
        self.backlog.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}
