//! Commands that replace processes: restart (successor first), drain and kill
//! (successor at once).

use prefork_proto::control::ExitReason;

use super::Fleet;
use super::event::{JobId, PoolId, Refusal, Time};
use super::jobs::{Job, Watch};
use super::leave::How;
use super::slot::{Seat, SlotId};

impl Fleet {
    /// Replaces one worker, or all of the pool's in the order of their slots.
    pub(super) fn restart(
        &mut self,
        now: Time,
        job: JobId,
        pool: PoolId,
        slot: Option<u32>,
    ) -> Result<(), Refusal> {
        let slots = match slot {
            Some(index) => index..index + 1,
            None => 0..self.pool_mut(pool).desired,
        };
        let mut state = Job::whole_pool(pool, "restarted");
        state.slot = slot;
        state.remaining = slots.len() as u32;
        state.total = state.remaining;
        self.jobs.insert(job, state);
        for index in slots {
            self.restart_slot(now, job, SlotId { pool, index });
        }
        Ok(())
    }

    /// Replaces the slot's worker: after its successor is ready if it serves,
    /// at once if there is nothing to lose.
    fn restart_slot(&mut self, now: Time, job: JobId, id: SlotId) {
        let slot = self.slot_mut(id);
        let current = slot.current();
        let predecessor = current.map(|process| process.worker.incarnation);
        let serves = current.is_some_and(|process| process.serving().is_some());
        let newer_than = Some(predecessor.unwrap_or(slot.incarnations));
        if serves {
            self.replace_for_command(id);
        } else {
            slot.backoff.reset();
            if let Some(process) = self.vacate(id) {
                let cause = ExitReason::Operator;
                self.dismiss(now, id, process, cause, How::Stop, None);
            } else {
                self.slot_mut(id).seat = Seat::Vacant;
            }
        }
        let watch = Watch {
            job,
            predecessor,
            newer_than,
        };
        self.watch(id, watch);
    }

    /// Drains or kills the slot's worker; its successor starts at once.
    pub(super) fn remove(
        &mut self,
        now: Time,
        job: JobId,
        id: SlotId,
        how: How,
    ) -> Result<(), Refusal> {
        let deed = if how == How::Kill {
            "killed"
        } else {
            "drained"
        };
        let watch = if let Some(process) = self.vacate(id) {
            let incarnation = process.worker.incarnation;
            self.dismiss(now, id, process, ExitReason::Operator, how, None);
            Watch {
                job,
                predecessor: Some(incarnation),
                newer_than: Some(incarnation),
            }
        } else {
            let predecessor = self.remove_leaving(now, id, how)?;
            Watch {
                job,
                predecessor: Some(predecessor),
                newer_than: None,
            }
        };
        let mut state = Job::whole_pool(id.pool, deed);
        state.slot = Some(id.index);
        state.remaining = 1;
        state.total = 1;
        self.jobs.insert(job, state);
        self.watch(id, watch);
        Ok(())
    }

    /// Kills what still leaves of a slot in which nobody sits. Returns the
    /// number of the process that this concerns last.
    fn remove_leaving(&mut self, now: Time, id: SlotId, how: How) -> Result<u64, Refusal> {
        let name = self.name(id);
        let slot = self.slot_mut(id);
        let gentle = slot.leaving.iter().rev().find(|l| !l.stage.is_killed());
        match (gentle, &slot.seat) {
            (Some(leaving), _) if how == How::Kill => {
                let incarnation = leaving.process.worker.incarnation;
                self.kill_leaving(now, id, ExitReason::Operator);
                Ok(incarnation)
            }
            (_, Seat::Backoff { until, why }) => {
                let wait = until.since(now);
                Err(Refusal::failed(format!(
                    "{name} has no process: it starts one in {wait:?}, because {why}"
                )))
            }
            (Some(_), _) => Err(Refusal::failed(format!("{name} is leaving already"))),
            (None, _) if slot.leaving.is_empty() => {
                Err(Refusal::failed(format!("{name} has no process")))
            }
            (None, _) => Err(Refusal::failed(format!("{name} has been killed already"))),
        }
    }
}
