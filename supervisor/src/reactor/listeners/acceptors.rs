//! Who accepts from a socket, and who will. A socket is known by itself and not
//! by its pool: a reload may give it to another pool, and may be undone.

use std::collections::BTreeSet;
use std::rc::Rc;

use prefork_api::SlotState;
use prefork_fleet::{PoolView, ProcessView, Worker};

use crate::reactor::Reactor;
use crate::reactor::listeners::sockets::Sockets;

impl Reactor {
    /// Whether a generation that is in force, or is about to be, accepts from
    /// this slot's socket. Where one socket is for all slots, any slot is right.
    pub(in crate::reactor) fn is_wanted(&self, sockets: &Rc<Sockets>, slot: u32) -> bool {
        let in_force = self.fleet.generation();
        let coming = self.fleet.coming();
        self.editions
            .that_have(sockets)
            .any(|(generation, edition)| {
                let workers = match generation {
                    _ if generation == in_force => {
                        self.workers_of(&edition.name, |pool| pool.desired())
                    }
                    // Its pool may not have grown to that yet.
                    _ if Some(generation) == coming => {
                        let most = |pool: PoolView<'_>| pool.desired().max(pool.coming());
                        self.workers_of(&edition.name, most)
                    }
                    _ => return false,
                };
                !sockets.are_own() || slot < workers
            })
    }

    /// Whether a worker other than this one, which is not on its way out, accepts
    /// from the slot's socket or comes up to do so.
    pub(in crate::reactor) fn has_another(
        &self,
        sockets: &Rc<Sockets>,
        slot: u32,
        but: Worker,
    ) -> bool {
        self.holders(sockets).any(|process| {
            let worker = process.worker();
            worker != but && (!sockets.are_own() || worker.slot == slot)
        })
    }

    /// The workers that take connections and have this listener, from whichever
    /// of its sockets.
    pub(in crate::reactor) fn attendants(
        &self,
        sockets: &Rc<Sockets>,
    ) -> impl Iterator<Item = Worker> {
        let accepts = |process: &ProcessView<'_>| process.state() == SlotState::Ready;
        self.holders(sockets)
            .filter(accepts)
            .map(ProcessView::worker)
    }

    /// The slots of this listener whose sockets are accepted from.
    pub(in crate::reactor) fn attended(&self, sockets: &Rc<Sockets>) -> BTreeSet<u32> {
        self.attendants(sockets).map(|worker| worker.slot).collect()
    }

    /// The workers of the pool of this name that take connections.
    pub(in crate::reactor) fn accepting_in(&self, pool: &str) -> impl Iterator<Item = Worker> {
        let pools = self.fleet.pools().filter(move |view| view.name() == pool);
        pools
            .flat_map(|view| view.slots())
            .filter(|slot| slot.state() == SlotState::Ready)
            .filter_map(|slot| Some(slot.current()?.worker()))
    }

    /// The processes that have this listener and were not told to leave.
    fn holders(&self, sockets: &Rc<Sockets>) -> impl Iterator<Item = ProcessView<'_>> {
        self.fleet.pools().flat_map(move |pool| {
            let generations = self.editions.generations_with(pool.name(), sockets);
            let slots = pool.slots().take(match generations.is_empty() {
                true => 0,
                false => usize::MAX,
            });
            slots
                .flat_map(|slot| slot.current().into_iter().chain(slot.successor()))
                .filter(move |process| generations.contains(&process.generation()))
        })
    }

    /// How many workers the pool of this name should have.
    fn workers_of(&self, pool: &str, count: impl Fn(PoolView<'_>) -> u32) -> u32 {
        let pools = self.fleet.pools().filter(|view| view.name() == pool);
        // One on its way out may have the same name.
        pools.map(count).max().unwrap_or(0)
    }
}
