//! A channel that ends: usually its process does as well, a moment later.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::kernel::procfs::schedule::Schedule;
use crate::kernel::procfs::stat;

/// A worker that exits closes its channel a moment before it is gone; one that
/// closes it and lives on is noticed after this long.
pub(super) const AFTER_CLOSE: Duration = Duration::from_secs(1);

/// A process that has closed its channel.
pub(super) struct Closing {
    began: Instant,
    schedule: Schedule,
}

impl Closing {
    /// How many times [`AFTER_CLOSE`] one may take that is kept from ending.
    const STRETCH: u32 = 10;

    pub(super) fn begin(pid: i32, now: Instant) -> Self {
        Self {
            began: now,
            schedule: Schedule::of(pid, now),
        }
    }

    /// Whether it would have ended if the machine had let it: the kernel is taking it
    /// down already, or it has waited for a processor most of the time.
    pub(super) fn is_kept_from_ending(&self, pid: i32, now: Instant) -> bool {
        let time = now.saturating_duration_since(self.began);
        let waited = || Schedule::of(pid, now).waited_since(&self.schedule);
        let is_exiting = || stat(Pid::from_raw(pid)).is_ok_and(|stat| stat.is_exiting);
        time < AFTER_CLOSE * Self::STRETCH && (is_exiting() || waited() > time / 2)
    }
}
