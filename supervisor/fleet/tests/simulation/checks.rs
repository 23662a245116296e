//! What must be true of a fleet after every step.

use prefork_api::{Readiness, SlotState};
use prefork_fleet::{PoolId, PoolView, SlotView, Worker};

use crate::world::World;

/// Fleets of more slots than this are compared as a whole only now and then.
const FEW_SLOTS: usize = 24;
const NOW_AND_THEN: u64 = 500;

/// How far a pool with so many ready, missing and paused workers is ready. Which share it
/// needs is the fleet's word; that it lies between one and all is not.
fn readiness(pool: PoolView<'_>, ready: u32, missing: u32, paused: u32) -> Readiness {
    let strength = pool.strength();
    assert_eq!(
        (strength.expected, strength.paused),
        (ready + missing, paused)
    );
    match (ready, missing) {
        (0, 0) if paused == 0 => Readiness::Ready,
        (0, _) => Readiness::NotReady,
        (_, 0) => Readiness::Ready,
        _ => {
            assert!((1..=ready + missing).contains(&strength.needed));
            match ready < strength.needed {
                true => Readiness::NotReady,
                false => Readiness::Degraded,
            }
        }
    }
}

impl World {
    /// Compares the slot of `concerned`, and the whole fleet if it is small.
    pub(crate) fn check_step(&self, concerned: Option<Worker>) {
        assert_eq!(self.facts.owed_exit, None, "an exit was not reported");
        assert_eq!(self.facts.owed_start, None, "a start was not reported");
        if let Some(slot) = self.facts.mended.and_then(|worker| {
            let pool = self.fleet.pool(worker.pool)?;
            pool.slot(worker.slot)
        }) {
            assert_ne!(slot.state(), SlotState::Backoff, "a first failure waits");
        }
        let slots: usize = self.fleet.pools().map(|pool| pool.slots().len()).sum();
        if slots <= FEW_SLOTS || self.facts.happened.steps.is_multiple_of(NOW_AND_THEN) {
            self.check_everything();
        } else if let Some(worker) = concerned
            && let Some(pool) = self.fleet.pool(worker.pool)
            && let Some(slot) = pool.slot(worker.slot)
        {
            self.check_slot(worker.pool, slot);
        }
    }

    /// Compares the whole fleet's books with what has happened.
    pub(crate) fn check_everything(&self) {
        let runs = self.facts.booted && !self.fleet.stopping();
        let mut least = match runs {
            true => Readiness::Ready,
            false => Readiness::NotReady,
        };
        for pool in self.fleet.pools() {
            let mut ready = 0;
            let mut paused = 0;
            let mut missing = 0;
            let mut successors = 0;
            for slot in pool.slots() {
                self.check_slot(pool.id(), slot);
                let is_ready = slot.state() == SlotState::Ready;
                ready += u32::from(is_ready);
                successors += u32::from(slot.successor().is_some());
                let added = self.facts.is_added(pool.id(), slot.index());
                if slot.index() < pool.desired() && !is_ready && !added {
                    let is_paused = slot.state() == SlotState::Paused;
                    paused += u32::from(is_paused);
                    missing += u32::from(!is_paused);
                }
            }
            if runs {
                least = least.min(readiness(pool, ready, missing, paused));
            }
            assert_eq!(pool.ready(), ready, "{}", pool.name());
            assert_eq!(pool.desired(), self.facts.desired(pool.id()));
            let surge = self.facts.max_surge(pool.id());
            assert!(successors <= surge, "{successors} successors at a time");
        }
        let is_open = !self.facts.booted && !self.fleet.stopping();
        assert!(
            !is_open || !self.facts.is_boot_decided(),
            "the boot is over"
        );
        assert_eq!(self.fleet.readiness(), least);
        assert_eq!(self.fleet.booted(), self.facts.booted);
    }

    /// Compares one slot.
    fn check_slot(&self, pool: PoolId, slot: SlotView<'_>) {
        let facts = self.facts.slot(pool, slot.index());
        assert!(facts.serving.len() <= 1, "two workers serve: {facts:?}");
        let current = slot.current().filter(|p| p.ready_since().is_some());
        let serving = facts.serving.first().copied();
        assert_eq!(current.map(|p| p.worker()), serving, "{facts:?}");
        for process in slot.processes() {
            assert_eq!(process.worker().slot, slot.index());
            assert!(
                self.processes.contains_key(&process.worker()),
                "{:?} is gone and is still shown",
                process.worker()
            );
        }
        let wanted = slot.index() < self.facts.desired(pool) && !self.fleet.stopping();
        let empty = matches!(
            slot.state(),
            SlotState::Empty | SlotState::Draining | SlotState::Stopping
        );
        assert_eq!(empty, !wanted, "{:?} {facts:?}", slot.state());
    }
}
