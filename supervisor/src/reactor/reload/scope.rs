//! What a reload is to take of the configuration, and whom it replaces all the same.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;

use prefork_api::{ApiError, ErrorCode};
use prefork_fleet::{Canary, Fate};

use crate::config::{self, Config};
use crate::reactor::Reactor;
use crate::reactor::generation::revision::Edition;

/// Names of pools.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    /// Every pool.
    All,
    /// These.
    These(BTreeSet<String>),
}

impl Names {
    fn have(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }

    fn add(&mut self, others: Self) {
        match (self, others) {
            (Self::These(names), Self::These(more)) => names.extend(more),
            (all, Self::All) => *all = Self::All,
            (Self::All, Self::These(_)) => {}
        }
    }
}

/// What a reload is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::reactor) struct Scope {
    /// The pools that it takes from the file.
    wanted: Names,
    /// The pools whose workers it replaces also where nothing has changed.
    forced: Names,
    /// Whether the first new workers are judged also where no setting says so.
    judged: bool,
}

impl Scope {
    /// All that the file says, and nothing replaced without a reason.
    pub(in crate::reactor) fn whole() -> Self {
        Self::of(Vec::new(), false)
    }

    /// These pools, all without one.
    pub(in crate::reactor) fn of(pools: Vec<String>, force: bool) -> Self {
        let wanted = if pools.is_empty() {
            Names::All
        } else {
            Names::These(pools.into_iter().collect())
        };
        let forced = match force {
            true => wanted.clone(),
            false => Names::These(BTreeSet::new()),
        };
        Self {
            wanted,
            forced,
            judged: false,
        }
    }

    /// The same, with the first new workers judged also where no setting says so.
    pub(in crate::reactor) fn judged(self, judged: bool) -> Self {
        Self { judged, ..self }
    }

    /// How the first new workers of a pool are judged, if they are. Those of a program
    /// that takes its clients itself are counted by nobody.
    pub(super) fn canary(&self, pool: &config::Pool) -> Option<Canary> {
        let usual = || (self.judged && pool.is_counted()).then(Canary::default);
        pool.canary.clone().or_else(usual)
    }

    /// Does what is asked for besides, too.
    pub(in crate::reactor) fn add(&mut self, other: Self) {
        self.wanted.add(other.wanted);
        self.forced.add(other.forced);
        self.judged |= other.judged;
    }

    /// Whether it takes this pool from the file.
    pub(in crate::reactor) fn has(&self, pool: &str) -> bool {
        self.wanted.have(pool)
    }

    /// What is to be in force after it.
    pub(in crate::reactor) fn select(
        &self,
        in_force: &Config,
        new: Config,
    ) -> Result<Config, ApiError> {
        let Names::These(names) = &self.wanted else {
            return Ok(new);
        };
        let known = |name: &&String| in_force.pool(name).is_some() || new.pool(name).is_some();
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            let there: Vec<&str> = new.pools.iter().map(|it| &*it.policy.name).collect();
            let why = format!(
                "there is no pool {unknown}, neither in force nor in {}; pools: {}",
                new.source,
                there.join(", ")
            );
            return Err(ApiError::new(ErrorCode::NotFound, why));
        }
        config::select(in_force, new, |name| names.contains(name))
            .map_err(|why| ApiError::new(ErrorCode::Config, why))
    }
}

impl Reactor {
    /// Why the workers of a pool cannot be left alone by a reload to this configuration;
    /// none where those who were to follow them would be the same, as far as can be seen.
    pub(in crate::reactor) fn why_replaced(
        &self,
        pool: &config::Pool,
        to: &Config,
        scope: &Scope,
    ) -> Option<Cow<'static, str>> {
        let name = &*pool.policy.name;
        if !scope.has(name) {
            return None;
        }
        let Some(running) = self.editions.of(name, self.fleet.generation()) else {
            return Some("nothing of it is in force".into());
        };
        if !config::would_be_same(&running.config, pool) {
            return Some("its settings are others".into());
        }
        if to.requests != self.config.requests {
            return Some("[requests] is another".into());
        }
        if scope.forced.have(name) {
            return Some("by --force".into());
        }
        running.why_replaced(self.pids_of(name))
    }

    /// What a reload to this configuration makes of the workers of a pool that is set up
    /// for it.
    pub(in crate::reactor) fn fate(&self, edition: &Edition, to: &Config, scope: &Scope) -> Fate {
        let name = &*edition.name;
        let running = self.editions.of(name, self.fleet.generation());
        // What lies on the disk may have become another since that was looked at.
        let same = || {
            running.is_some_and(|it| {
                std::ptr::eq(Rc::as_ptr(it), edition)
                    || it.is_alike(edition)
                        && it
                            .program
                            .is_same_code(&edition.program, self.pids_of(name))
            })
        };
        let is_noted_alike = to.requests == self.config.requests;
        if self.why_replaced(&edition.config, to, scope).is_none() && same() {
            Fate::Kept
        } else if !scope.forced.have(name) && is_noted_alike && self.can_reload_in_place(edition) {
            Fate::InPlace
        } else {
            Fate::Replaced
        }
    }

    pub(super) fn pids_of<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = i32> + 'a {
        let pools = self.fleet.pools().filter(move |it| it.name() == pool);
        let slots = pools.flat_map(|pool| pool.slots().collect::<Vec<_>>());
        slots.filter_map(|slot| slot.current()?.pid())
    }
}
