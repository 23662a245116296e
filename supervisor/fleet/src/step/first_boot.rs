//! A process that fails before it is ready: what it means for a first boot, and
//! for the commands that wait for it.
//!
//! A pool comes up when each of its slots has been ready once. One whose process
//! fails before that tries again as it would later, and the others serve. Only
//! where every pool has failed so there is nothing to serve with, and the fleet
//! ends; if its boot is strict, the first failure is enough for that.

use prefork_api::{Exit, ExitReason};

use crate::interface::{Action, BootFailure, PoolId, Time};
use crate::state::failure::{Failure, Setback};
use crate::state::job::Awaiting;
use crate::state::leave::How;
use crate::state::pool::Pool;
use crate::state::slot::SlotId;
use crate::{Fleet, Phase};

impl Pool {
    /// Whether every slot of it has been ready.
    fn is_up(&self) -> bool {
        self.tally.unbooted == 0
    }

    /// Its first failure, with the certificate as soon as there is one.
    fn setback(&self) -> Option<BootFailure> {
        let setback = self.setback.as_ref()?;
        let mut exits = self.slots[setback.slot as usize].exits.iter();
        let exit = exits.find(|exit| exit.incarnation == setback.incarnation);
        Some(BootFailure {
            pool: self.policy.name.clone(),
            slot: setback.slot,
            why: setback.why.clone(),
            exit: exit.cloned(),
        })
    }
}

impl Fleet {
    /// A process failed before it was ready.
    pub(crate) fn boot_failed(&mut self, now: Time, id: SlotId, failure: &Failure) {
        let incarnation = failure.worker.incarnation;
        if !self.is_setback(id, failure) {
            let why = format!("{}: {}", self.name(id), failure.why);
            self.fail_watches(id, incarnation, &why, failure.exit.as_ref());
            return;
        }
        self.phase = Phase::Failed {
            said: false,
            jobs: Vec::new(),
            down: self.down(),
        };
        self.end_all_jobs("the first workers did not come up: the supervisor is ending");
        self.dismiss_all(now, How::Kill);
        let (who, why) = (Awaiting::Boot(id), failure.why.clone());
        self.tell_failure(id, incarnation, who, why, failure.exit.as_ref());
    }

    /// Notes the failure if it is one of a first boot. Whether it ends that.
    fn is_setback(&mut self, id: SlotId, failure: &Failure) -> bool {
        if self.phase != Phase::Booting || self.slot_mut(id).been_ready {
            return false;
        }
        let setback = || Setback {
            slot: id.index,
            incarnation: failure.worker.incarnation,
            why: failure.why.clone(),
        };
        self.pool_mut(id.pool).setback.get_or_insert_with(setback);
        let may_come_up = |pool: &Pool| pool.is_up() || pool.setback.is_none();
        self.strict_boot || !self.pools.iter().any(may_come_up)
    }

    /// Whether every pool has come up or failed to, and one has come up.
    pub(crate) fn has_booted(&self) -> bool {
        let is_decided = |pool: &Pool| pool.is_up() || pool.setback.is_some();
        self.pools.iter().all(is_decided) && self.pools.iter().any(Pool::is_up)
    }

    /// The pools that have failed to come up.
    fn down(&self) -> Vec<PoolId> {
        let down = |pool: &&Pool| !pool.is_up() && pool.setback.is_some();
        self.pools.iter().filter(down).map(|pool| pool.id).collect()
    }

    /// Why each pool has not come up that has failed to.
    pub(crate) fn setbacks(&self) -> Vec<BootFailure> {
        let down = self.down().into_iter();
        down.filter_map(|pool| self.pools[pool].setback()).collect()
    }

    /// Says that the first boot failed, now that all is known of it.
    pub(crate) fn say_boot_failed(&mut self, id: SlotId, why: String, exit: Option<Exit>) {
        let Phase::Failed { said, down, .. } = &mut self.phase else {
            return;
        };
        *said = true;
        let others = std::mem::take(down).into_iter().filter(|it| *it != id.pool);
        let others = others.filter_map(|pool| self.pools[pool].setback());
        self.actions.push(Action::BootFailed {
            others: others.collect(),
            pool: self.policy(id.pool).name.clone(),
            slot: id.index,
            why,
            exit,
        });
    }

    /// Makes every process leave that has not been told to, and empties every
    /// slot. `How::Kill` does not spare those that leave already.
    pub(crate) fn dismiss_all(&mut self, now: Time, how: How) {
        for id in self.pools.slot_ids() {
            self.empty(now, id, ExitReason::Operator, how);
            if how == How::Kill {
                self.kill_leaving(now, id, ExitReason::Operator);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;
    use crate::driver::{Driver, code, policy, signal, worker};

    /// How the boot failed: slot, why, and the certificate's stderr.
    fn boot_failure(driver: &Driver) -> Option<(u32, String, Option<String>)> {
        driver.log.iter().find_map(|action| match action {
            Action::BootFailed {
                slot, why, exit, ..
            } => {
                let stderr = exit.as_ref().map(|exit| exit.stderr.clone());
                Some((*slot, why.clone(), stderr))
            }
            _ => None,
        })
    }

    #[test]
    fn a_first_worker_that_ends_ends_the_fleet_with_its_certificate() {
        let mut driver = Driver::start(policy("web", 2));
        driver.say_ready(worker(0, 1));
        driver.exit(worker(1, 1), code(3));
        let (slot, why, stderr) = boot_failure(&driver).unwrap();
        assert_eq!(slot, 1);
        assert!(why.contains("exited with code 3 before it was ready"));
        assert_eq!(stderr.unwrap(), "stderr of the exit with 3");
        assert!(driver.has_done(&Action::Kill {
            worker: worker(0, 1)
        }));
        assert!(!driver.has_done(&Action::Ended));
        driver.exit(worker(0, 1), signal(9));
        assert_eq!(driver.log.last(), Some(&Action::Ended));
    }

    #[test]
    fn a_first_worker_that_must_be_killed_has_its_certificate_too() {
        let mut driver = Driver::start(policy("web", 1));
        driver.pass(30.0);
        assert!(driver.has_done(&Action::Kill {
            worker: worker(0, 1)
        }));
        assert_eq!(boot_failure(&driver), None);
        driver.exit(worker(0, 1), signal(9));
        let (_, why, stderr) = boot_failure(&driver).unwrap();
        assert!(why.contains("not ready within 30s"), "{why}");
        assert!(stderr.is_some());
        assert_eq!(driver.log.last(), Some(&Action::Ended));
    }

    #[test]
    fn a_first_worker_that_cannot_be_made_ends_the_fleet() {
        let mut fleet = crate::Fleet::new(1, vec![policy("web", 1)]);
        fleet.start(Time::default());
        let error = "EAGAIN".to_owned();
        let actions = fleet.step(
            Time::default(),
            Event::SpawnFailed {
                worker: worker(0, 1),
                error,
            },
        );
        assert!(matches!(&actions[..],
            [Action::BootFailed { why, exit: None, .. }, Action::Ended] if why.contains("EAGAIN")));
    }

    /// A started fleet of `web` and `api`, of one slot each, and their workers.
    fn two_pools() -> (Driver, [crate::Worker; 2]) {
        let pools = vec![policy("web", 1), policy("api", 1)];
        let api = crate::Worker {
            pool: crate::PoolId(1),
            ..worker(0, 1)
        };
        (Driver::start_pools(1, pools), [worker(0, 1), api])
    }

    #[test]
    fn a_pool_that_comes_up_serves_and_one_that_does_not_goes_on_trying() {
        for failure_first in [true, false] {
            let (mut driver, [web, api]) = two_pools();
            if failure_first {
                driver.exit(web, code(3));
                assert!(!driver.fleet.booted(), "it may be that none comes up");
                driver.say_ready(api);
            } else {
                driver.say_ready(api);
                driver.exit(web, code(3));
            }
            assert!(driver.fleet.booted() && !driver.fleet.is_ready());
            assert_eq!(boot_failure(&driver), None);
            assert!(driver.has_reported(|report| matches!(report,
                crate::Report::BootedInPart { without }
                    if without.len() == 1 && without[0].why.contains("code 3"))));
            driver.say_ready(worker(0, 2));
            assert!(driver.fleet.is_ready());
        }
    }

    #[test]
    fn a_pool_that_comes_up_at_its_second_try_has_come_up() {
        let (mut driver, [web, api]) = two_pools();
        driver.exit(web, code(3));
        driver.say_ready(worker(0, 2));
        driver.exit(api, code(4));
        assert!(driver.fleet.booted());
        assert_eq!(boot_failure(&driver), None);
    }

    #[test]
    fn the_fleet_ends_where_no_pool_comes_up_and_says_why_of_each() {
        let (mut driver, [web, api]) = two_pools();
        driver.exit(web, code(3));
        driver.exit(api, code(4));
        let others = driver.log.iter().find_map(|action| match action {
            Action::BootFailed { pool, others, .. } if pool == "api" => Some(others.clone()),
            _ => None,
        });
        let others = others.unwrap();
        assert_eq!(others.len(), 1);
        assert_eq!(others[0].pool, "web");
        let stderr = others[0].exit.as_ref().map(|exit| &*exit.stderr);
        assert_eq!(stderr, Some("stderr of the exit with 3"));
    }

    #[test]
    fn a_strict_boot_ends_with_the_first_failure() {
        let pools = vec![policy("web", 1), policy("api", 1)];
        let mut fleet = crate::Fleet::new(1, pools).strict(true);
        let now = Time::default();
        fleet.start(now);
        let exit = code(3);
        let actions = fleet.step(
            now,
            Event::Exited {
                worker: worker(0, 1),
                exit,
            },
        );
        let failed = |action: &Action| matches!(action, Action::BootFailed { .. });
        assert!(actions.iter().any(failed), "{actions:?}");
    }

    #[test]
    fn a_worker_that_was_ready_may_crash_while_the_others_boot() {
        let mut driver = Driver::start(policy("web", 2));
        driver.say_ready(worker(0, 1));
        driver.exit(worker(0, 1), code(1));
        assert_eq!(boot_failure(&driver), None);
        driver.say_ready(worker(1, 1));
        assert!(driver.fleet.booted() && !driver.fleet.is_ready());
    }

    #[test]
    fn nothing_ends_the_fleet_once_it_has_booted() {
        let mut driver = Driver::ready(policy("web", 1));
        for incarnation in 1..20 {
            driver.exit(worker(0, incarnation), code(1));
            driver.pass(30.0);
        }
        assert_eq!(boot_failure(&driver), None);
        assert!(!driver.has_done(&Action::Ended));
    }
}
