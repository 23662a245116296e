//! What becomes of connections that wait in a listener whose workers no longer
//! accept: at the end, when a slot or a listener goes, when a slot hangs.

use std::cmp::Reverse;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::grip::{Call, Order};
use super::sockets::Sockets;
use super::{Edition, Reactor};
use crate::fleet::Worker;
use crate::listener::Listener;

/// How long a rescuer may take to empty a queue.
const RESCUE: Duration = Duration::from_secs(10);

/// The capability of a worker that serves another listener's queue.
const CAPABILITY: &str = "rescue";

impl Reactor {
    /// The supervisor stops: what waits is still served by the workers as they
    /// drain, and who comes later is refused.
    pub(super) fn seal_everything(&self) {
        for (_, sockets) in self.editions.bound() {
            for listener in sockets.all() {
                seal(&listener);
            }
        }
    }

    /// Lets go of the supervisor's own duplicates: the last worker that closes
    /// its own ends the listener.
    pub(super) fn close_everything(&self) {
        for (_, sockets) in self.editions.bound() {
            sockets.close();
        }
    }

    /// Whether there is a listener of this worker's from which nobody accepts
    /// after it; that is then sealed.
    pub(super) fn is_last_to_accept(&self, worker: Worker) -> bool {
        if self.fleet.stopping() {
            return true;
        }
        let listeners = self.started_from(worker).map(|it| it.sockets.clone());
        let mut is_last = false;
        for sockets in listeners.unwrap_or_default() {
            let slot = worker.slot;
            if self.is_wanted(&sockets, slot) || self.has_another(&sockets, slot, worker) {
                continue;
            }
            is_last = true;
            if let Some(listener) = sockets.take_from_slot(slot) {
                // The slot's own goes with it. It serves what waits itself, and
                // so does another, should it not come to that.
                seal(&listener);
                self.rescue(&self.pool_name(worker), &sockets, &listener);
            } else if !sockets.are_own() {
                sockets.all().iter().for_each(|listener| seal(listener));
            }
        }
        is_last
    }

    /// Ends the sockets that belonged to slots which no generation in force has:
    /// another pool with fewer workers has the listener now.
    pub(super) fn retire_surplus(&self) {
        for (pool, sockets) in self.editions.bound() {
            for slot in sockets.own_slots() {
                if !self.is_wanted(&sockets, slot)
                    && let Some(listener) = sockets.take_from_slot(slot)
                {
                    self.retire(&pool, &sockets, &listener);
                }
            }
        }
    }

    /// Whether any slot has a listener of its own.
    pub(super) fn has_own_sockets(&self) -> bool {
        let own = |edition: &Rc<Edition>| edition.sockets.iter().any(|sockets| sockets.are_own());
        self.editions.newest().any(own)
    }

    /// Has others serve what waits where nobody accepts: the slot hangs, starts,
    /// waits for its next start, is paused, or has been given other listeners
    /// before the one to which its own goes has come up.
    pub(super) fn tend_queues(&self) {
        for (pool, sockets) in self.editions.bound() {
            if !sockets.are_own() {
                continue;
            }
            let attended = self.attended(&sockets);
            for slot in sockets.own_slots() {
                if !attended.contains(&slot)
                    && let Some(listener) = sockets.own_of_slot(slot)
                {
                    self.rescue(&pool, &sockets, &listener);
                }
            }
        }
    }

    /// Ends a socket: no new connection, and what waits is served by a worker
    /// that has the listener, or else by one of this pool.
    pub(super) fn retire(&self, pool: &str, sockets: &Rc<Sockets>, listener: &Rc<Listener>) {
        seal(listener);
        if !self.rescue(pool, sockets, listener) {
            let address = listener.address();
            warn!(pool, "no worker can serve what waits on {address}");
        }
    }

    /// Has another worker serve what waits; `false` if there is none.
    fn rescue(&self, pool: &str, sockets: &Rc<Sockets>, listener: &Rc<Listener>) -> bool {
        if listener.backlog().0 == Some(0) {
            return true;
        }
        let Some((rescuer, duplicate)) = self
            .rescuer(pool, sockets)
            .zip(listener.duplicate().ok())
        else {
            return false;
        };
        let listen = sockets.listen();
        let (answer, answered) = oneshot::channel();
        self.certify_for(rescuer, &listen);
        let call = Call::Rescue {
            offer: listener.offer(listen.tls.is_some()),
            fd: duplicate,
        };
        if let Some(grip) = self.processes.get(&rescuer) {
            grip.order(Order::Call(call, answer));
        }
        let (slot, address) = (self.slot_name(rescuer), listener.address().to_owned());
        tokio::task::spawn_local(async move {
            match tokio::time::timeout(RESCUE, answered).await {
                Ok(Ok(Ok(data))) => debug!(%slot, "served the queue of {address}: {data}"),
                _ => warn!(%slot, "did not serve the queue of {address}"),
            }
        });
        true
    }

    /// Who serves a queue: a worker that has the listener, and where there is
    /// none, since it goes, one of its pool.
    fn rescuer(&self, pool: &str, sockets: &Rc<Sockets>) -> Option<Worker> {
        let own = self.least_busy(self.attendants(sockets));
        own.or_else(|| self.least_busy(self.accepting_in(pool)))
    }

    /// The worker with the fewest connections, among those that can.
    fn least_busy(&self, workers: impl Iterator<Item = Worker>) -> Option<Worker> {
        let can = workers.filter_map(|worker| {
            let vitals = self.processes.get(&worker)?.vitals.borrow();
            let health = vitals.health.as_ref();
            let connections = health.map_or(0, |health| health.connections);
            vitals.can(CAPABILITY).then_some((connections, worker))
        });
        can.max_by_key(|(connections, _)| Reverse(*connections))
            .map(|(_, worker)| worker)
    }
}

fn seal(listener: &Listener) {
    if let Err(error) = listener.seal() {
        warn!(
            "cannot stop {} from taking connections: {error}",
            listener.address()
        );
    }
}
