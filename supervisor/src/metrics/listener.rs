//! What is known of a listening socket.

use std::cell::RefCell;
use std::collections::BTreeMap;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use super::supervisor::registered;
use crate::kernel::procfs::ListenDrops;

/// What all listeners of the host have turned away.
#[derive(Debug)]
pub(super) struct HostMetrics {
    overflows: IntCounter,
    drops: IntCounter,
}

impl HostMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name, help| registered(registry, IntCounter::new(name, help));
        Self {
            overflows: counter(
                "prefork_host_listen_overflows_total",
                "Connections that TCP listeners of this host, of all programs, turned away because their queue was full.",
            ),
            drops: counter(
                "prefork_host_listen_drops_total",
                "Connections that TCP listeners of this host, of all programs, turned away for any reason.",
            ),
        }
    }

    /// Takes the host's totals.
    pub(super) fn record(&self, now: ListenDrops) {
        for (counter, now) in [(&self.overflows, now.overflows), (&self.drops, now.drops)] {
            counter.inc_by(now.saturating_sub(counter.get()));
        }
    }
}

/// The families by `listener`.
#[derive(Debug)]
pub(super) struct ListenerFamilies {
    info: IntGaugeVec,
    backlog: IntGaugeVec,
    limit: IntGaugeVec,
    expiry: IntGaugeVec,
}

/// One listener's metrics.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// Its name, pool, address and mode.
    info: [String; 4],
    /// The family, since the kernel may not tell how many wait.
    backlog: IntGaugeVec,
    limit: IntGauge,
    expiry: IntGaugeVec,
    /// Until when each of its certificates is valid, as it is exported.
    certificates: RefCell<BTreeMap<String, i64>>,
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
            expiry: gauges(
                "prefork_listener_certificate_expiry_timestamp_seconds",
                "Until when the certificate for this name is valid, in seconds since the epoch.",
                &["listener", "name"],
            ),
        }
    }

    /// `info` is the listener's name, pool, address and mode.
    pub(super) fn listener(&self, info: [&str; 4]) -> ListenerMetrics {
        let [name, ..] = info;
        self.info.with_label_values(&info).set(1);
        ListenerMetrics {
            info: info.map(str::to_owned),
            backlog: self.backlog.clone(),
            limit: self.limit.with_label_values(&[name]),
            expiry: self.expiry.clone(),
            certificates: RefCell::default(),
        }
    }

    pub(super) fn remove(&self, listener: &ListenerMetrics) {
        let known = "a listener's series are there until they are removed";
        let info = listener.info.each_ref().map(String::as_str);
        let name = &info[..1];
        self.info.remove_label_values(&info).expect(known);
        // Absent where the kernel did not tell.
        let _ = self.backlog.remove_label_values(name);
        self.limit.remove_label_values(name).expect(known);
        listener.certificates(BTreeMap::new());
    }
}

impl ListenerMetrics {
    pub(super) fn is_about(&self, info: [&str; 4]) -> bool {
        self.info.each_ref().map(String::as_str) == info
    }

    /// Until when the certificate for each of these names is valid, in seconds
    /// since the epoch; what is not named any more goes.
    pub fn certificates(&self, now: BTreeMap<String, i64>) {
        let mut before = self.certificates.borrow_mut();
        if *before == now {
            return;
        }
        let listener = self.info[0].as_str();
        for name in before.keys().filter(|name| !now.contains_key(*name)) {
            let labels = [listener, name.as_str()];
            let _ = self.expiry.remove_label_values(&labels);
        }
        for (name, until) in &now {
            let labels = [listener, name.as_str()];
            self.expiry.with_label_values(&labels).set(*until);
        }
        *before = now;
    }

    /// How many connections wait, if the kernel tells, and how many may.
    pub fn backlog(&self, waiting: Option<u64>, limit: u64) {
        let name = [self.info[0].as_str()];
        if let Some(waiting) = waiting {
            let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
            self.backlog.with_label_values(&name).set(waiting);
        } else {
            // It is not there where the kernel never told.
            let _ = self.backlog.remove_label_values(&name);
        }
        self.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}
