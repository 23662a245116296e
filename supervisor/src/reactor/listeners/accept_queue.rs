//! What becomes of connections that wait in a listener whose workers no longer
//! accept: at the end, when a slot or a listener goes, when a slot hangs.

use prefork_proto::capability;

use std::cmp::Reverse;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use prefork_fleet::Worker;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::listener::Listener;
use crate::reactor::listeners::sockets::Sockets;
use crate::reactor::worker_process::handle::{Call, Order};
use crate::reactor::{Edition, Reactor};

/// How long a rescuer may take to empty a queue.
const RESCUE: Duration = Duration::from_secs(10);

impl Reactor {
    /// The supervisor stops: what waits is still served by the workers as they
    /// drain, and who comes later is refused.
    pub(in crate::reactor) fn seal_everything(&self) {
        for (_, sockets) in self.editions.bound() {
            for listener in sockets.all() {
                report(&listener, listener.seal());
            }
        }
    }

    /// Lets go of the supervisor's own duplicates: the last worker that closes
    /// its own ends the listener.
    pub(in crate::reactor) fn close_everything(&self) {
        for (_, sockets) in self.editions.bound() {
            sockets.close();
        }
    }

    /// Whether there is a listener of this worker's from which nobody accepts
    /// after it; that is then sealed.
    pub(in crate::reactor) fn is_last_to_accept(&self, worker: Worker) -> bool {
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
                self.end(&sockets, &listener);
                self.rescue(self.successor_of(&sockets), &sockets, &listener);
            } else if !sockets.are_own() {
                for listener in sockets.all() {
                    self.end(&sockets, &listener);
                }
            }
        }
        is_last
    }

    /// Ends the sockets that belonged to slots which no generation in force has:
    /// another pool with fewer workers has the listener now.
    pub(in crate::reactor) fn retire_surplus(&self) {
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

    /// Whether a queue may need to be tended.
    pub(in crate::reactor) fn has_queues_to_tend(&self) -> bool {
        let own = |edition: &Rc<Edition>| edition.sockets.iter().any(|sockets| sockets.are_own());
        self.reloads.current.is_some() || self.editions.newest().any(own)
    }

    /// Has others serve what waits where nobody accepts: the slot hangs, starts,
    /// waits for its next start, is paused, or has been given other listeners
    /// before the one to which its own goes has come up; or a reload has bound an
    /// address whose clients came to a wider one, and its workers are not up yet.
    pub(in crate::reactor) fn tend_queues(&self) {
        for (_, sockets) in self.editions.bound() {
            let attended = self.attended(&sockets);
            if !sockets.are_own() && !attended.is_empty() {
                continue;
            }
            for (slot, listener) in sockets.by_slot() {
                if !attended.contains(&slot) {
                    self.rescue(self.successor_of(&sockets), &sockets, &listener);
                }
            }
        }
    }

    /// Ends a socket: no new connection, and what waits is served by a worker
    /// that has the listener, or else by one of this pool.
    pub(in crate::reactor) fn retire(
        &self,
        pool: &str,
        sockets: &Rc<Sockets>,
        listener: &Rc<Listener>,
    ) {
        self.end(sockets, listener);
        let rescuer = self.successor_of(sockets);
        let rescuer = rescuer.or_else(|| self.least_busy(self.accepting_in(pool)));
        if !self.rescue(rescuer, sockets, listener) {
            let address = listener.address();
            warn!(pool, "no worker can serve what waits on {address}");
        }
    }

    /// Lets nobody come to a socket any more. Where another listener is at its
    /// port, who would have come to this one comes to that.
    fn end(&self, sockets: &Rc<Sockets>, listener: &Listener) {
        let bound = self.editions.bound();
        let mut others = bound.iter().filter(|(_, it)| !Rc::ptr_eq(it, sockets));
        let ended = match others.any(|(_, it)| it.overlap(sockets) && self.is_wanted(it, 0)) {
            true => listener.give_way(),
            false => listener.seal(),
        };
        report(listener, ended);
    }

    /// Who is to serve what waits on a listener: a worker that has it, or one that
    /// has another at its port.
    fn successor_of(&self, sockets: &Rc<Sockets>) -> Option<Worker> {
        self.least_busy(self.attendants(sockets)).or_else(|| {
            let bound = self.editions.bound();
            let beside = bound.iter().filter(|(_, it)| it.overlap(sockets));
            self.least_busy(beside.flat_map(|(_, it)| self.attendants(it)))
        })
    }

    /// Has a worker serve what waits; `false` if there is none.
    fn rescue(
        &self,
        rescuer: Option<Worker>,
        sockets: &Rc<Sockets>,
        listener: &Rc<Listener>,
    ) -> bool {
        if listener.backlog().0 == Some(0) {
            return true;
        }
        let Some((rescuer, duplicate)) = rescuer.zip(listener.duplicate().ok()) else {
            return false;
        };
        let listen = sockets.listen();
        let (answer, answered) = oneshot::channel();
        self.certify_for(rescuer, &listen);
        let call = Call::Rescue {
            offer: listener.offer(&listen),
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

    /// The worker with the fewest connections, among those that can.
    fn least_busy(&self, workers: impl Iterator<Item = Worker>) -> Option<Worker> {
        let can = workers.filter_map(|worker| {
            let vitals = self.processes.get(&worker)?.vitals.borrow();
            let health = vitals.health.as_ref();
            let connections = health.map_or(0, |health| health.connections);
            vitals
                .can(capability::RESCUE)
                .then_some((connections, worker))
        });
        can.max_by_key(|(connections, _)| Reverse(*connections))
            .map(|(_, worker)| worker)
    }
}

fn report(listener: &Listener, ended: io::Result<()>) {
    if let Err(error) = ended {
        warn!(
            "cannot stop {} from taking connections: {error}",
            listener.address()
        );
    }
}
