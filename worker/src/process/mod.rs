//! The state that everything in a serving process shares: its counts, the open
//! connections and the drain.

pub(crate) mod background;
pub(crate) mod drain;

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prefork_proto::request_table::Writer;
use prefork_proto::scoreboard::Tally;
use tokio::sync::Notify;

use crate::access_log::AccessLog;
use crate::idle::handoff::Handoffs;
use crate::idle::lot::Lot;
use crate::limits::Limits;
use crate::limits::concurrency::Admission;
use crate::response::read_ahead::Stock;
use crate::runtime::exclusive_epoll::Epolls;
use crate::runtime::timer::Timer;
use crate::transport::tls::Refusals;
use background::Background;
use drain::Drain;

/// One per process, alive as long as it. Connections hold it by plain
/// reference, so that a request costs no reference count.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) tally: Tally,
    /// Handshakes that failed by the certificate of a client.
    pub(crate) refusals: Refusals,
    /// Where the requests that are being served are noted, if they are.
    pub(crate) request_table: Option<Writer>,
    pub(crate) drain: Drain,
    pub(crate) timer: &'static Timer,
    pub(crate) epolls: Epolls,
    pub(crate) access_log: &'static AccessLog,
    /// Whether requests tell who they come from.
    pub(crate) tells_peer: bool,
    rules: Mutex<&'static Rules>,
    pub(crate) background: Background,
    /// What responses hold that their clients have not taken.
    pub(crate) stock: Stock,
    /// Connections that ask for nothing, and the ways on for them.
    pub(crate) lot: Lot,
    pub(crate) handoffs: Handoffs,
    connections: Mutex<Connections>,
    emptied: Notify,
    /// A connection was closed.
    left: Notify,
}

/// What clients are held to.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) limits: Limits,
    pub(crate) admission: Option<Admission>,
}

impl Rules {
    /// They stay for good: connections go on by those that they began with.
    fn of(limits: Limits) -> &'static Self {
        let admission = Admission::under(&limits);
        Box::leak(Box::new(Self { limits, admission }))
    }
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, RawFd>,
}

impl Serving {
    /// Makes the process's one, which counts in `tally` and notes its requests in the
    /// table, if there is one; to be called in its runtime.
    ///
    /// # Errors
    /// There is no descriptor for its timer or its parking lot.
    pub(crate) fn new(
        tally: Tally,
        request_table: Option<Writer>,
        limits: Limits,
        access_log: &'static AccessLog,
        tells_peer: bool,
    ) -> io::Result<&'static Self> {
        Ok(Box::leak(Box::new(Self {
            tally,
            refusals: Refusals::default(),
            request_table,
            drain: Drain::default(),
            timer: Timer::start()?,
            epolls: Epolls::find(),
            access_log,
            tells_peer,
            rules: Mutex::new(Rules::of(limits)),
            background: Background::default(),
            stock: Stock::default(),
            lot: Lot::new()?,
            handoffs: Handoffs::default(),
            connections: Mutex::default(),
            emptied: Notify::new(),
            left: Notify::new(),
        })))
    }

    /// What a client that comes now is held to.
    pub(crate) fn rules(&self) -> &'static Rules {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds clients to these from here on.
    pub(crate) fn hold_to(&self, limits: Limits) {
        if self.rules().limits != limits {
            *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Rules::of(limits);
        }
    }

    /// Whether another connection may be accepted.
    pub(crate) fn has_room(&self) -> bool {
        self.has_room_for(1)
    }

    fn has_room_for(&self, more: u64) -> bool {
        let rules = self.rules();
        let pressed = rules.admission.as_ref().is_some_and(Admission::is_pressed);
        let most = rules.limits.max_connections.unwrap_or(usize::MAX) as u64;
        !pressed && self.open().saturating_add(more) <= most
    }

    /// Waits until there is room. Where there was none, some more than one
    /// connection has to go, as beginning to accept again has its cost.
    pub(crate) async fn room(&self) {
        let mut more = 1;
        loop {
            let left = self.left.notified();
            let rules = self.rules();
            if self.has_room_for(more) {
                return;
            }
            more = rules
                .limits
                .max_connections
                .map_or(1, |most| most as u64 / 16)
                .max(1);
            match &rules.admission {
                Some(admission) if admission.is_pressed() => admission.relieved().await,
                _ => left.await,
            }
        }
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
        self.take_up(fd)
    }

    /// Notes a connection that another worker has accepted and handed on. The entry must
    /// be dropped before the descriptor is closed.
    pub(crate) fn take_up(&'static self, fd: RawFd) -> Entry {
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
        self.serving.left.notify_waiters();
        if connections.open.is_empty() {
            self.serving.emptied.notify_waiters();
        }
    }
}
