//! A descriptor that waits, because its user has too many on their way.

use crate::kernel::procfs::parked::{Parked, most_parked};
use crate::reactor::worker_process::task::*;

/// The kernel's reason (sendmsg(2), ETOOMANYREFS), as errors name it.
pub(super) const TOO_MANY_IN_FLIGHT: &str = "etoomanyrefs";

/// It is said again after that, since looking for who holds them takes a while.
const AGAIN: Duration = Duration::from_secs(30);

impl Process {
    /// Says that what it is to be told waits, and who lets it.
    pub(super) fn tell_of_crowd(&mut self) {
        let now = Instant::now();
        if self.crowded.is_some_and(|until| now < until) {
            return;
        }
        self.crowded = Some(now + AGAIN);
        let holder = most_parked(nix::unistd::geteuid().as_raw());
        let holder = holder.map_or_else(String::new, |Parked { pid, descriptors }| {
            format!(", most of them in sockets of process {pid}, which does not read them ({descriptors} seen)")
        });
        let why = format!(
            "too many descriptors of this user are on their way (ETOOMANYREFS){holder}; \
             what it is to be told waits"
        );
        warn!(slot = %self.slot, pid = self.pid, "{why}");
        let worker = self.worker;
        // Full, it has its own troubles, and the log has the reason.
        let _ = self.ties.events.try_send(Event::Hindered { worker, why });
    }
}
