//! The end of everything: drain and leave, or kill and leave.

use crate::interface::{JobId, Time};
use crate::state::leave::How;
use crate::{Fleet, Phase};

/// Why a command is refused, and a job ends, once the end has begun.
pub(crate) const STOPPING: &str = "the supervisor is stopping";

impl Fleet {
    /// Ends the fleet. Asked for again while it drains, it drains no longer.
    pub(crate) fn stop(&mut self, now: Time, job: JobId, at_once: bool) {
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

#[cfg(test)]
mod tests {
    use crate::driver::{Driver, code, policy, signal, worker};
    use crate::{Action, Command};

    #[test]
    fn a_stop_drains_everything_and_ends_when_the_last_has_gone() {
        let mut driver = Driver::ready(policy("web", 2));
        let stop = driver.command(Command::Stop { now: false });
        assert!(driver.fleet.stopping() && !driver.fleet.is_ready());
        driver.exit(worker(0, 1), code(0));
        assert_eq!(driver.result(stop), None);
        driver.exit(worker(1, 1), code(0));
        assert!(driver.is_done(stop));
        assert_eq!(driver.log.last(), Some(&Action::Ended));
        assert!(!driver.has_done(&Action::Kill {
            worker: worker(0, 1)
        }));
    }

    #[test]
    fn a_second_stop_kills() {
        let mut driver = Driver::ready(policy("web", 1));
        let first = driver.command(Command::Stop { now: false });
        let second = driver.command(Command::Stop { now: false });
        assert!(driver.has_done(&Action::Kill {
            worker: worker(0, 1)
        }));
        driver.exit(worker(0, 1), signal(9));
        assert!(driver.is_done(first) && driver.is_done(second));
        assert_eq!(driver.log.last(), Some(&Action::Ended));
    }

    #[test]
    fn workers_that_are_not_ready_are_stopped_and_waits_are_over() {
        let mut driver = Driver::ready(policy("web", 2));
        driver.exit(worker(0, 1), code(1));
        driver.exit(worker(1, 1), code(1));
        driver.exit(worker(1, 2), code(1));
        driver.command(Command::Stop { now: false });
        assert!(driver.has_done(&Action::Stop {
            worker: worker(0, 2)
        }));
        driver.exit(worker(0, 2), signal(15));
        assert_eq!(driver.log.last(), Some(&Action::Ended));
        assert_eq!(driver.slot(1).incarnations(), 2);
    }

    #[test]
    fn jobs_in_progress_and_later_commands_are_told_of_the_stop() {
        let mut driver = Driver::ready(policy("web", 1));
        let (pool, slot) = ("web".to_owned(), None);
        let restart = driver.command(Command::Restart { pool, slot });
        driver.command(Command::Stop { now: false });
        assert_eq!(driver.failure(restart).0, "the supervisor is stopping");
        let late = driver.command(Command::ScaleBy { pool: None, by: 1 });
        assert_eq!(driver.failure(late).0, "the supervisor is stopping");
    }

    #[test]
    fn a_stop_of_a_fleet_that_has_ended_is_done() {
        let mut driver = Driver::start_pools(1, Vec::new());
        driver.command(Command::Stop { now: false });
        assert_eq!(driver.log.last(), Some(&Action::Ended));
        let again = driver.command(Command::Stop { now: false });
        assert!(driver.is_done(again));
    }
}
