//! What a reload or a rollback would change, said before anything is touched.

use std::borrow::Cow;

use prefork_api::{ApiError, JobLine, JobResult};
use prefork_fleet::Fate;
use tokio::sync::mpsc::UnboundedSender;

use crate::config::{self, Change, Config};
use crate::reactor::Reactor;
use crate::reactor::reload::scope::Scope;
use crate::reactor::reload::transaction::{Purpose, failed};

impl Reactor {
    /// Says what a reload would change, and changes nothing.
    pub(in crate::reactor) fn rehearse(&self, scope: Scope, asker: UnboundedSender<JobLine>) {
        self.read(Purpose::Rehearsal(scope, asker));
    }

    /// Says what a configuration that was read would change, or why it can't be read.
    pub(super) fn compare(
        &self,
        read: Result<Config, ApiError>,
        scope: &Scope,
        asker: &UnboundedSender<JobLine>,
    ) {
        match read.and_then(|config| scope.select(&self.config, config)) {
            Ok(config) => self.tell_changes(self.changes_to(config, scope), asker),
            Err(error) => {
                let _ = asker.send(JobLine::Result(failed(error)));
            }
        }
    }

    /// Says what would change, and that nothing has.
    pub(super) fn tell_changes(&self, changes: Vec<Change>, asker: &UnboundedSender<JobLine>) {
        let count = changes.iter().filter(|change| change.is_news()).count();
        for change in changes {
            let _ = asker.send(JobLine::Change {
                what: change.what().to_owned(),
                message: change.to_string(),
            });
        }
        let result = JobResult {
            ok: true,
            message: if count == 1 {
                "1 change; nothing was touched".to_owned()
            } else {
                format!("{count} changes; nothing was touched")
            },
            generation: Some(self.fleet.generation()),
            error: None,
        };
        let _ = asker.send(JobLine::Result(result));
    }

    /// What a reload would change, with what lies on the disk.
    pub(in crate::reactor) fn changes_to(&self, config: Config, scope: &Scope) -> Vec<Change> {
        let canaries: Vec<_> = config
            .pools
            .iter()
            .map(|pool| (pool.policy.name.clone(), scope.canary(pool)))
            .collect();
        let mut changes = self.changes_where(config, |pool, to| self.why_replaced(pool, to, scope));
        for change in &mut changes {
            if let Change::Workers {
                pool,
                kept: 1..,
                fate: Fate::InPlace | Fate::Replaced,
                canary,
                ..
            } = change
            {
                let named = canaries.iter().find(|(name, _)| name == pool);
                *canary = named.and_then(|(_, terms)| terms.clone());
            }
        }
        changes
    }

    /// What would change, where the workers of these pools would be replaced besides.
    pub(super) fn changes_where(
        &self,
        config: Config,
        why_replaced: impl Fn(&config::Pool, &Config) -> Option<Cow<'static, str>>,
    ) -> Vec<Change> {
        let (from, to) = self.as_scaled(config);
        let mut changes = config::diff(&from, &to);
        for change in &mut changes {
            if let Change::Workers {
                pool, fate, why, ..
            } = change
                && *fate == Fate::Kept
                && let Some(settings) = to.pool(pool)
                && let Some(reason) = why_replaced(settings, &to)
            {
                *fate = Fate::Replaced;
                *why = Some(reason.into_owned());
            }
        }
        changes
    }

    /// The configuration in force and another one, with the workers that there are and
    /// that there would be: what operators have scaled stays where nothing new is said.
    fn as_scaled(&self, mut to: Config) -> (Config, Config) {
        let mut from = self.config.clone();
        for pool in &mut from.pools {
            let named = |name: &str| name == pool.policy.name;
            let Some(view) = self.fleet.pools().find(|view| named(view.name())) else {
                continue;
            };
            let configured = std::mem::replace(&mut pool.policy.workers, view.desired());
            for new in to.pools.iter_mut().filter(|it| named(&it.policy.name)) {
                if new.policy.workers == configured {
                    new.policy.workers = view.desired();
                }
            }
        }
        (from, to)
    }
}
