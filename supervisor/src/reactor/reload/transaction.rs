//! A reload from the reactor's side: read and check, pin and bind, hand the
//! plan to the fleet, and clean up when the fleet says how it ended.

use prefork_proto::capability;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::SystemTime;

use prefork_api::{ApiError, ErrorCode, JobLine, JobResult, LastReload};
use prefork_fleet::{Command, Fate, JobId, Plan, PlannedPool};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, info, warn};

use crate::config::{self, Config};
use crate::helper::read_config::{self, ReadError};
use crate::reactor::generation::history::{Past, PastGenerations};
use crate::reactor::generation::revision::Edition;
use crate::reactor::listeners::sockets::{Granted, Sockets};
use crate::reactor::observe::events::About;
use crate::reactor::reload::hooks::{Ending, Waiting};
use crate::reactor::reload::scope::Scope;
use crate::reactor::{Reactor, unix_seconds};

/// Why a reload is not queued behind one whose canary is judged: that takes as long as
/// nobody can foresee who asks.
const JUDGED: &str = "a reload is in progress, and its canary is being judged: \
                      `prefork promote` or `prefork abort` ends that";

/// What the reactor knows of reloads.
#[derive(Debug, Default)]
pub(in crate::reactor) struct Reloads {
    /// Those who asked for the one whose configuration is being read, and for what.
    pub(in crate::reactor) reading: Option<(Scope, Vec<UnboundedSender<JobLine>>)>,
    /// Whether the commands before one are being run.
    pub(in crate::reactor) stepping: bool,
    /// The one in progress.
    pub(in crate::reactor) current: Option<Reload>,
    /// Those in force of which the commands after them are being run.
    pub(in crate::reactor) ending: BTreeMap<JobId, Ending>,
    /// What was asked for meanwhile, and those who asked, where that was not by a signal:
    /// one more reload serves them all.
    waiting: Option<(Scope, Vec<UnboundedSender<JobLine>>)>,
    /// How the last one went.
    pub(in crate::reactor) last: Option<LastReload>,
    /// Whether the last one did not come into force, so that there is nothing to undo.
    pub(in crate::reactor) undone: bool,
    /// What was in force before.
    pub(in crate::reactor) history: PastGenerations,
    /// The highest generation number ever tried.
    pub(in crate::reactor) tried: u64,
}

impl Reloads {
    /// Whether one is on its way.
    pub(in crate::reactor) fn is_busy(&self) -> bool {
        self.reading.is_some() || self.stepping || self.current.is_some()
    }
}

/// What a configuration is read for.
#[derive(Debug)]
pub(in crate::reactor) enum Purpose {
    /// To be put in force.
    Reload,
    /// To tell what that would change.
    Rehearsal(Scope, UnboundedSender<JobLine>),
}

/// What was done beside the loop.
#[derive(Debug)]
pub(in crate::reactor) enum Reading {
    /// A configuration was read, or why not.
    Configuration(Purpose, Result<Config, ReadError>),
    /// The commands before a reload have ended.
    Before(Waiting, Result<(), ApiError>),
    /// The commands after a reload, this job, have ended.
    After(JobId, Result<(), ApiError>),
}

/// A reload in progress.
#[derive(Debug)]
pub(in crate::reactor) struct Reload {
    pub(in crate::reactor) generation: u64,
    config: Config,
    /// The generation in force when it began.
    before: u64,
    /// The generation that it puts in force again, if it does.
    back_to: Option<u64>,
    granted: Vec<Granted>,
    /// Whom its end is told.
    job: JobId,
    /// The pools of which it changes anything, for the commands after it; none where there
    /// are no such commands.
    changed: Option<String>,
}

/// Everything that a reload needs before a worker is touched.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    editions: Vec<Rc<Edition>>,
    config: Config,
    /// Unix sockets that have other permissions or another group by now.
    granted: Vec<Granted>,
    /// The generation that it puts in force again, if it does.
    back_to: Option<u64>,
}

impl Reactor {
    /// Reloads now, or once the reload in progress has ended.
    pub(in crate::reactor) fn reload(
        &mut self,
        scope: Scope,
        asker: Option<UnboundedSender<JobLine>>,
    ) {
        if !self.reloads.is_busy() {
            self.reload_for(scope, asker.into_iter().collect());
            return;
        }
        if let Some(asker) = asker.as_ref().filter(|_| self.fleet.has_canaries()) {
            let _ = asker.send(JobLine::Result(failed(ApiError::new(
                ErrorCode::Failed,
                JUDGED,
            ))));
            return;
        }
        tell(&asker, "waits for the reload in progress");
        match &mut self.reloads.waiting {
            Some((wanted, askers)) => {
                wanted.add(scope);
                askers.extend(asker);
            }
            none => *none = Some((scope, asker.into_iter().collect())),
        }
    }

    fn reload_for(&mut self, scope: Scope, askers: Vec<UnboundedSender<JobLine>>) {
        self.notifier.reloading();
        self.reloads.reading = Some((scope, askers));
        self.read(Purpose::Reload);
    }

    /// Has the configuration read; `has_read` goes on with it.
    pub(super) fn read(&self, purpose: Purpose) {
        let (options, readings) = (self.options.clone(), self.readings.clone());
        tokio::task::spawn_local(async move {
            let read = read_config::read(&options).await;
            // The reactor drops its end only when it ends itself.
            let _ = readings.send(Reading::Configuration(purpose, read));
        });
    }

    /// Something was done beside the loop.
    pub(in crate::reactor) fn has_done(&mut self, reading: Reading) {
        match reading {
            Reading::Configuration(purpose, read) => self.has_read(purpose, read),
            Reading::Before(waiting, done) => self.has_stepped(waiting, done),
            Reading::After(job, done) => self.has_ended(job, done),
        }
    }

    /// The configuration was read, or could not be.
    fn has_read(&mut self, purpose: Purpose, read: Result<Config, ReadError>) {
        let read = read.map_err(|error| {
            let code = match &error {
                ReadError::Invalid(_) => ErrorCode::Config,
                ReadError::TimedOut => ErrorCode::TimedOut,
                ReadError::NotRead(_) => ErrorCode::Failed,
            };
            ApiError::new(code, error.to_string())
        });
        match purpose {
            Purpose::Rehearsal(scope, asker) => self.compare(read, &scope, &asker),
            Purpose::Reload => {
                let Some((scope, askers)) = self.reloads.reading.take() else {
                    return;
                };
                match read.and_then(|config| scope.select(&self.config, config)) {
                    Ok(config) => self.step_to(config, scope, askers),
                    Err(error) => self.reject(error, &askers),
                }
            }
        }
    }

    /// Puts a configuration in force, or says why not.
    pub(in crate::reactor) fn apply(
        &mut self,
        config: Config,
        scope: &Scope,
        askers: Vec<UnboundedSender<JobLine>>,
    ) {
        // What comes before may have changed what lies on the disk.
        let has_steps = !config.steps.after.is_empty();
        let changed = has_steps.then(|| self.changed_pools(&config, scope));
        match self.prepare(config, scope) {
            Ok(prepared) => {
                self.tell_of(&prepared, &askers);
                self.tell_who_stays(&prepared.plan, scope, &askers);
                self.begin(prepared, changed, askers);
            }
            Err(error) => self.reject(error, &askers),
        }
    }

    /// Says that a generation begins, and what is to be known of its configuration.
    pub(super) fn tell_of(&self, prepared: &Prepared, askers: &[UnboundedSender<JobLine>]) {
        tell(askers, &begins(prepared.plan.generation, prepared.back_to));
        for warning in config::warnings(&prepared.config, SystemTime::now()) {
            warn!("reload: {warning}");
            tell(askers, &warning);
        }
        for change in config::diff(&self.config, &prepared.config) {
            if change.needs_restart() {
                warn!("reload: {change}");
                tell(askers, &change.to_string());
            }
        }
    }

    /// Says which of the pools that were asked for keep their workers, so that nobody takes
    /// their old pids for a reload that has done nothing.
    fn tell_who_stays(&self, plan: &Plan, scope: &Scope, askers: &[UnboundedSender<JobLine>]) {
        let kept = plan.pools.iter().filter(|pool| pool.fate == Fate::Kept);
        for pool in kept
            .map(|pool| &pool.policy.name)
            .filter(|name| scope.has(name))
        {
            info!(
                pool,
                "reload: its workers stay, since those after them would be the same"
            );
            for asker in askers {
                let _ = asker.send(JobLine::step(pool.clone(), "its workers stay, since those after them would be the same (--force replaces them)"));
            }
        }
    }

    /// The configuration that a generation's workers are started by.
    pub(in crate::reactor) fn config_of(&self, generation: u64) -> &Config {
        match &self.reloads.current {
            Some(reload) if reload.generation == generation => &reload.config,
            _ => &self.config,
        }
    }

    /// The number of the generation that the next reload brings.
    pub(in crate::reactor) fn next_generation(&self) -> u64 {
        self.reloads.tried.max(self.fleet.generation()) + 1
    }

    /// Everything that can go wrong before a worker is touched.
    fn prepare(&self, config: Config, scope: &Scope) -> Result<Prepared, ApiError> {
        let here = self.options.directory();
        let mut pools = Vec::new();
        let bound = self.bound();
        for pool in &config.pools {
            let name = &*pool.policy.name;
            // What nobody asked for stays as it is, whatever lies on the disk.
            let in_force = self.editions.of(name, self.fleet.generation());
            let edition = match in_force.filter(|_| !scope.has(name)) {
                Some(edition) => Rc::clone(edition),
                None => Edition::set_up(pool.clone(), &here, self.nofile, &bound)
                    .map(Rc::new)
                    .map_err(|error| ApiError::new(ErrorCode::Failed, error.to_string()))?,
            };
            let planned = PlannedPool {
                policy: pool.policy.clone(),
                fate: self.fate(&edition, &config, scope),
                canary: scope.canary(pool),
            };
            pools.push((planned, edition));
        }
        self.prepared(config, pools, None)
    }

    /// Every listener that is bound.
    pub(super) fn bound(&self) -> Vec<Rc<Sockets>> {
        let bound = self.editions.bound().into_iter();
        bound.map(|(_, sockets)| sockets).collect()
    }

    /// What is set up, ready to begin.
    pub(super) fn prepared(
        &self,
        config: Config,
        pools: Vec<(PlannedPool, Rc<Edition>)>,
        back_to: Option<u64>,
    ) -> Result<Prepared, ApiError> {
        let (pools, editions): (Vec<_>, Vec<_>) = pools.into_iter().unzip();
        let granted = grant(&editions)?;
        let generation = self.next_generation();
        Ok(Prepared {
            plan: Plan { generation, pools },
            editions,
            config,
            granted,
            back_to,
        })
    }

    /// Whether nothing differs from what runs but the application's settings and
    /// certificates, neither the code nor where it starts, and every worker says
    /// that it can take new ones.
    pub(in crate::reactor) fn can_reload_in_place(&self, edition: &Edition) -> bool {
        let name = &*edition.name;
        let Some(running) = self.editions.of(name, self.fleet.generation()) else {
            return false;
        };
        let Some(pool) = self.fleet.pools().find(|pool| pool.name() == name) else {
            return false;
        };
        let Some(taken) = config::taken_in_place(&running.config, &edition.config) else {
            return false;
        };
        let current = pool.slots().filter_map(|slot| slot.current()?.pid());
        // Another root comes with the settings, where they are sent.
        running.places.start_alike(&edition.places)
            && (taken.app || running.places.serve_alike(&edition.places))
            && running.program.is_same_code(&edition.program, current)
            // A listener that was bound anew has to be handed over.
            && running.accepts_alike(edition)
            && pool
                .slots()
                .filter_map(|slot| slot.current())
                .all(|current| {
                    let grip = self.processes.get(&current.worker());
                    grip.is_some_and(|grip| {
                        let vitals = grip.vitals.borrow();
                        (!taken.app || vitals.can(capability::RELOAD))
                            && (!taken.tls || vitals.can(capability::TLS))
                    })
                })
    }

    pub(super) fn begin(
        &mut self,
        prepared: Prepared,
        changed: Option<String>,
        askers: Vec<UnboundedSender<JobLine>>,
    ) {
        let Prepared {
            plan,
            editions,
            config,
            granted,
            back_to,
        } = prepared;
        let generation = plan.generation;
        info!(
            "reload: generation {generation} begins, configured by {}",
            config.source
        );
        let message = begins(generation, back_to);
        self.journal.note("reload", About::default(), message);
        self.reloads.tried = generation;
        self.reloads.current = Some(Reload {
            generation,
            config,
            before: self.fleet.generation(),
            back_to,
            granted,
            job: JobId(self.next_job),
            changed,
        });
        self.editions.add(generation, editions);
        self.keep_listeners();
        self.command(Command::Reload(plan), askers);
        if self.fleet.reloading().is_none() && self.reloads.current.is_some() {
            // The fleet refused: it is still starting, or stopping.
            self.reloaded(self.fleet.generation(), false, "refused");
        }
    }

    pub(in crate::reactor) fn reject(
        &mut self,
        error: ApiError,
        askers: &[UnboundedSender<JobLine>],
    ) {
        error!("reload refused: {}", error.message);
        self.reloads.undone = true;
        self.note_reload(false, self.fleet.generation(), &error.message);
        for asker in askers {
            let _ = asker.send(JobLine::Result(failed(error.clone())));
        }
        self.reload_again();
    }

    /// The fleet knows how a reload ended.
    pub(in crate::reactor) fn reloaded(&mut self, generation: u64, committed: bool, why: &str) {
        let Some(reload) = self.reloads.current.take() else {
            return;
        };
        self.note_reload(committed, generation, why);
        if !committed {
            let given_up = reload.generation;
            error!("reload: generation {given_up} was rolled back: {why}");
            self.reloads.undone |= reload.back_to.is_none();
            // It is in progress until the last process of that generation has gone.
            self.reloads.current = Some(reload);
            return;
        }
        info!("reload: generation {generation} is in force");
        self.options.settle(&reload.config);
        let before = Past::of(
            reload.before,
            &self.config,
            self.editions.of_generation(reload.before),
        );
        self.take_over_config(reload.config);
        let now = Past::of(
            generation,
            &self.config,
            self.editions.of_generation(generation),
        );
        self.reloads.undone = false;
        self.reloads.history.follow(before, &now, reload.back_to);
        if let Some(changed) = reload.changed {
            self.run_after(reload.job, changed);
        }
        let orphans = self.editions.keep_only(generation);
        self.adjust_sockets();
        self.metrics.set_detail(self.config.metrics);
        self.metrics.set_max_series(self.config.max_series);
        self.end_reload(orphans);
    }

    /// Nothing is left of a generation that was rolled back.
    pub(in crate::reactor) fn rollback_ended(&mut self) {
        let Some(reload) = self.reloads.current.take() else {
            return;
        };
        take_back(&reload.granted);
        let orphans = self.editions.keep_only(self.fleet.generation());
        self.end_reload(orphans);
    }

    /// Closes what no generation has any more, and goes on to the next reload.
    fn end_reload(&mut self, orphans: Vec<(Rc<str>, Rc<Sockets>)>) {
        self.retire_all(orphans);
        self.export_pools();
        self.reload_again();
    }

    /// Puts a configuration in force, without what no reload can take: that is as it
    /// was, and every further reload says so, as an upgrade goes on with it.
    fn take_over_config(&mut self, new: Config) {
        let log_level = new.supervisor.log_level.clone();
        let level = log_level
            .as_ref()
            .filter(|_| log_level != self.config.supervisor.log_level);
        if let Some(Err(why)) = level.map(|level| self.log.set_level(level)) {
            warn!("{why}");
        }
        let supervisor = config::Supervisor {
            log_level,
            ..self.config.supervisor.clone()
        };
        self.config = Config { supervisor, ..new };
    }

    /// Ends listeners that no generation in force has.
    pub(in crate::reactor) fn retire_all(&mut self, orphans: Vec<(Rc<str>, Rc<Sockets>)>) {
        for (pool, sockets) in orphans {
            self.metrics.remove_listener(&sockets.status().name);
            for listener in sockets.all() {
                self.retire(&pool, &sockets, &listener);
            }
        }
        self.retire_surplus();
    }

    /// Kept sockets take what the new configuration says of them.
    fn adjust_sockets(&self) {
        for edition in self.editions.newest() {
            for (listen, sockets) in edition.config.listen.iter().zip(&edition.sockets) {
                sockets.adjust(listen);
            }
        }
    }

    pub(in crate::reactor) fn note_reload(&mut self, ok: bool, generation: u64, why: &str) {
        self.metrics.supervisor().reloaded(ok, SystemTime::now());
        self.notifier.reloaded(std::time::Instant::now(), ok);
        let message = if ok {
            format!("generation {generation} is in force")
        } else {
            format!("generation {generation} stays in force: {why}")
        };
        self.journal.note("reloaded", About::default(), message);
        self.reloads.last = Some(LastReload {
            ok,
            at: unix_seconds(),
            generation,
            error: (!ok).then(|| why.to_owned()),
        });
    }

    /// Serves those who asked while a reload was in progress, all by one.
    fn reload_again(&mut self) {
        if let Some((scope, askers)) = self.reloads.waiting.take() {
            self.reload_for(scope, askers);
        }
    }
}

/// That a generation begins, and what it was before.
pub(super) fn begins(generation: u64, back_to: Option<u64>) -> String {
    match back_to {
        Some(before) => format!("generation {generation} begins, as generation {before} was"),
        None => format!("generation {generation} begins"),
    }
}

/// Gives unix sockets that stay the permissions and groups that the new generation asks for.
fn grant(editions: &[Rc<Edition>]) -> Result<Vec<Granted>, ApiError> {
    let mut granted = Vec::new();
    for edition in editions {
        for (listen, sockets) in edition.config.listen.iter().zip(&edition.sockets) {
            match sockets.grant(listen) {
                Ok(before) => granted.extend(before),
                Err(error) => {
                    take_back(&granted);
                    let why = format!("pool {}: {error}", edition.name);
                    return Err(ApiError::new(ErrorCode::Failed, why));
                }
            }
        }
    }
    Ok(granted)
}

fn take_back(granted: &[Granted]) {
    for (listener, before) in granted {
        if let Err(error) = listener.grant(*before) {
            warn!("a reload that was undone: {error}");
        }
    }
}

/// Tells those who asked something that concerns no one pool.
pub(in crate::reactor) fn tell<'a>(
    askers: impl IntoIterator<Item = &'a UnboundedSender<JobLine>>,
    message: &str,
) {
    for asker in askers {
        // A client that has left doesn't cancel its reload.
        let _ = asker.send(JobLine::step("", message));
    }
}

pub(super) fn failed(error: ApiError) -> JobResult {
    JobResult {
        ok: false,
        message: String::new(),
        generation: None,
        error: Some(error),
    }
}
