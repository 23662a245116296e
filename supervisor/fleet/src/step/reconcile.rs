//! Brings slots to rest after an event: whatever follows from the state that
//! a slot is in, rather than from how it got there, happens here.

use crate::interface::{Action, Report, Time};
use crate::state::pool::Pool;

#[cfg(debug_assertions)]
use crate::state::pool::Tally;
use crate::state::slot::{Seat, Slot, SlotId, Standing};
use crate::{Fleet, Phase};

impl Fleet {
    /// Settles every slot that was touched, and those that this touches.
    pub(crate) fn settle_all(&mut self, now: Time) {
        loop {
            while let Some(id) = self.touched.pop_front() {
                self.settle(now, id);
            }
            if !self.advance_rollout(now) {
                break;
            }
        }
        #[cfg(debug_assertions)]
        if !self.actions.is_empty() {
            self.check_tallies();
        }
        self.pools.forget_gone();
        self.tell_in_force(now);
        self.settle_phase();
    }

    fn settle(&mut self, now: Time, id: SlotId) {
        if self.is_wanted(id) && matches!(self.slot_mut(id).seat, Seat::Vacant) {
            self.start_current(now, id);
        }
        self.recount(id);
        self.fulfil_watches(id);
        self.admit(now, id.pool);
        self.fulfil_scaling(id.pool);
        self.arm(now, id);
    }

    /// Lets the counters follow a slot that has changed.
    pub(crate) fn recount(&mut self, id: SlotId) {
        let pool = &self.pools[id.pool];
        let new = self.standing_of(pool, &pool.slots[id.index as usize]);
        let pool = &mut self.pools[id.pool];
        let slot = &mut pool.slots[id.index as usize];
        let old = std::mem::replace(&mut slot.counted, new);
        if old != new {
            pool.tally.replace(old, new);
            self.total.replace(old, new);
        }
    }

    /// Counts the pools anew that are small enough for that after every step that did something.
    #[cfg(debug_assertions)]
    fn check_tallies(&self) {
        const SMALL: usize = 16;
        for pool in self.pools.iter().filter(|pool| pool.slots.len() <= SMALL) {
            let mut tally = Tally::default();
            for slot in &pool.slots {
                // One that was restored is counted first when it is touched.
                if slot.counted != Standing::default() {
                    let standing = self.standing_of(pool, slot);
                    assert_eq!(slot.counted, standing, "what {:?} counts as", slot.id);
                }
                tally.replace(Standing::default(), slot.counted);
            }
            assert_eq!(pool.tally, tally, "the tally of {}", pool.policy.name);
        }
    }

    /// What a slot adds to the counters as it is now.
    fn standing_of(&self, pool: &Pool, slot: &Slot) -> Standing {
        let wanted = self.is_wanted(slot.id);
        let mut standing = slot.standing(wanted, self.generation);
        if let (Some(rollout), Some(part)) = (&self.rollout, &pool.part) {
            rollout.adjust(&mut standing, slot, part, wanted);
        }
        standing
    }

    /// Makes sure that the slot is looked at when its next deadline has come.
    fn arm(&mut self, now: Time, id: SlotId) {
        let recycling = self.recycles();
        // The first slot stands for the pool.
        let look = (id.index == 0).then(|| self.next_look(id.pool)).flatten();
        let pool = &mut self.pools[id.pool];
        let slot = &mut pool.slots[id.index as usize];
        let Some(deadline) = slot.deadline(recycling).into_iter().chain(look).min() else {
            return;
        };
        // Age may have come while it was no reason: in a boot, or in a pause.
        let deadline = deadline.max(now);
        if slot.armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        slot.armed = Some(deadline);
        self.deadlines.add(deadline, id);
        self.drop_stale_deadlines();
    }

    /// Keeps the deadlines in proportion to the slots, however long those lie
    /// ahead that count no more.
    fn drop_stale_deadlines(&mut self) {
        if self.deadlines.len() <= 2 * self.pools.slots() + 64 {
            return;
        }
        let pools = &self.pools;
        self.deadlines.retain(|time, id| {
            let slot = pools.slot(id);
            slot.is_some_and(|slot| slot.armed == Some(time))
        });
    }

    /// Acts on every deadline that has come.
    pub(crate) fn tick(&mut self, now: Time) {
        while let Some((time, id)) = self.deadlines.pop_due(now) {
            if self.slot(id).is_none_or(|slot| slot.armed != Some(time)) {
                continue;
            }
            self.slot_mut(id).armed = None;
            // The successor first: it is not to be promoted when it is late
            // itself, and without it age is a reason again.
            self.replacement_due(now, id);
            self.seat_due(now, id);
            self.leaving_due(now, id);
            if id.index == 0 {
                self.canary_due(now, id.pool);
            }
            self.touch(id);
        }
    }

    /// Notices that everything is up for the first time, or that all is over.
    fn settle_phase(&mut self) {
        let over = self.total.processes == 0;
        let has_booted = self.phase == Phase::Booting && self.has_booted();
        match &mut self.phase {
            Phase::Booting if has_booted => {
                self.phase = Phase::Running;
                self.booted = true;
                let without = self.setbacks();
                self.actions.push(Action::Report(if without.is_empty() {
                    Report::Booted
                } else {
                    Report::BootedInPart { without }
                }));
            }
            Phase::Stopping { jobs }
            | Phase::Failed {
                said: true, jobs, ..
            } if over => {
                let jobs = std::mem::take(jobs);
                self.phase = Phase::Ended;
                for job in jobs {
                    self.finish(job, Ok("stopped".to_owned()));
                }
                self.actions.push(Action::Ended);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::driver::{Driver, code, policy, worker};
    use crate::{Command, Event, Report};

    #[test]
    fn the_fleet_has_booted_once_every_slot_has_been_ready() {
        let mut driver = Driver::start(policy("web", 2));
        driver.say_ready(worker(0, 1));
        assert!(!driver.fleet.booted());
        driver.say_ready(worker(1, 1));
        assert!(driver.fleet.booted() && driver.fleet.is_ready());
        assert!(driver.has_reported(|report| *report == Report::Booted));
    }

    #[test]
    fn deadlines_stay_in_proportion_to_the_slots() {
        let mut long = policy("web", 4);
        long.drain_timeout = Duration::from_secs(86_400);
        let mut driver = Driver::ready(long);
        let pool = || "web".to_owned();
        for round in 1..=200 {
            driver.command(Command::Scale {
                pool: pool(),
                workers: 3,
            });
            // Its heartbeat's deadline passes, and the drain's lies a day ahead.
            driver.pass(11.0);
            driver.exit(worker(3, round), code(0));
            driver.command(Command::Scale {
                pool: pool(),
                workers: 4,
            });
            driver.say_ready(worker(3, round + 1));
        }
        assert!(driver.fleet.deadlines.len() <= 2 * 4 + 64);
    }

    #[test]
    fn health_reports_arm_nothing() {
        let mut driver = Driver::ready(policy("web", 4));
        let armed = driver.fleet.deadlines.len();
        for _ in 0..1000 {
            let event = Event::Health {
                worker: worker(0, 1),
                requests: 1,
                in_flight: 0,
            };
            assert!(driver.step(event).is_empty());
        }
        assert_eq!(driver.fleet.deadlines.len(), armed);
    }
}
