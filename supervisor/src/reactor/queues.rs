//! What becomes of connections that wait in a listener whose workers no longer
//! accept: at the end, when a slot or a listener goes, when a slot hangs.

use std::cmp::Reverse;
use std::rc::Rc;
use std::time::Duration;

use prefork_proto::control::SlotState;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::grip::{Call, Order};
use super::sockets::Sockets;
use super::{Edition, Reactor};
use crate::config::Listen;
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

    /// Whether nobody accepts from this worker's listeners after it; its
    /// listeners are then sealed.
    pub(super) fn is_last_to_accept(&self, worker: Worker) -> bool {
        if self.fleet.stopping() {
            return true;
        }
        let name = self.pool_name(worker);
        let reload = self.reloads.current.as_ref();
        if reload.is_some_and(|reload| !reload.pools.contains(&*name)) {
            for sockets in self.sockets_of(worker) {
                sockets.all().iter().for_each(|listener| seal(listener));
            }
            return true;
        }
        let desired = self
            .fleet
            .pool(worker.pool)
            .map_or(0, |pool| pool.desired());
        if worker.slot < desired {
            return false;
        }
        // The slot goes; where it has sockets of its own, they go with it.
        let own: Vec<_> = self
            .sockets_of(worker)
            .iter()
            .filter_map(|sockets| Some((sockets.take_from_slot(worker.slot)?, sockets.listen())))
            .collect();
        for (listener, listen) in &own {
            self.retire(&name, Some(worker.slot), listener, listen);
        }
        !own.is_empty()
    }

    /// Whether any slot has a listener of its own.
    pub(super) fn has_own_sockets(&self) -> bool {
        let own = |edition: &Rc<Edition>| edition.sockets.iter().any(|sockets| sockets.are_own());
        self.editions.newest().any(own)
    }

    /// Has others serve what waits where a slot accepts nothing: it hangs,
    /// starts, waits for its next start, or is paused.
    pub(super) fn tend_queues(&self) {
        for pool in self.fleet.pools() {
            let Some(edition) = self.editions.of(pool.name(), self.fleet.generation()) else {
                continue;
            };
            for slot in pool.shown().filter(|slot| slot.state() != SlotState::Ready) {
                for sockets in &edition.sockets {
                    if let Some(listener) = sockets.own_of_slot(slot.index()) {
                        let listen = sockets.listen();
                        self.rescue(pool.name(), Some(slot.index()), &listener, &listen);
                    }
                }
            }
        }
    }

    fn sockets_of(&self, worker: Worker) -> Vec<Rc<Sockets>> {
        let name = self.pool_name(worker);
        // Its own generation's: at the end of a reload that may be neither the
        // one in force nor the new one.
        let process = self.fleet.process(worker);
        let generation = process.map_or_else(|| self.fleet.generation(), |it| it.generation());
        let editions = self.editions.of(&name, generation);
        editions.map_or_else(Vec::new, |edition| edition.sockets.clone())
    }

    /// Ends a listener: no new connection, and what waits is served by a worker
    /// of the pool other than the one in this slot.
    pub(super) fn retire(
        &self,
        pool: &str,
        slot: Option<u32>,
        listener: &Rc<Listener>,
        listen: &Listen,
    ) {
        seal(listener);
        if !self.rescue(pool, slot, listener, listen) {
            let address = listener.address();
            warn!(pool, "no worker can serve what waits on {address}");
        }
    }

    /// Has another worker serve what waits; `false` if there is none.
    fn rescue(
        &self,
        pool: &str,
        not: Option<u32>,
        listener: &Rc<Listener>,
        listen: &Listen,
    ) -> bool {
        if listener.backlog().0 == Some(0) {
            return true;
        }
        let Some((rescuer, duplicate)) = self.rescuer(pool, not).zip(listener.duplicate().ok())
        else {
            return false;
        };
        let (answer, answered) = oneshot::channel();
        self.certify_for(rescuer, listen);
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

    /// The worker of the pool with the fewest connections, among those that can.
    fn rescuer(&self, pool: &str, not: Option<u32>) -> Option<Worker> {
        let pool = self.fleet.pools().find(|view| view.name() == pool)?;
        pool.slots()
            .filter(|slot| slot.state() == SlotState::Ready && Some(slot.index()) != not)
            .filter_map(|slot| {
                let worker = slot.current()?.worker();
                let vitals = self.processes.get(&worker)?.vitals.borrow();
                let connections = vitals
                    .health
                    .as_ref()
                    .map_or(0, |health| health.connections);
                vitals.can(CAPABILITY).then_some((connections, worker))
            })
            .max_by_key(|(connections, _)| Reverse(*connections))
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
