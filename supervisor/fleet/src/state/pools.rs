//! All pools: by their id, and in the order in which people see them.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};
use std::rc::Rc;

use crate::interface::PoolId;
use crate::policy::Policy;
use crate::state::pool::Pool;
use crate::state::slot::{Slot, SlotId};

/// The pools. An id is never reused, and whoever has one may index with it for
/// as long as its pool has a process.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    by_id: BTreeMap<PoolId, Pool>,
    order: Vec<PoolId>,
    added: u32,
}

impl Pools {
    /// Adds a pool whose slots have no process yet, as the last.
    pub(crate) fn add(&mut self, policy: Rc<Policy>, generation: u64) -> PoolId {
        let id = PoolId(self.added);
        self.added += 1;
        self.by_id.insert(id, Pool::new(id, policy, generation));
        self.order.push(id);
        id
    }

    /// The pools that were written down, in their order. `added` is how many there
    /// have ever been.
    pub(crate) fn of(pools: Vec<Pool>, added: u32) -> Self {
        Self {
            order: pools.iter().map(|pool| pool.id).collect(),
            added: pools.iter().map(|pool| pool.id.0 + 1).fold(added, u32::max),
            by_id: pools.into_iter().map(|pool| (pool.id, pool)).collect(),
        }
    }

    /// How many pools there have ever been.
    pub(crate) fn added(&self) -> u32 {
        self.added
    }

    /// The pool with this id; none if it has gone or never was.
    pub(crate) fn get(&self, id: PoolId) -> Option<&Pool> {
        self.by_id.get(&id)
    }

    /// The pool of this name that is not on its way out.
    pub(crate) fn named(&self, name: &str) -> Option<&Pool> {
        self.staying().find(|pool| pool.policy.name == name)
    }

    /// The pools that are not on their way out, in their order.
    pub(crate) fn staying(&self) -> impl Iterator<Item = &Pool> {
        self.iter().filter(|pool| !pool.retired)
    }

    /// The pools, in their order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Pool> {
        self.order.iter().map(|id| &self.by_id[id])
    }

    /// The pools, to be changed, in no order that means anything.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pool> {
        self.by_id.values_mut()
    }

    /// The ids of all pools, in their order.
    pub(crate) fn ids(&self) -> Vec<PoolId> {
        self.order.clone()
    }

    /// The names of all slots, pool by pool.
    pub(crate) fn slot_ids(&self) -> Vec<SlotId> {
        self.iter()
            .flat_map(|pool| pool.slots.iter().map(|slot| slot.id))
            .collect()
    }

    /// How many slots there are in all.
    pub(crate) fn slots(&self) -> usize {
        self.by_id.values().map(|pool| pool.slots.len()).sum()
    }

    /// The slot with this name; none if it has gone or never was.
    pub(crate) fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.get(id.pool)?.slots.get(id.index as usize)
    }

    /// Puts these pools first, in this order; the others keep theirs.
    pub(crate) fn put_first(&mut self, first: &[PoolId]) {
        self.order.sort_by_key(|id| {
            let place = first.iter().position(|other| other == id);
            place.unwrap_or(first.len())
        });
    }

    /// Forgets the pools that are on their way out and have no process left.
    pub(crate) fn forget_gone(&mut self) {
        let by_id = &mut self.by_id;
        self.order.retain(|id| {
            let gone = by_id[id].is_gone();
            if gone {
                by_id.remove(id);
            }
            !gone
        });
    }
}

impl Index<PoolId> for Pools {
    type Output = Pool;

    fn index(&self, id: PoolId) -> &Pool {
        &self.by_id[&id]
    }
}

impl IndexMut<PoolId> for Pools {
    fn index_mut(&mut self, id: PoolId) -> &mut Pool {
        self.by_id
            .get_mut(&id)
            .expect("a pool is indexed only while it has a process or is to have one")
    }
}
