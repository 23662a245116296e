//! Scaling: absolute and idempotent. New slots start, surplus slots drain from
//! the highest down; a later scale overtakes an earlier one.

use prefork_proto::control::ExitReason;

use super::Fleet;
use super::event::{Action, JobId, PoolId, Refusal, Report, Time};
use super::jobs::Job;
use super::leave::How;
use super::pool::Scaling;
use super::slot::{Seat, SlotId};

/// The most workers that a pool can have.
const MOST_WORKERS: u32 = 10_000;

impl Fleet {
    /// Gives the pool `workers` workers.
    pub(super) fn scale(
        &mut self,
        now: Time,
        job: JobId,
        pool: PoolId,
        workers: u32,
    ) -> Result<(), Refusal> {
        if workers == 0 {
            return Err(Refusal::failed(
                "a pool keeps at least 1 worker; `stop` ends the service",
            ));
        }
        if workers > MOST_WORKERS {
            return Err(Refusal::failed(format!(
                "{workers} workers are too many; a pool has {MOST_WORKERS} at most"
            )));
        }
        self.jobs.insert(job, Job::whole_pool(pool, "scaled"));
        self.begin_scaling(job, pool, workers);
        self.resize(now, pool, workers);
        self.touch(SlotId { pool, index: 0 });
        Ok(())
    }

    /// Adds `by` workers to the first pool, which keeps at least 1.
    pub(super) fn scale_by(&mut self, now: Time, job: JobId, by: i32) -> Result<(), Refusal> {
        let Some(pool) = self.pools.first() else {
            return Err(Refusal::NotFound("there is no pool".to_owned()));
        };
        let workers = pool.desired.saturating_add_signed(by);
        let id = pool.id;
        self.scale(now, job, id, workers.clamp(1, MOST_WORKERS))
    }

    /// Makes the job the one that the pool's size belongs to. The one before
    /// it, if it wanted another size, has been overtaken.
    fn begin_scaling(&mut self, job: JobId, pool: PoolId, workers: u32) {
        let state = self.pool_mut(pool);
        let desired = state.desired;
        let mut scaling = state.scaling.take().unwrap_or(Scaling {
            jobs: Vec::new(),
            added_from: desired,
        });
        let overtaken = if desired == workers {
            Vec::new()
        } else {
            std::mem::take(&mut scaling.jobs)
        };
        scaling.jobs.push(job);
        scaling.added_from = scaling.added_from.min(desired);
        state.scaling = Some(scaling);
        let why = format!("overtaken by a later scale to {workers}");
        for job in overtaken {
            self.end(job, Err(Refusal::failed(why.clone())));
        }
    }

    /// Starts or empties the slots between the pool's size and the new one.
    fn resize(&mut self, now: Time, pool: PoolId, to: u32) {
        let from = self.pool_mut(pool).desired;
        if from == to {
            return;
        }
        self.pool_mut(pool).resize(to);
        self.actions
            .push(Action::Report(Report::Scaled { pool, from, to }));
        for index in from..to {
            let id = SlotId { pool, index };
            self.slot_mut(id).backoff.reset();
            self.recount(id);
            self.touch(id);
        }
        for index in (to..from).rev() {
            let id = SlotId { pool, index };
            self.empty(now, id, ExitReason::ScaleDown, How::Drain);
            self.recount(id);
        }
    }

    /// Leaves nobody in the slot: who sits in it and who was to follow leave.
    pub(super) fn empty(&mut self, now: Time, id: SlotId, cause: ExitReason, how: How) {
        // A successor sits down when its predecessor gets up.
        while let Some(process) = self.vacate(id) {
            self.dismiss(now, id, process, cause, how, None);
        }
        self.slot_mut(id).seat = Seat::Vacant;
        self.touch(id);
    }

    /// Ends the scale command once the pool has its size.
    pub(super) fn fulfil_scaling(&mut self, pool: PoolId) {
        let state = self.pool_mut(pool);
        if state.tally.unsettled > 0 || state.tally.surplus > 0 {
            return;
        }
        let Some(scaling) = state.scaling.take() else {
            return;
        };
        let (name, desired) = (&state.policy.name, state.desired);
        let message = match state.tally.missing {
            0 => format!("{name} has {desired} workers"),
            missing => format!("{name} has {desired} workers, {missing} of them not ready"),
        };
        for job in scaling.jobs {
            self.end(job, Ok(message.clone()));
        }
    }

    /// Ends the pool's scale command, if there is one, with a refusal.
    pub(super) fn fail_scaling(&mut self, pool: PoolId, refusal: &Refusal) {
        if let Some(scaling) = self.pool_mut(pool).scaling.take() {
            for job in scaling.jobs {
                self.end(job, Err(refusal.clone()));
            }
        }
    }

    /// Takes the jobs of the scale command that added this slot.
    pub(super) fn take_scaling_of(&mut self, id: SlotId) -> Vec<JobId> {
        self.pool_mut(id.pool)
            .scaling
            .take_if(|scaling| id.index >= scaling.added_from)
            .map_or_else(Vec::new, |scaling| scaling.jobs)
    }
}
