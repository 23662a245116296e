//! The end of everything: drain and leave, or kill and leave.

use super::event::{JobId, Time};
use super::leave::How;
use super::{Fleet, Phase};

/// Why a command is refused, and a job ends, once the end has begun.
pub(super) const STOPPING: &str = "the supervisor is stopping";

impl Fleet {
    /// Ends the fleet. Asked for again while it drains, it drains no longer.
    pub(super) fn stop(&mut self, now: Time, job: JobId, at_once: bool) {
        match &mut self.phase {
            Phase::Booting | Phase::Running => {
                self.phase = Phase::Stopping { jobs: vec![job] };
                self.end_all_jobs(STOPPING);
                let how = if at_once { How::Kill } else { How::Drain };
                self.dismiss_all(now, how);
            }
            Phase::Stopping { jobs } => {
                jobs.push(job);
                self.dismiss_all(now, How::Kill);
            }
            Phase::Failed { jobs, .. } => jobs.push(job),
            Phase::Ended => self.finish(job, Ok("stopped".to_owned())),
        }
    }
}
