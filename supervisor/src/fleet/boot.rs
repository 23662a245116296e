//! A process that fails before it is ready: the end of a first boot, and of
//! the commands that wait for it.

use prefork_proto::control::{Exit, ExitReason};

use super::event::{Action, Time};
use super::jobs::Awaiting;
use super::leave::How;
use super::lifecycle::Failure;
use super::slot::SlotId;
use super::{Fleet, Phase};

impl Fleet {
    /// A process failed before it was ready.
    pub(super) fn boot_failed(&mut self, now: Time, id: SlotId, failure: &Failure) {
        let incarnation = failure.worker.incarnation;
        if self.phase != Phase::Booting {
            let why = format!("{}: {}", self.name(id), failure.why);
            self.fail_watches(id, incarnation, &why, failure.exit.as_ref());
            return;
        }
        self.phase = Phase::Failed {
            said: false,
            jobs: Vec::new(),
        };
        self.end_all_jobs("the first workers did not come up: the supervisor is ending");
        self.dismiss_all(now, How::Kill);
        let (who, why) = (Awaiting::Boot(id), failure.why.clone());
        self.tell_failure(id, incarnation, who, why, failure.exit.as_ref());
    }

    /// Says that the first boot failed, now that all is known of it.
    pub(super) fn say_boot_failed(&mut self, id: SlotId, why: String, exit: Option<Exit>) {
        if let Phase::Failed { said, .. } = &mut self.phase {
            *said = true;
            let pool = self.policy(id.pool).name.clone();
            self.actions.push(Action::BootFailed {
                pool,
                slot: id.index,
                why,
                exit,
            });
        }
    }

    /// Makes every process leave that has not been told to, and empties every
    /// slot. `How::Kill` does not spare those that leave already.
    pub(super) fn dismiss_all(&mut self, now: Time, how: How) {
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
    use super::super::Event;
    use super::super::driver::{Driver, code, policy, signal, worker};
    use super::*;

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
        let mut fleet = super::super::Fleet::new(1, vec![policy("web", 1)]);
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
