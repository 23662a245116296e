//! A rollback by hand: a generation that was in force before is put in force again, by
//! the same transaction as a reload, from what was pinned of it.
//!
//! No configuration is read and no step is run: a step goes with what is new. Nothing is
//! judged either, since whoever goes back is in a hurry and knows where to.

use std::borrow::Cow;
use std::rc::Rc;

use prefork_api::{ApiError, ErrorCode, JobLine};
use prefork_fleet::{Fate, PlannedPool};
use tokio::sync::mpsc::UnboundedSender;

use crate::config::{self, Config};
use crate::reactor::Reactor;
use crate::reactor::generation::history::{Past, Pinned};
use crate::reactor::generation::revision::Edition;
use crate::reactor::reload::transaction::{Prepared, failed};

/// Why nothing is undone while it is not known what comes of it.
const BUSY: &str = "a reload is in progress, and goes back by itself if it fails; \
                    one whose canary is being judged is undone by `prefork abort`";

impl Reactor {
    /// Puts the generation before the one in force in force again, or the one of this
    /// number.
    pub(in crate::reactor) fn roll_back(
        &mut self,
        to: Option<u64>,
        asker: UnboundedSender<JobLine>,
    ) {
        let prepared = self.past(to).and_then(|past| self.prepare_again(past));
        match prepared {
            Ok(prepared) => {
                self.notifier.reloading();
                let askers = vec![asker];
                self.tell_of(&prepared, &askers);
                self.begin(prepared, None, askers);
            }
            Err(error) => refuse(error, &asker),
        }
    }

    /// Says what a rollback would change, and changes nothing.
    pub(in crate::reactor) fn rehearse_rollback(
        &self,
        to: Option<u64>,
        asker: &UnboundedSender<JobLine>,
    ) {
        let past = match self.past(to) {
            Ok(past) => past,
            Err(error) => return refuse(error, asker),
        };
        let changes = self.changes_where(self.config_again(past), |pool, to| {
            let pinned = past.pinned(&pool.policy.name);
            self.why_replaced_by(pool, to, pinned)
        });
        self.tell_changes(changes, asker);
    }

    /// The generation to go back to, if it can be had.
    fn past(&self, to: Option<u64>) -> Result<&Past, ApiError> {
        let refused = |why: String| Err(ApiError::new(ErrorCode::Failed, why));
        let history = &self.reloads.history;
        let in_force = self.fleet.generation();
        if self.reloads.is_busy() {
            return refused(BUSY.to_owned());
        }
        if to == Some(in_force) {
            return refused(format!("generation {in_force} is in force"));
        }
        let found = history.find(to);
        if let (true, None, Some(past)) = (self.reloads.undone, to, found) {
            return refused(format!(
                "the last reload did not come into force: generation {in_force}, which served before \
                 it, still does; `--to {}` goes back behind that",
                past.generation()
            ));
        }
        let Some(past) = found else {
            return refused(self.nothing_kept(to));
        };
        match past.loss() {
            Some(why) => refused(format!(
                "generation {} can't be had again: {why}; put its files in place and reload",
                past.generation()
            )),
            None => Ok(past),
        }
    }

    fn nothing_kept(&self, to: Option<u64>) -> String {
        let kept: Vec<String> = self
            .reloads
            .history
            .numbers()
            .map(|it| it.to_string())
            .collect();
        match to.filter(|_| !kept.is_empty()) {
            Some(number) => {
                format!(
                    "generation {number} is not kept; there is {}",
                    kept.join(", ")
                )
            }
            None => format!(
                "nothing is kept to go back to: generation {} is the first that this supervisor \
                 knows, and what was before a supervisor was started or killed went with it; \
                 put the files in place and reload",
                self.fleet.generation()
            ),
        }
    }

    /// Its configuration as it would be in force again.
    fn config_again(&self, past: &Past) -> Config {
        let in_force = self.editions.of_generation(self.fleet.generation());
        past.renewed(in_force.flat_map(|it| it.config.certificates()))
    }

    /// Everything that can go wrong before a worker is touched.
    fn prepare_again(&self, past: &Past) -> Result<Prepared, ApiError> {
        let config = self.config_again(past);
        let (bound, here) = (self.bound(), self.options.directory());
        let mut pools = Vec::new();
        for pool in &config.pools {
            let edition = match past.pinned(&pool.policy.name) {
                Some(pinned) => Edition::set_up_again(pool.clone(), pinned.clone(), &bound),
                // It did not come up then, and may now.
                None => Edition::set_up(pool.clone(), &here, self.nofile, &bound),
            };
            let edition =
                edition.map_err(|error| ApiError::new(ErrorCode::Failed, error.to_string()))?;
            let planned = PlannedPool {
                policy: pool.policy.clone(),
                fate: self.fate_of_return(&edition, &config),
                canary: None,
            };
            pools.push((planned, Rc::new(edition)));
        }
        self.prepared(config, pools, Some(past.generation()))
    }

    /// What becomes of the workers of a pool whose earlier edition is this.
    fn fate_of_return(&self, edition: &Edition, to: &Config) -> Fate {
        let name = &*edition.name;
        let pinned = (Rc::clone(&edition.program), Rc::clone(&edition.places));
        let running = self.editions.of(name, self.fleet.generation());
        let accepts_alike = running.is_some_and(|it| it.accepts_alike(edition));
        let why = self.why_replaced_by(&edition.config, to, Some(&pinned));
        if why.is_none() && accepts_alike {
            Fate::Kept
        } else if to.requests == self.config.requests && self.can_reload_in_place(edition) {
            Fate::InPlace
        } else {
            Fate::Replaced
        }
    }

    /// Why the workers of a pool are not those that were pinned so; none where they are,
    /// whatever has become of the files since.
    fn why_replaced_by(
        &self,
        pool: &config::Pool,
        to: &Config,
        pinned: Option<&Pinned>,
    ) -> Option<Cow<'static, str>> {
        let name = &*pool.policy.name;
        let running = self.editions.of(name, self.fleet.generation());
        let (Some(running), Some((program, places))) = (running, pinned) else {
            return Some("nothing of it is in force".into());
        };
        if !config::would_be_same(&running.config, pool) {
            return Some("its settings are others".into());
        }
        if to.requests != self.config.requests {
            return Some("[requests] is another".into());
        }
        if !running.program.is_same_file(program) {
            return Some("its program was another".into());
        }
        if !running.places.are_alike(places) {
            return Some("its directory was another".into());
        }
        running.why_unsure(self.pids_of(name))
    }
}

fn refuse(error: ApiError, asker: &UnboundedSender<JobLine>) {
    // A client that has left doesn't hear it.
    let _ = asker.send(JobLine::Result(failed(error)));
}
