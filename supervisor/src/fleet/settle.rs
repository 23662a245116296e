//! Brings slots to rest after an event: whatever follows from the state that
//! a slot is in, rather than from how it got there, happens here.

use super::event::{Action, Report, Time};
use super::slot::{Seat, SlotId};
use super::{Fleet, Phase};

impl Fleet {
    /// Settles every slot that was touched, and those that this touches.
    pub(super) fn settle_all(&mut self, now: Time) {
        while let Some(id) = self.touched.pop_front() {
            if self.is_wanted(id) && matches!(self.slot_mut(id).seat, Seat::Vacant) {
                self.start_current(now, id);
            }
            self.recount(id);
            self.fulfil_watches(id);
            self.admit(now, id.pool);
            self.fulfil_scaling(id.pool);
            self.arm(id);
        }
        self.settle_phase();
    }

    /// Lets the counters follow a slot that has changed.
    pub(super) fn recount(&mut self, id: SlotId) {
        let wanted = self.is_wanted(id);
        let pool = &mut self.pools[id.pool.0 as usize];
        let slot = &mut pool.slots[id.index as usize];
        let new = slot.standing(wanted);
        let old = std::mem::replace(&mut slot.counted, new);
        if old != new {
            pool.tally.replace(old, new);
            self.total.replace(old, new);
        }
    }

    /// Makes sure that the slot is looked at when its next deadline has come.
    fn arm(&mut self, id: SlotId) {
        let recycling = self.phase == Phase::Running;
        let pool = &mut self.pools[id.pool.0 as usize];
        let slot = &mut pool.slots[id.index as usize];
        let Some(deadline) = slot.deadline(&pool.policy, recycling) else {
            return;
        };
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
        let slots: usize = self.pools.iter().map(|pool| pool.slots.len()).sum();
        if self.deadlines.len() <= 2 * slots + 64 {
            return;
        }
        let pools = &self.pools;
        self.deadlines.retain(|time, id| {
            let slot = &pools[id.pool.0 as usize].slots[id.index as usize];
            slot.armed == Some(time)
        });
    }

    /// Acts on every deadline that has come.
    pub(super) fn tick(&mut self, now: Time) {
        while let Some((time, id)) = self.deadlines.pop_due(now) {
            let slot = self.slot_mut(id);
            if slot.armed != Some(time) {
                continue;
            }
            slot.armed = None;
            self.seat_due(now, id);
            self.replacement_due(now, id);
            self.leaving_due(now, id);
            self.touch(id);
        }
    }

    /// Notices that everything is up for the first time, or that all is over.
    fn settle_phase(&mut self) {
        let over = self.total.processes == 0;
        match &mut self.phase {
            Phase::Booting if self.total.unbooted == 0 => {
                self.phase = Phase::Running;
                self.actions.push(Action::Report(Report::Booted));
            }
            Phase::Stopping { jobs } | Phase::Failed { said: true, jobs } if over => {
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
