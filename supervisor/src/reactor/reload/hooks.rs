//! The commands around a reload: those before it hold it up and can refuse it, those
//! after it hold back the answer to whoever asked.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use prefork_api::{ApiError, ErrorCode, JobLine, JobResult};
use prefork_fleet::JobId;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use crate::config::{Change, Config, Steps};
use crate::helper::reload_hooks::{self, Done, Plan};
use crate::reactor::Reactor;
use crate::reactor::generation::program::of_user;
use crate::reactor::reload::scope::Scope;
use crate::reactor::reload::transaction::{Reading, tell};
use crate::sanitize;

/// A reload that waits for the commands before it.
#[derive(Debug)]
pub(in crate::reactor) struct Waiting {
    config: Config,
    scope: Scope,
    askers: Vec<UnboundedSender<JobLine>>,
}

/// A reload that is in force, and of which whoever asked is told when the commands after
/// it have ended.
#[derive(Debug, Default)]
pub(in crate::reactor) struct Ending {
    /// What the fleet says of it, once it has.
    told: Option<JobResult>,
    /// Whether the commands did what they were to do, once they have ended.
    after: Option<Result<(), ApiError>>,
}

impl Reactor {
    /// Goes on with a configuration that was read: at once, or when the commands before
    /// the reload have ended.
    pub(in crate::reactor) fn step_to(
        &mut self,
        config: Config,
        scope: Scope,
        askers: Vec<UnboundedSender<JobLine>>,
    ) {
        if config.steps.before.is_empty() {
            return self.apply(config, &scope, askers);
        }
        let generation = self.next_generation();
        let changed = self.changed_pools(&config, &scope);
        let plan = plan(&config.steps, &config.steps.before, generation, changed);
        let (readings, here) = (self.readings.clone(), self.options.directory());
        self.reloads.stepping = true;
        tell(&askers, "the steps before it are run");
        let waiting = Waiting {
            config,
            scope,
            askers,
        };
        tokio::task::spawn_local(async move {
            let done = run(&plan, here, "before", &waiting.askers).await;
            // The reactor drops its end only when it ends itself.
            let _ = readings.send(Reading::Before(waiting, done));
        });
    }

    /// The commands before a reload have ended.
    pub(in crate::reactor) fn has_stepped(&mut self, waiting: Waiting, done: Result<(), ApiError>) {
        self.reloads.stepping = false;
        let Waiting {
            config,
            scope,
            askers,
        } = waiting;
        match done {
            Ok(()) => self.apply(config, &scope, askers),
            Err(error) => {
                let message = format!("{}; nothing was touched", error.message);
                self.reject(ApiError { message, ..error }, &askers);
            }
        }
    }

    /// Has the commands run that come after a reload, which is in force.
    pub(in crate::reactor) fn run_after(&mut self, job: JobId, changed: String) {
        let steps = &self.config.steps;
        let plan = plan(steps, &steps.after, self.fleet.generation(), changed);
        let askers = self.jobs.get(&job).map(|job| job.askers.clone());
        let (readings, here) = (self.readings.clone(), self.options.directory());
        self.reloads.ending.insert(job, Ending::default());
        tokio::task::spawn_local(async move {
            let done = run(&plan, here, "after", &askers.unwrap_or_default()).await;
            let _ = readings.send(Reading::After(job, done));
        });
    }

    /// The commands after a reload have ended.
    pub(in crate::reactor) fn has_ended(&mut self, job: JobId, done: Result<(), ApiError>) {
        if let Some(ending) = self.reloads.ending.get_mut(&job) {
            ending.after = Some(done);
        }
        self.tell_end(job);
    }

    /// Keeps the result of a job until the commands after it have ended; gives back that
    /// of one without any.
    pub(in crate::reactor) fn hold_back(
        &mut self,
        job: JobId,
        result: JobResult,
    ) -> Option<JobResult> {
        let Some(ending) = self.reloads.ending.get_mut(&job) else {
            return Some(result);
        };
        ending.told = Some(result);
        self.tell_end(job);
        None
    }

    fn tell_end(&mut self, job: JobId) {
        let ending = self.reloads.ending.get_mut(&job);
        let Some(Ending {
            told: Some(told),
            after: Some(after),
        }) = ending
        else {
            return;
        };
        let result = match after {
            Err(error) if told.ok => JobResult {
                ok: false,
                message: String::new(),
                generation: told.generation,
                error: Some(ApiError {
                    message: format!("{}; but {}", told.message, error.message),
                    ..error.clone()
                }),
            },
            _ => told.clone(),
        };
        self.reloads.ending.remove(&job);
        self.job_line(job, JobLine::Result(result));
        self.jobs.remove(&job);
    }

    /// The names of the pools of which a reload changes anything.
    pub(in crate::reactor) fn changed_pools(&self, config: &Config, scope: &Scope) -> String {
        let changes = self.changes_to(config.clone(), scope);
        let pools = changes.iter().filter(|change| change.is_news());
        let names = pools.filter_map(|change| match change {
            Change::Workers { pool, .. } => Some(pool.as_str()),
            _ => None,
        });
        names.collect::<Vec<_>>().join(" ")
    }
}

fn plan(steps: &Steps, commands: &[Vec<String>], generation: u64, changed: String) -> Plan {
    let mut env = BTreeMap::from([
        (
            "PREFORK_GENERATION".to_owned(),
            Some(generation.to_string()),
        ),
        ("PREFORK_CHANGED".to_owned(), Some(changed)),
    ]);
    // What is said of another user there would be wrong.
    let of_user = steps.run_as.as_ref().map_or_else(Vec::new, of_user);
    env.extend(of_user.into_iter().map(|(name, value)| {
        let value = value.and_then(OsStr::to_str).map(str::to_owned);
        (name.to_owned(), value)
    }));
    Plan {
        commands: commands.to_vec(),
        timeout: steps.timeout,
        run_as: steps.run_as.clone(),
        env,
    }
}

/// Runs the commands, and says what became of them.
async fn run(
    plan: &Plan,
    directory: PathBuf,
    when: &str,
    askers: &[UnboundedSender<JobLine>],
) -> Result<(), ApiError> {
    let told = |done: &Done| {
        let sentence = format!("{when}: {}", sanitize::one_line(&done.sentence()));
        if !done.is_success() {
            warn!("reload: {sentence}");
            return;
        }
        info!("reload: {sentence}");
        tell(askers, &sentence);
        for line in done.output.lines() {
            tell(askers, &format!("{when}: {}", sanitize::one_line(line)));
        }
    };
    let failed = |why: &str, output: &str| ApiError {
        code: ErrorCode::Failed,
        message: format!("{when} the reload, {}", sanitize::one_line(why)),
        stderr: output.to_owned(),
    };
    let done = reload_hooks::run(plan, &directory, told)
        .await
        .map_err(|error| failed(&error.to_string(), ""))?;
    match done.last() {
        Some(last) if !last.is_success() => Err(failed(&last.sentence(), &last.output)),
        _ if done.len() < plan.commands.len() => {
            Err(failed("the process that runs its steps ended early", ""))
        }
        _ => Ok(()),
    }
}
