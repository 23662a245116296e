//! Whether a process that is silent waits for a processor.

use std::time::{Duration, Instant};

use prefork_fleet::{Event, Worker};

use crate::kernel::procfs::schedule::Schedule;
use crate::reactor::Reactor;

/// A process that is to be looked at.
#[derive(Debug, Clone, Copy)]
pub(in crate::reactor) struct Look {
    pub(in crate::reactor) worker: Worker,
    /// Whether it is the first look of this silence.
    pub(in crate::reactor) first: bool,
}

impl Reactor {
    /// Answers every look that the fleet has asked for.
    pub(in crate::reactor) fn look_at_silent(&mut self) {
        while let Some(look) = self.looks.pop_front() {
            let waited = self.waited(look);
            if !waited.is_zero() {
                self.slot_metrics(look.worker).starved(waited);
            }
            let worker = look.worker;
            self.feed(Event::Looked { worker, waited });
        }
    }

    fn waited(&self, look: Look) -> Duration {
        let Some(grip) = self.processes.get(&look.worker) else {
            return Duration::ZERO;
        };
        let now = Schedule::of(grip.pid, Instant::now());
        let before = grip.schedule.replace(Some(now.clone()));
        match before.filter(|_| !look.first) {
            Some(before) => now.waited_since(&before),
            None => Duration::ZERO,
        }
    }
}
