//! The canary of a reload: the first workers of a pool's new generation serve beside
//! those of the old one, are compared with them, and the others follow or nobody does.
//!
//! It is a stop on a rollout's way: the first batch of the pool has come up (`rollout`),
//! and nothing else is replaced, in any pool, until there is a verdict on every canary.
//! What is counted and compared is in `trial`; a canary that is worse is undone as any
//! other failure of the new generation (`rollback`).

use std::time::Duration;

use crate::Fleet;
use crate::interface::{Action, JobId, PoolId, Refusal, Report, Time, Worker};
use crate::state::canary::{Candidate, Hearing, NoVerdict, Verdict};
use crate::state::rollout::{Batch, Part, Stage};
use crate::state::slot::SlotId;
use crate::state::trial::{Finding, INTERVAL, Traffic, Trial};

impl Fleet {
    /// Whether the pool has to wait for the verdict on a canary, its own or another
    /// pool's, before more of it is replaced.
    pub(crate) fn awaits_verdict(&self, pool: PoolId) -> bool {
        if !self.rollout.as_ref().is_some_and(|it| it.is_forward()) {
            return false;
        }
        let is_canary = |part: &Part| part.canary_workers().is_some();
        let part = self.pools[pool].part.as_ref();
        !part.is_some_and(is_canary) && self.has_canaries()
    }

    /// Whether there is a canary on which there is no verdict.
    pub fn has_canaries(&self) -> bool {
        let mut parts = self.pools.iter().filter_map(|pool| pool.part.as_ref());
        parts.any(|part| part.canary.is_some())
    }

    /// Begins to judge a canary that has come up, unless that has been done. Those of its
    /// workers that were killed before they were of the new generation are no part of it,
    /// and where none is left, others take their turn.
    pub(crate) fn hear(&mut self, now: Time, pool: PoolId) {
        let new = self.count_new(pool);
        let candidate = self.candidate_mut(pool);
        let Some(candidate) = candidate.filter(|it| it.hearing.is_none()) else {
            return;
        };
        candidate.workers = candidate.workers.min(new.max(1));
        if new == 0 && !self.pools[pool].queue.is_empty() {
            return self.begin_again(now, pool);
        }
        let Some(candidate) = self.candidate_mut(pool) else {
            return;
        };
        let duration = candidate.terms.duration;
        candidate.hearing = Some(Hearing {
            trial: Trial::new(candidate.terms.clone()),
            ends: now.after(duration),
            look: now.after(INTERVAL),
            tell: now.after(between_words(duration)),
        });
        let workers = candidate.workers;
        // What was served before is no part of it.
        self.actions.push(Action::Count { pool });
        self.actions
            .push(Action::Report(Report::CanaryBegun { pool, workers }));
        let of = self.pools[pool].desired;
        let message = format!("canary: {workers} of {of} workers are judged for {duration:?}");
        self.tell_rollout(pool, message);
        self.touch(SlotId { pool, index: 0 });
    }

    /// Has a first batch take its turn once more.
    fn begin_again(&mut self, now: Time, pool: PoolId) {
        if let Some(part) = &mut self.pool_mut(pool).part {
            part.batch = Batch::First;
        }
        self.admit(now, pool);
    }

    /// How many slots of a pool have a worker of the new generation.
    fn count_new(&self, pool: PoolId) -> u32 {
        let slots = self.pools[pool].slots.iter();
        let processes = slots.filter_map(|slot| slot.current());
        let new = processes.filter(|process| process.generation > self.generation);
        u32::try_from(new.count()).unwrap_or(u32::MAX)
    }

    fn candidate_mut(&mut self, pool: PoolId) -> Option<&mut Candidate> {
        self.pools[pool].part.as_mut()?.canary.as_mut()
    }

    fn hearing_mut(&mut self, pool: PoolId) -> Option<&mut Hearing> {
        self.candidate_mut(pool)?.hearing.as_mut()
    }

    /// When the canary of a pool is looked at next, if it is judged.
    pub(crate) fn next_look(&self, pool: PoolId) -> Option<Time> {
        self.pools[pool].part.as_ref()?.canary.as_ref()?.due()
    }

    /// Asks for what has been counted, if it is time.
    pub(crate) fn canary_due(&mut self, now: Time, pool: PoolId) {
        if let Some(hearing) = self.hearing_mut(pool)
            && hearing.look <= now
        {
            hearing.look = now.after(INTERVAL);
            self.actions.push(Action::Count { pool });
        }
    }

    /// What the processes of a pool have counted by now.
    pub(crate) fn counted(
        &mut self,
        now: Time,
        pool: PoolId,
        bounds: &'static [f64],
        tallies: Vec<(Worker, Traffic)>,
    ) {
        let in_force = self.generation;
        let generation_of = |worker: Worker| Some(self.process(worker)?.generation());
        let tallies: Vec<(Worker, bool, Traffic)> = tallies
            .into_iter()
            .filter_map(|(worker, tally)| Some((worker, generation_of(worker)? > in_force, tally)))
            .collect();
        if self.pools.get(pool).is_none() {
            return;
        }
        let Some(candidate) = self.candidate_mut(pool) else {
            return;
        };
        let duration = candidate.terms.duration;
        let Some(hearing) = &mut candidate.hearing else {
            return;
        };
        if !hearing.trial.has_begun() {
            // It lasts as long as it is to from the moment that is counted from.
            hearing.ends = now.after(duration);
            hearing.look = now.after(INTERVAL);
        }
        hearing.trial.count(bounds, tallies);
        let finding = hearing.trial.finding();
        let is_over = hearing.ends <= now;
        match finding {
            Finding::Worse(fault) => {
                let compared = hearing.trial.compared(fault);
                self.undo_canary(now, pool, Verdict::Failed, &compared);
            }
            Finding::Sound if is_over => {
                let compared = hearing.trial.to_string();
                self.pass_canary(now, pool, Verdict::Passed, &compared);
            }
            Finding::TooFew if is_over => self.give_no_verdict(now, pool),
            Finding::Sound | Finding::TooFew => self.tell_how_it_stands(now, pool),
        }
    }

    fn give_no_verdict(&mut self, now: Time, pool: PoolId) {
        let Some(candidate) = self.candidate_mut(pool) else {
            return;
        };
        let Some(hearing) = &candidate.hearing else {
            return;
        };
        let least = candidate.terms.min_requests;
        let why = format!(
            "it takes {least} requests of each generation: {}",
            hearing.trial
        );
        if candidate.terms.on_no_verdict == NoVerdict::Proceed {
            self.pass_canary(now, pool, Verdict::None, &why);
        } else {
            self.undo_canary(now, pool, Verdict::None, &why);
        }
    }

    /// Tells those who wait how a canary stands, from time to time.
    fn tell_how_it_stands(&mut self, now: Time, pool: PoolId) {
        let Some(candidate) = self.candidate_mut(pool) else {
            return;
        };
        let pause = between_words(candidate.terms.duration);
        let Some(hearing) = candidate.hearing.as_mut().filter(|it| it.tell <= now) else {
            return;
        };
        hearing.tell = now.after(pause);
        let left = hearing.ends.since(now).as_secs_f64().ceil();
        let message = format!("canary: {}; {left} s left", hearing.trial);
        self.tell_rollout(pool, message);
    }

    /// Ends a canary well: the others follow.
    fn pass_canary(&mut self, now: Time, pool: PoolId, verdict: Verdict, compared: &str) {
        if let Some(part) = &mut self.pool_mut(pool).part {
            part.canary = None;
        }
        let message = format!("canary: {verdict}, {compared}");
        self.report_verdict(pool, verdict, &message);
        self.tell_rollout(pool, message);
        if self.has_canaries() {
            return;
        }
        // Whoever waited for the last verdict goes on.
        for pool in self.pools.ids() {
            self.admit(now, pool);
            self.touch(SlotId { pool, index: 0 });
        }
    }

    /// Ends a canary badly: everything goes back.
    fn undo_canary(&mut self, now: Time, pool: PoolId, verdict: Verdict, compared: &str) {
        let message = format!("canary: {verdict}, {compared}");
        self.report_verdict(pool, verdict, &message);
        self.tell_rollout(pool, format!("{message}; rolling back"));
        let name = &self.policy(pool).name;
        let why = format!("{name}: {message}");
        self.turn_around(now, why);
        // No process died of it, so that no stderr is to be waited for.
        self.culprit_known(None);
    }

    /// An operator has seen enough: every canary has passed.
    pub(crate) fn promote(&mut self, now: Time, job: JobId) -> Result<(), Refusal> {
        let pools = self.canaries()?;
        if let Some(rollout) = &mut self.rollout {
            rollout.promoters.push(job);
        }
        for pool in pools {
            let compared = self.how_it_stands(pool);
            self.pass_canary(now, pool, Verdict::Promoted, &compared);
        }
        Ok(())
    }

    /// An operator has seen enough: the reload is undone.
    pub(crate) fn abort(&mut self, now: Time, job: JobId) -> Result<(), Refusal> {
        let pools = self.canaries()?;
        if let Some(rollout) = &mut self.rollout {
            rollout.aborters.push(job);
        }
        if let Some(pool) = pools.first() {
            let compared = self.how_it_stands(*pool);
            self.undo_canary(now, *pool, Verdict::Aborted, &compared);
        }
        Ok(())
    }

    fn how_it_stands(&mut self, pool: PoolId) -> String {
        match self.hearing_mut(pool) {
            Some(hearing) => hearing.trial.to_string(),
            None => "before it was up".to_owned(),
        }
    }

    /// The pools that have canaries; a refusal where there is none.
    fn canaries(&self) -> Result<Vec<PoolId>, Refusal> {
        let pools = self.pools.iter().filter(|pool| {
            let part = pool.part.as_ref();
            part.is_some_and(|part| part.canary.is_some())
        });
        let pools: Vec<PoolId> = pools.map(|pool| pool.id).collect();
        let stage = self.rollout.as_ref().map(|rollout| &rollout.stage);
        match (pools.is_empty(), stage) {
            (false, _) => Ok(pools),
            (true, None) => Err(Refusal::failed(
                "no canary is being judged: there is no reload in progress",
            )),
            (true, Some(Stage::Back(_))) => Err(Refusal::failed(
                "no canary is being judged: the reload is being rolled back",
            )),
            (true, Some(_)) => Err(Refusal::failed(
                "no canary is being judged: the reload in progress has none, or has its verdict",
            )),
        }
    }

    /// Whether the slot is one of those that are being judged.
    pub(crate) fn is_judged(&self, id: SlotId) -> bool {
        let is_new = |generation| generation > self.generation;
        let process = self.slot(id).and_then(|slot| slot.current());
        self.next_look(id.pool).is_some() && process.is_some_and(|it| is_new(it.generation))
    }

    /// A worker that is being judged holds more than `max_rss`.
    pub(crate) fn canary_grew(&mut self, now: Time, id: SlotId, holds: u64, limit: u64) {
        const MIB: f64 = (1 << 20) as f64;
        let compared = format!(
            "{} holds {:.1} MiB, max_rss is {:.1} MiB; {}",
            self.name(id),
            holds as f64 / MIB,
            limit as f64 / MIB,
            self.how_it_stands(id.pool)
        );
        self.undo_canary(now, id.pool, Verdict::Failed, &compared);
    }

    /// Reports that a canary failed with a worker; how it stood, for whoever is told why.
    pub(crate) fn canary_failed_with(&mut self, id: SlotId, why: &str) -> Option<String> {
        self.next_look(id.pool)?;
        let stood = format!("canary: {}", self.how_it_stands(id.pool));
        self.report_verdict(id.pool, Verdict::Failed, &format!("{why}; {stood}"));
        Some(stood)
    }

    fn report_verdict(&mut self, pool: PoolId, verdict: Verdict, message: &str) {
        self.actions.push(Action::Report(Report::CanaryEnded {
            pool,
            verdict,
            message: message.to_owned(),
        }));
    }

    /// Tells those who asked for the reload, and who promoted or aborted it, something
    /// that concerns a whole pool.
    fn tell_rollout(&mut self, pool: PoolId, message: String) {
        let Some(rollout) = &self.rollout else {
            return;
        };
        let jobs: Vec<JobId> = rollout.jobs().collect();
        let pool = self.policy(pool).name.clone();
        self.actions
            .extend(jobs.into_iter().map(|job| Action::Progress {
                job,
                pool: pool.clone(),
                slot: None,
                message: message.clone(),
            }));
    }
}

/// How long those who wait for a verdict are left without a word.
fn between_words(duration: Duration) -> Duration {
    (duration / 10).max(INTERVAL)
}

#[cfg(test)]
mod tests;
