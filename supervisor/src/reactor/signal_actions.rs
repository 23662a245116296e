//! What signals ask for is done here, and said in the log: first of all what one
//! more would do.

use prefork_fleet::Command;
use tracing::{info, warn};

use crate::reactor::Reactor;
use crate::reactor::reload::scope::Scope;
use crate::reactor::signals::{Asked, Heard};
use crate::reactor::stop::Step;

impl Reactor {
    pub(super) fn heed(&mut self, heard: Heard) {
        match heard.asked {
            Asked::Stop => self.heed_stop(heard),
            Asked::GoOnAlone => info!("the terminal is gone ({heard}): going on without it"),
            Asked::More => self.command(Command::ScaleBy { pool: None, by: 1 }, vec![]),
            Asked::Fewer => self.command(Command::ScaleBy { pool: None, by: -1 }, vec![]),
            Asked::ReopenLogs => match self.reopen_logs() {
                Ok(reopened) => drop(tokio::task::spawn_local(reopened)),
                Err(error) => warn!("cannot reopen a log: {error}"),
            },
            Asked::Reload => {
                info!("asked to reload by {heard}");
                self.reload(Scope::whole(), None);
            }
            Asked::Upgrade => {
                info!("asked to upgrade by {heard}");
                self.upgrade(None, None);
            }
            Asked::Child => self.reap_strangers(),
        }
    }

    fn heed_stop(&mut self, heard: Heard) {
        let in_flight = match self.in_flight() {
            1 => "1 request".to_owned(),
            number => format!("{number} requests"),
        };
        if self.stop.is_one_order() {
            info!("asked to stop by {heard} as well: that is the same order");
            return;
        }
        match self.next_step(false) {
            Step::Announce(delay) => info!(
                "asked to stop by {heard}: serving for {delay:?} more as not ready, then \
                 draining; again drains at once"
            ),
            Step::Drain => info!("asked to stop by {heard}: draining {in_flight}; again ends them"),
            Step::End => warn!("asked to stop again by {heard}: ending {in_flight}"),
        }
        self.order_stop(false, None);
    }

    /// Requests in flight in all workers, as far as they tell.
    fn in_flight(&self) -> u64 {
        let of_each = self.processes.values().map(|grip| {
            let vitals = grip.vitals.borrow();
            let counted = vitals.counted().map(|counted| counted.in_flight);
            let reported = || vitals.health.as_ref().map(|health| health.in_flight);
            counted.or_else(reported).unwrap_or(0)
        });
        of_each.sum()
    }
}
