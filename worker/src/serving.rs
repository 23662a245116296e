//! The state that everything in a serving process shares: its counts, the open
//! connections and the drain.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prefork_proto::scoreboard::Tally;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::arrivals::Epolls;
use crate::patience::Patience;

/// One per process, alive as long as it. Connections hold it by plain
/// reference, so that a request costs no reference count.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) tally: Tally,
    pub(crate) drain: Drain,
    pub(crate) patience: Patience,
    pub(crate) epolls: Epolls,
    connections: Mutex<Connections>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, RawFd>,
}

impl Serving {
    /// Makes the process's one, which counts in `tally`.
    pub(crate) fn new(tally: Tally, patience: Patience) -> &'static Self {
        Box::leak(Box::new(Self {
            tally,
            drain: Drain::default(),
            patience,
            epolls: Epolls::find(),
            connections: Mutex::default(),
            emptied: Notify::new(),
        }))
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        // A panic while it was held can't have left the map half changed.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an accepted connection. The entry must be dropped before the
    /// descriptor is closed.
    pub(crate) fn admit(&'static self, fd: RawFd) -> Entry {
        self.tally.accepted();
        let mut connections = self.connections();
        let key = connections.next;
        connections.next += 1;
        connections.open.insert(key, fd);
        self.tally.connections(connections.open.len() as u64);
        Entry { serving: self, key }
    }

    /// Open connections, upgraded ones included.
    pub(crate) fn open(&self) -> u64 {
        self.connections().open.len() as u64
    }

    /// Waits until no connection is open.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Does `act` to every open connection's descriptor. The lock is held
    /// meanwhile, so none is closed and its number used again under its hands.
    pub(crate) fn for_each_open(&self, mut act: impl FnMut(RawFd)) {
        for fd in self.connections().open.values() {
            act(*fd);
        }
    }
}

/// An open connection's place among the others; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    serving: &'static Serving,
    key: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut connections = self.serving.connections();
        connections.open.remove(&self.key);
        // With the lock held, as in `admit`: whoever comes last knows best.
        let open = connections.open.len() as u64;
        self.serving.tally.connections(open);
        if connections.open.is_empty() {
            self.serving.emptied.notify_waiters();
        }
    }
}

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
    /// Begins it; what is said again changes nothing.
    pub(crate) fn begin(&self, idle_grace: Duration) {
        let since = Instant::now();
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
