//! What has happened of a reload, and what must be true of one: it is put in
//! force or rolled back, as a whole, and costs no pool a worker that serves.

use std::collections::BTreeSet;

use prefork_api::SlotState;
use prefork_fleet::{
    Ask, AskError, Canary, Fate, Fleet, JobId, NoVerdict, Plan, PlannedPool, Policy, PoolId,
    PoolView, ProcessView, Time, Verdict, Worker,
};

use crate::facts::{Facts, REAPING_PATIENCE};
use crate::pools::PoolFacts;
use crate::world::World;

/// A reload in progress.
pub(crate) struct Reload {
    pub(crate) job: JobId,
    pub(crate) generation: u64,
    /// The pools before, and those that are to be.
    before: Vec<(String, u32)>,
    after: Vec<(String, u32)>,
    /// Whether something has gone wrong that must undo it.
    pub(crate) failed: bool,
    /// It is known to have failed.
    pub(crate) is_lost: bool,
    /// What its asker was told, if that has happened.
    pub(crate) told: Option<bool>,
    /// Its processes.
    newcomers: BTreeSet<Worker>,
    /// The pools whose canary is being judged.
    judged: BTreeSet<PoolId>,
    /// Its processes that have not been asked to serve yet.
    pub(crate) on_probation: BTreeSet<Worker>,
    /// Whether pools go that it does not name: then it has ended.
    pub(crate) dissolves: bool,
}

/// What a reload wants of a pool.
pub(crate) struct Planned {
    pub(crate) policy: Policy,
    /// How many slots it had; none if it is new.
    pub(crate) before: Option<u32>,
    /// Whether the reload leaves their processes alone.
    kept: bool,
    /// How many processes were started to be tried first.
    tried: u32,
    /// How many of them have passed.
    passed: u32,
    /// How its first workers are judged, until there is a verdict.
    canary: Option<Canary>,
    /// How many workers it has at most.
    first_batch: u32,
}

impl Planned {
    /// How many successors there may be at a time: a canary starts as a whole, and some of
    /// it may be there still when an operator has it pass.
    pub(crate) fn max_surge(&self) -> u32 {
        self.policy.max_surge.max(self.first_batch)
    }
}

/// A reload that has just ended.
pub(crate) struct Ended {
    generation: u64,
    pools: Vec<(String, u32)>,
    committed: bool,
}

impl Facts {
    /// The configuration in force, as the last reload left it.
    pub(crate) fn configured(&self, fleet: &Fleet) -> Vec<Policy> {
        fleet
            .pools()
            .map(|pool| &self.pools[pool.id().0 as usize])
            .filter(|pool| !pool.retired)
            .map(|pool| pool.policy.clone())
            .collect()
    }

    /// A reload is about to be asked for.
    pub(crate) fn reload_commanded(&mut self, fleet: &Fleet, job: JobId, plan: &Plan) {
        if !self.booted || self.stopping || fleet.reloading().is_some() {
            return;
        }
        self.happened.reloads += 1;
        let before = fleet.pools().map(sized);
        let after = plan.pools.iter().map(|pool| &pool.policy);
        let after = after.map(|it| (it.name.clone(), self.size_by(it)));
        self.reload = Some(Reload {
            job,
            generation: plan.generation,
            before: before.filter(|(_, desired)| *desired > 0).collect(),
            after: after.collect(),
            failed: false,
            is_lost: false,
            told: None,
            newcomers: BTreeSet::new(),
            judged: BTreeSet::new(),
            on_probation: BTreeSet::new(),
            dissolves: false,
        });
        for pool in &plan.pools {
            let kept = pool.fate == Fate::Kept && !self.is_restarted(&pool.policy.name);
            self.plan(pool, kept);
        }
        self.restarting.clear();
    }

    /// How many workers a pool has once this is in force: as many as before where it
    /// says nothing new of that.
    fn size_by(&self, policy: &Policy) -> u32 {
        let known = self.pools.iter().find(|pool| pool.is_named(&policy.name));
        let same = known.filter(|pool| pool.policy.workers == policy.workers);
        same.map_or(policy.workers, |pool| pool.desired)
    }

    /// Whether a restart in the pool has not ended, which the reload does instead.
    fn is_restarted(&self, pool: &str) -> bool {
        let mut restarts = self.restarting.iter();
        restarts.any(|(job, it)| it == pool && self.open_jobs.contains(job))
    }

    fn plan(&mut self, pool: &PlannedPool, kept: bool) {
        let policy = &pool.policy;
        let mut pools = self.pools.iter_mut();
        let known = pools.find(|pool| pool.is_named(&policy.name));
        let before = known.as_ref().map(|pool| pool.desired);
        let planned = Planned {
            policy: policy.clone(),
            before,
            kept,
            tried: 0,
            passed: 0,
            canary: pool.canary.clone(),
            first_batch: pool.canary.as_ref().map_or(0, |canary| canary.workers),
        };
        if let Some(pool) = known {
            pool.planned = Some(planned);
            for slot in &mut pool.slots[..before.unwrap_or(0) as usize] {
                slot.reasons += u64::from(!kept);
                slot.restores_failed = 0;
            }
        } else {
            let mut pool = PoolFacts::new(policy);
            pool.planned = Some(planned);
            self.pools.push(pool);
        }
    }

    /// Whether the worker is one of the generation that a reload brings, which
    /// has not failed.
    pub(crate) fn is_hopeful(&self, worker: Worker) -> bool {
        self.reload
            .as_ref()
            .is_some_and(|reload| !reload.failed && reload.newcomers.contains(&worker))
    }

    /// Whether the worker must not serve yet.
    pub(crate) fn is_on_probation(&self, worker: Worker) -> bool {
        self.reload
            .as_ref()
            .is_some_and(|reload| reload.on_probation.contains(&worker))
    }

    /// Something has gone wrong that must undo the reload.
    pub(crate) fn fail_reload(&mut self) {
        let Some(reload) = &mut self.reload else {
            return;
        };
        if std::mem::replace(&mut reload.failed, true) {
            return;
        }
        for pool in &mut self.pools {
            match pool.planned.as_ref().map(|planned| planned.before) {
                Some(Some(before)) => {
                    for slot in &mut pool.slots[..before as usize] {
                        slot.reasons += 1;
                        slot.commands += 1;
                    }
                }
                Some(None) => pool.retire(),
                None => {}
            }
        }
    }

    /// Only the generation in force starts, or the one that a reload brings; of
    /// that, the first of a pool are tried before others follow.
    pub(crate) fn may_run(&mut self, worker: Worker, generation: u64, paused: bool) {
        let reload = self.reload.as_mut();
        let Some(reload) = reload.filter(|reload| reload.generation == generation) else {
            assert_eq!(generation, self.generation, "{worker:?}");
            assert!(!paused, "{worker:?} is of the generation in force");
            return;
        };
        assert!(!reload.failed, "{worker:?} of a failed generation starts");
        let in_its_slot = |it: &Worker| (it.pool, it.slot) == (worker.pool, worker.slot);
        let follows_its_own = reload.newcomers.iter().any(in_its_slot);
        assert!(
            reload.judged.is_empty() || follows_its_own,
            "{worker:?} starts before the verdict on {:?}",
            reload.judged
        );
        reload.newcomers.insert(worker);
        let pool = &mut self.pools[worker.pool.0 as usize];
        let planned = pool.planned.as_mut().expect("a pool of the plan");
        let replaces = planned.before.is_some_and(|before| worker.slot < before);
        assert!(
            !(replaces && planned.kept),
            "{worker:?} replaces one that stays"
        );
        if paused {
            assert!(
                replaces && !planned.policy.min_ready.is_zero(),
                "{worker:?}"
            );
            reload.on_probation.insert(worker);
            planned.tried += 1;
            assert!(planned.tried <= planned.max_surge(), "{worker:?}");
        } else if planned.tried > 0 && !follows_its_own {
            assert_eq!(planned.passed, planned.tried, "{worker:?} came too early");
        }
    }

    /// The first workers of a pool are judged, no more of them than was asked for.
    pub(crate) fn canary_begins(&mut self, pool: PoolId, workers: u32) {
        let reload = self.reload.as_mut().expect("a reload that has not ended");
        assert!(!reload.failed && reload.judged.insert(pool));
        let planned = self.pools[pool.0 as usize].planned.as_ref();
        let terms = planned.and_then(|it| it.canary.as_ref());
        let most = terms.expect("a canary was asked for").workers;
        assert!((1..=most).contains(&workers), "{workers} of {most}");
        let newcomers = reload.newcomers.iter().filter(|it| it.pool == pool);
        assert!(newcomers.count() >= workers as usize);
    }

    /// There is a verdict: once, and it says what becomes of the reload.
    pub(crate) fn canary_ends(&mut self, pool: PoolId, verdict: Verdict) {
        let reload = self.reload.as_mut().expect("a reload that has not ended");
        reload.judged.remove(&pool);
        let planned = self.pools[pool.0 as usize].planned.as_mut();
        let terms = planned.and_then(|it| it.canary.take());
        let terms = terms.expect("there is one verdict on a canary");
        let undone = match verdict {
            Verdict::Passed | Verdict::Promoted => false,
            Verdict::None => terms.on_no_verdict == NoVerdict::Undo,
            Verdict::Failed | Verdict::Aborted => true,
        };
        self.happened.canaries += 1;
        self.happened.canaries_undone += u64::from(undone);
        if undone {
            self.fail_reload();
        }
    }

    /// A worker that has not been told to leave has answered.
    pub(crate) fn answered(&mut self, worker: Worker, ask: Ask, result: &Result<(), AskError>) {
        let Some(reload) = &mut self.reload else {
            return;
        };
        match ask {
            Ask::Resume if reload.on_probation.remove(&worker) => {
                let pool = &mut self.pools[worker.pool.0 as usize];
                if result.is_ok() {
                    pool.planned.as_mut().expect("of the plan").passed += 1;
                    pool.slots[worker.slot as usize].serving.push(worker);
                }
            }
            Ask::Reload { generation } if generation == reload.generation => {
                if result.is_ok() && !reload.failed {
                    reload.newcomers.insert(worker);
                }
            }
            _ => return,
        }
        if result.is_err() {
            self.fail_reload();
        }
    }

    /// A question is put to a worker.
    pub(crate) fn may_ask(&self, worker: Worker, ask: Ask, ready_at: Time, now: Time) {
        match ask {
            Ask::Resume if self.is_on_probation(worker) => {
                let planned = self.pools[worker.pool.0 as usize].planned.as_ref();
                let least = planned.expect("of the plan").policy.min_ready;
                assert!(now.since(ready_at) >= least, "{worker:?} was hardly tried");
            }
            Ask::Reload { generation } => {
                let reload = self.reload.as_ref().expect("asked in a reload");
                let wanted = if reload.failed {
                    self.generation
                } else {
                    reload.generation
                };
                assert_eq!(generation, wanted, "{worker:?}");
            }
            _ => {}
        }
    }

    /// A worker that serves leaves for the reload's sake: only if another
    /// serves in its slot, or the slot goes.
    pub(crate) fn may_leave(&mut self, worker: Worker) {
        let serves = !self.is_on_probation(worker);
        let pool = &self.pools[worker.pool.0 as usize];
        let slot = &pool.slots[worker.slot as usize];
        if self.stopping || !serves || !slot.serving.is_empty() || worker.slot >= pool.desired {
            return;
        }
        if let (Some(reload), None) = (&mut self.reload, &pool.planned) {
            reload.dissolves = true;
            return;
        }
        assert!(slot.restores_failed >= 3, "{worker:?} is missed: {slot:?}");
    }

    /// How the reload ends is known: once, and before its asker is told.
    pub(crate) fn reloaded(&mut self, generation: u64, committed: bool, now: Time) {
        let reload = self.reload.as_mut().expect("a reload that has not ended");
        assert!(reload.told.is_none() && !reload.is_lost);
        if !committed {
            assert!(self.stopping || reload.failed);
            assert_eq!(generation, self.generation);
            reload.is_lost = true;
            return;
        }
        assert!(!reload.failed && generation == reload.generation);
        assert!(reload.judged.is_empty(), "there is no verdict yet");
        let reload = self.reload.take().expect("it was there");
        self.untold.insert(reload.job, now);
        self.generation = generation;
        self.happened.committed += 1;
        self.just_reloaded = Some(Ended {
            generation,
            pools: reload.after,
            committed,
        });
        for pool in &mut self.pools {
            let Some(planned) = pool.planned.take() else {
                pool.retire();
                continue;
            };
            pool.kept = if planned.kept {
                planned.before.unwrap_or(0)
            } else {
                0
            };
            pool.policy = planned.policy;
        }
    }

    /// Nothing is left of a reload that has failed, as its asker was told.
    pub(crate) fn rollback_ended(&mut self) {
        let reload = self.reload.take().expect("a reload that has not ended");
        assert!(reload.is_lost);
        assert!(!self.open_jobs.contains(&reload.job));
        assert_eq!(reload.told, Some(false));
        if self.stopping {
            self.happened.cut_short += 1;
        } else {
            self.happened.rolled_back += 1;
            self.just_reloaded = Some(Ended {
                generation: reload.generation,
                pools: reload.before,
                committed: false,
            });
        }
        for pool in &mut self.pools {
            pool.planned = None;
        }
    }
}

fn sized(pool: PoolView<'_>) -> (String, u32) {
    (pool.name().to_owned(), pool.desired())
}

impl World {
    /// After a commit everything is of the new generation and ready; after a
    /// rollback nothing is of it.
    pub(crate) fn check_reload(&mut self) {
        if let Some(reload) = &self.facts.reload {
            assert!(!reload.dissolves, "a pool goes before the commit");
        }
        let Some(ended) = self.facts.just_reloaded.take() else {
            return;
        };
        assert_eq!(self.fleet.reloading(), None);
        let pools: Vec<PoolView<'_>> = self.fleet.pools().take(ended.pools.len()).collect();
        let sizes: Vec<(String, u32)> = pools.iter().copied().map(sized).collect();
        assert_eq!(sizes, ended.pools);
        for pool in self.fleet.pools() {
            for slot in pool.slots() {
                let now = slot.processes().filter(|process| self.counts(*process));
                let mut newcomers = now.filter(|it| it.generation() == ended.generation);
                let newcomer = newcomers.next().map(|process| process.worker());
                assert!(
                    ended.committed || newcomer.is_none(),
                    "{newcomer:?} is left"
                );
                let Some(current) = slot.current() else {
                    let kept = self.facts.pools[pool.id().0 as usize].kept;
                    assert!(
                        !ended.committed || slot.index() >= pool.desired() || slot.index() < kept
                    );
                    continue;
                };
                let worker = current.worker();
                let kept = slot.index() < self.facts.pools[pool.id().0 as usize].kept;
                if ended.committed && !kept {
                    assert_eq!(slot.state(), SlotState::Ready, "{worker:?}");
                }
                assert_eq!(current.generation(), self.fleet.generation(), "{worker:?}");
                if ended.committed && kept {
                    let process = self.processes.get_mut(&worker).expect("it is there");
                    process.settings = current.generation();
                }
                let settings = self.processes[&worker].settings;
                assert_eq!(settings, current.generation(), "{worker:?}'s settings");
            }
        }
        self.facts.forget_unused_reasons(&self.fleet);
    }

    /// Whether a process may still go.
    fn counts(&self, process: ProcessView<'_>) -> bool {
        self.processes
            .get(&process.worker())
            .and_then(|process| process.killed_at)
            .is_none_or(|at| self.now.since(at) < REAPING_PATIENCE)
    }
}
