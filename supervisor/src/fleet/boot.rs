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
        let ids: Vec<SlotId> = self
            .pools
            .iter()
            .flat_map(|pool| pool.slots.iter().map(|slot| slot.id))
            .collect();
        for id in ids {
            self.empty(now, id, ExitReason::Operator, how);
            if how == How::Kill {
                self.kill_leaving(now, id, ExitReason::Operator);
            }
        }
    }
}
