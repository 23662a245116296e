//! How things stand, for the service manager.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use prefork_api::SlotState;
use tracing::{info, warn};

use crate::listener::Listener;
use crate::reactor::Reactor;
use crate::systemd::fdstore;
use crate::systemd::notify::Standing;

impl Reactor {
    /// Tells the service manager at once what must not wait for the next pulse.
    pub(in crate::reactor) fn notify_changes(&mut self) {
        let (booted, stopping) = (self.fleet.booted(), self.is_told_to_stop());
        if self.notifier.is_due(booted, stopping) {
            self.notify();
        }
    }

    /// Has the service manager keep a duplicate of each socket that was bound
    /// here, and none that is no longer a listener. Not at the end: what is
    /// there then is for the next run, or goes with the service.
    pub(in crate::reactor) fn keep_listeners(&mut self) {
        if !self.notifier.is_linked() || self.fleet.stopping() {
            return;
        }
        let sockets = self.editions.bound().into_iter();
        let listeners = sockets.flat_map(|(_, sockets)| sockets.all());
        let named = listeners.filter_map(|it| Some((it.name_to_keep()?, it)));
        let named: BTreeMap<String, Rc<Listener>> = named.collect();
        self.notifier.keep(&named);
        if self.fleet.booted() {
            // Every slot has its own by now.
            fdstore::close_rest();
            self.notifier.keep_only(&named);
        }
    }

    /// Says once what keeps clients from a listener, and when that is over.
    pub(in crate::reactor) fn look_at_listeners(&mut self) {
        if self.fleet.stopping() {
            return;
        }
        let bound = self.editions.bound();
        for (_, sockets) in &bound {
            if let Some(what) = sockets.mend() {
                let name = sockets.listen().name;
                warn!("listener {name}: {what}; clients can connect to it again");
            }
        }
        let bound = bound.into_iter();
        let problems = bound.filter_map(|(_, it)| Some((it.listen().name, it.problem()?)));
        let problems: BTreeMap<String, String> = problems.collect();
        for (name, problem) in &problems {
            if self.listener_problems.get(name) != Some(problem) {
                warn!("listener {name}: {problem}");
            }
        }
        let over = |name: &&String| !problems.contains_key(*name);
        for name in self.listener_problems.keys().filter(over) {
            info!("listener {name}: clients can connect to it again");
        }
        self.listener_problems = problems;
    }

    /// Tells the service manager how things stand, and that the loop turns.
    pub(in crate::reactor) fn notify(&mut self) {
        self.keep_listeners();
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
            stopping: self.is_told_to_stop(),
            readiness: self.fleet.readiness(),
            ready: self.fleet.pools().map(|pool| pool.ready()).sum(),
            desired: self.fleet.pools().map(|pool| pool.desired()).sum(),
            draining,
            generation: self.fleet.generation(),
        }
    }
}
