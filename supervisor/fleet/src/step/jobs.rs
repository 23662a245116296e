//! Commands whose askers wait: what each waits for, and how each ends, once.

use prefork_api::Exit;

use crate::Fleet;
use crate::interface::{Action, JobId, Refusal};
use crate::state::job::{Awaiting, Watch, counted};
use crate::state::leave::Leave;
use crate::state::rollout::Rollout;
use crate::state::slot::SlotId;

impl Fleet {
    /// Tells a job's asker the end.
    pub(crate) fn finish(&mut self, job: JobId, result: Result<String, Refusal>) {
        self.actions.push(Action::Finish { job, result });
    }

    /// Has a job wait for what `watch` says of the slot.
    pub(crate) fn watch(&mut self, id: SlotId, watch: Watch) {
        self.slot_mut(id).watches.push(watch);
        self.touch(id);
    }

    /// Ends a job that waits for slots, unless it has ended.
    pub(crate) fn end(&mut self, job: JobId, result: Result<String, Refusal>) {
        let Some(ended) = self.jobs.remove(&job) else {
            return;
        };
        let slots = match ended.slot {
            Some(index) => index..index + 1,
            None => 0..self.pool_mut(ended.pool).slots.len() as u32,
        };
        // Success leaves no watch behind.
        if result.is_err() {
            for index in slots {
                let pool = ended.pool;
                self.unwatch(SlotId { pool, index }, job);
            }
        }
        self.finish(job, result);
    }

    /// Lets a slot forget a job, and what it would have done for that job alone.
    fn unwatch(&mut self, id: SlotId, job: JobId) {
        let watches = &mut self.slot_mut(id).watches;
        let before = watches.len();
        watches.retain(|watch| watch.job != job);
        if watches.is_empty() && before > 0 {
            self.drop_idle_restart(id);
        }
    }

    /// Ends the watches of a slot whose wish has come true, or cannot any more.
    pub(crate) fn fulfil_watches(&mut self, id: SlotId) {
        if self.slot_mut(id).watches.is_empty() {
            return;
        }
        let wanted = self.is_wanted(id);
        let slot = self.slot_mut(id);
        let watches = std::mem::take(&mut slot.watches);
        let (over, waiting): (Vec<Watch>, Vec<Watch>) = watches
            .into_iter()
            .partition(|watch| watch.is_fulfilled(slot) || (!wanted && watch.newer_than.is_some()));
        slot.watches = waiting;
        for watch in over {
            let removed = !wanted && watch.newer_than.is_some();
            self.watch_over(id, watch.job, removed);
        }
    }

    /// One of a job's slots is done, or was `removed` by a scale or a reload.
    fn watch_over(&mut self, id: SlotId, job: JobId, removed: bool) {
        let name = self.name(id);
        let Some(state) = self.jobs.get_mut(&job) else {
            return;
        };
        if removed && state.slot.is_some() {
            let why = format!("{name} was removed meanwhile");
            self.end(job, Err(Refusal::failed(why)));
            return;
        }
        state.remaining -= 1;
        if state.remaining > 0 {
            return;
        }
        let (deed, total, one) = (state.deed, state.total, state.slot.is_some());
        let message = if one {
            format!("{name} {deed}")
        } else {
            let pool = &self.policy(id.pool).name;
            format!("{pool}: {} {deed}", counted(total))
        };
        self.end(job, Ok(message));
    }

    /// Ends the jobs that wait for a process which will not go.
    pub(crate) fn give_up_watches(&mut self, id: SlotId, incarnation: u64, why: &str) {
        let why = format!("{}: {why}", self.name(id));
        let jobs: Vec<JobId> = self
            .slot_mut(id)
            .watches
            .iter()
            .filter(|watch| watch.predecessor == Some(incarnation))
            .map(|watch| watch.job)
            .collect();
        for job in jobs {
            self.end(job, Err(Refusal::TimedOut(why.clone())));
        }
        if !self.is_wanted(id) {
            self.fail_scaling(id.pool, &Refusal::TimedOut(why));
        }
    }

    /// Ends the jobs that wait for the slot to come up, since `incarnation` did
    /// not: each goes no further, and is told why with the certificate.
    pub(crate) fn fail_watches(
        &mut self,
        id: SlotId,
        incarnation: u64,
        why: &str,
        exit: Option<&Exit>,
    ) {
        let slot = self.slot_mut(id);
        let mut jobs: Vec<JobId> = slot
            .watches
            .iter()
            .filter(|watch| watch.newer_than.is_some_and(|newer| incarnation > newer))
            .map(|watch| watch.job)
            .collect();
        for job in &jobs {
            self.stand_still(*job);
        }
        jobs.extend(self.take_scaling_of(id));
        for job in jobs {
            let who = Awaiting::Job(job);
            self.tell_failure(id, incarnation, who, why.to_owned(), exit);
        }
    }

    /// Keeps a job from going on; only its end is still to be told.
    fn stand_still(&mut self, job: JobId) {
        let Some(state) = self.jobs.get(&job) else {
            return;
        };
        let pool = state.pool;
        let slots = match state.slot {
            Some(index) => index..index + 1,
            None => 0..self.pool_mut(pool).slots.len() as u32,
        };
        for index in slots {
            self.unwatch(SlotId { pool, index }, job);
        }
    }

    /// Says to those who waited for a process's certificate why it failed.
    pub(crate) fn resolve_awaiting(
        &mut self,
        awaiting: Vec<(Awaiting, String)>,
        exit: Option<&Exit>,
    ) {
        for (who, why) in awaiting {
            match who {
                Awaiting::Job(job) => {
                    let stderr = exit.map_or_else(String::new, |exit| exit.stderr.clone());
                    let message = why;
                    self.end(job, Err(Refusal::Failed { message, stderr }));
                }
                Awaiting::Boot(id) => self.say_boot_failed(id, why, exit.cloned()),
                Awaiting::Reload => self.culprit_known(exit),
            }
        }
    }

    /// Has `who` told of a failure: now, or when the process is reaped that
    /// had to be killed for it.
    pub(crate) fn tell_failure(
        &mut self,
        id: SlotId,
        incarnation: u64,
        who: Awaiting,
        why: String,
        exit: Option<&Exit>,
    ) {
        let leaving = self.slot_mut(id).leaving.iter_mut().find(|leaving| {
            leaving.process.worker.incarnation == incarnation && leaving.stage != Leave::Stuck
        });
        match leaving {
            Some(leaving) => leaving.awaiting.push((who, why)),
            None => self.resolve_awaiting(vec![(who, why)], exit),
        }
    }

    /// Tells a slot's watchers about a step.
    pub(crate) fn tell_watchers(&mut self, id: SlotId, message: &str) {
        let pool = &self.pools[id.pool];
        let watches = pool.slots[id.index as usize].watches.iter();
        let scaling = pool
            .scaling
            .iter()
            .filter(|scaling| id.index >= scaling.added_from || id.index >= pool.desired);
        let jobs = watches
            .map(|watch| watch.job)
            .chain(scaling.flat_map(|scaling| scaling.jobs.iter().copied()))
            .chain(self.rollout.iter().flat_map(Rollout::jobs));
        self.actions.extend(jobs.map(|job| Action::Progress {
            job,
            pool: pool.policy.name.clone(),
            slot: Some(id.index),
            message: message.to_owned(),
        }));
    }

    /// Ends every job in progress, since nothing it waits for will come.
    pub(crate) fn end_all_jobs(&mut self, why: &str) {
        let mut jobs: Vec<JobId> = std::mem::take(&mut self.jobs).into_keys().collect();
        for pool in self.pools.iter_mut() {
            pool.scaling = None;
            for slot in &mut pool.slots {
                slot.watches.clear();
                jobs.extend(slot.asking.take().into_iter().flat_map(|a| a.jobs));
            }
        }
        for job in jobs {
            self.finish(job, Err(Refusal::failed(why)));
        }
        self.tell_all_in_force();
        self.abandon_rollout(why);
    }
}

impl Refusal {
    /// A refusal in which no worker's stderr has a part.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed {
            message: message.into(),
            stderr: String::new(),
        }
    }
}
