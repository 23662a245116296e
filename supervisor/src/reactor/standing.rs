//! How things stand, for the service manager.

use std::time::Instant;

use prefork_proto::control::SlotState;

use super::Reactor;
use crate::notify::Standing;

impl Reactor {
    /// Tells the service manager at once what must not wait for the next pulse.
    pub(super) fn notify_changes(&mut self) {
        let (booted, stopping) = (self.fleet.booted(), self.fleet.stopping());
        if self.notifier.is_due(booted, stopping) {
            self.notify();
        }
    }

    /// Tells the service manager how things stand, and that the loop turns.
    pub(super) fn notify(&mut self) {
        let standing = self.standing();
        self.notifier.observe(Instant::now(), &standing);
    }

    fn standing(&self) -> Standing {
        let draining = self
            .fleet
            .pools()
            .flat_map(|pool| pool.slots())
            .flat_map(|slot| slot.leaving())
            .filter(|process| process.state() == SlotState::Draining)
            .count();
        Standing {
            booted: self.fleet.booted(),
            stopping: self.fleet.stopping(),
            ready: self.fleet.pools().map(|pool| pool.ready()).sum(),
            desired: self.fleet.pools().map(|pool| pool.desired()).sum(),
            draining,
            generation: self.fleet.generation(),
        }
    }
}
