//! The drain: whether the process is on its way out, since when and by which terms.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Whether the process drains, and since when.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    on: AtomicBool,
    begun: Notify,
    terms: OnceLock<Terms>,
}

/// What a drain that has begun allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// When it began.
    pub(crate) since: Instant,
    /// How long an idle connection stays open.
    pub(crate) idle_grace: Duration,
}

impl Drain {
    /// Begins it at this time; what is said again changes nothing.
    pub(crate) fn begin(&self, since: Instant, idle_grace: Duration) {
        if self.terms.set(Terms { since, idle_grace }).is_ok() {
            self.on.store(true, Relaxed);
            self.begun.notify_waiters();
        }
    }

    /// Whether it has begun. For the request path: one relaxed load.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Its terms, once it has begun.
    pub(crate) fn terms(&self) -> Option<Terms> {
        self.terms.get().copied()
    }

    /// Waits until it begins.
    pub(crate) async fn begun(&self) -> Terms {
        loop {
            let begun = self.begun.notified();
            if let Some(terms) = self.terms.get() {
                return *terms;
            }
            begun.await;
        }
    }
}
