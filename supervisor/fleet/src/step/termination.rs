//! How processes are made to leave: drain, stop, abort, kill, one after the
//! other where the gentler way does not help in time.

use std::time::Duration;

use prefork_api::{Exit, ExitReason};

use crate::Fleet;
use crate::command::pause::ANSWER_WITHIN;
use crate::interface::{Action, Death, Report, Time, Worker};
use crate::state::failure::certificate;
use crate::state::leave::{How, Leave, Leaving};
use crate::state::process::Process;
use crate::state::slot::{Place, SlotId};

/// How long after its SIGKILL a process is still waited for. The kernel may
/// keep one for ever (a dead disk or network file system); nothing that
/// people wait for depends on it after this.
const REAPING_PATIENCE: Duration = Duration::from_secs(10);

impl Fleet {
    /// Makes a process leave that its caller has taken out of its place.
    pub(crate) fn dismiss(
        &mut self,
        now: Time,
        id: SlotId,
        process: Process,
        cause: ExitReason,
        how: How,
        note: Option<String>,
    ) {
        let policy = &process.policy;
        let stopping = Leave::Stopping {
            until: now.after(policy.kill_timeout),
        };
        let stage = match how {
            How::Drain if process.serving().is_none() => stopping,
            How::Drain => Leave::Draining {
                until: now.after(policy.drain_timeout),
            },
            How::Stop => stopping,
            How::Abort => Leave::Aborting {
                until: now.after(policy.kill_timeout),
            },
            How::Kill => Leave::Killed {
                until: now.after(REAPING_PATIENCE),
            },
        };
        let slot = self.slot_mut(id);
        slot.leaving.push(Leaving {
            process,
            cause,
            note,
            draining_since: matches!(stage, Leave::Draining { .. }).then_some(now),
            accepts_until: matches!(stage, Leave::Draining { .. })
                .then_some(now.after(ANSWER_WITHIN)),
            stage,
            awaiting: Vec::new(),
        });
        let index = slot.leaving.len() - 1;
        self.press(now, id, index);
        self.touch(id);
    }

    /// Carries out the stage that a leaving process is in. One whose spawn is
    /// not answered yet cannot be told anything: it is told when it is born.
    pub(crate) fn press(&mut self, now: Time, id: SlotId, index: usize) {
        let leaving = &mut self.slot_mut(id).leaving[index];
        if leaving.process.pid.is_none() {
            return;
        }
        let worker = leaving.process.worker;
        let cause = leaving.cause;
        let action = match leaving.stage {
            Leave::Draining { until } => {
                let within = until.since(now);
                self.actions.push(Action::Drain { worker, within });
                self.actions
                    .push(Action::Report(Report::Draining { worker, cause }));
                return;
            }
            Leave::Drained { .. } => return,
            Leave::Stopping { .. } => Action::Stop { worker },
            Leave::Aborting { .. } => Action::Abort { worker },
            Leave::Killed { .. } | Leave::Stuck => Action::Kill { worker },
        };
        self.actions.push(action);
        self.actions
            .push(Action::Report(Report::Stopping { worker, cause }));
    }

    /// A process that was told to leave before it was born now hears of it.
    pub(crate) fn press_newborn(&mut self, now: Time, id: SlotId, index: usize) {
        if self.slot_mut(id).leaving[index].stage.is_killed() {
            // The patience with the kernel begins only now.
            self.kill(now, id, index);
        } else {
            self.press(now, id, index);
        }
    }

    /// A process accepts nothing more.
    pub(crate) fn shut(&mut self, worker: Worker) {
        if let Some((id, Place::Leaving(index))) = self.find(worker) {
            self.slot_mut(id).leaving[index].accepts_until = None;
            self.touch(id);
        }
    }

    /// A process said that nothing is in flight any more.
    pub(crate) fn drained(&mut self, now: Time, worker: Worker) {
        let Some((id, Place::Leaving(index))) = self.find(worker) else {
            return;
        };
        let leaving = &mut self.slot_mut(id).leaving[index];
        let until = now.after(leaving.process.policy.kill_timeout);
        if matches!(leaving.stage, Leave::Draining { .. }) {
            leaving.stage = Leave::Drained { until };
            leaving.accepts_until = None;
            self.touch(id);
        }
    }

    /// Acts on the deadlines of leaving processes that have come.
    pub(crate) fn leaving_due(&mut self, now: Time, id: SlotId) {
        for index in 0..self.slot_mut(id).leaving.len() {
            let leaving = &mut self.slot_mut(id).leaving[index];
            let kill_timeout = leaving.process.policy.kill_timeout;
            // Nobody waits for ever for one that does not answer.
            leaving.accepts_until.take_if(|until| *until <= now);
            if leaving.stage.deadline().is_none_or(|until| until > now) {
                continue;
            }
            match leaving.stage {
                Leave::Draining { .. } => {
                    leaving.cause = ExitReason::DrainTimeout;
                    leaving.stage = Leave::Stopping {
                        until: now.after(kill_timeout),
                    };
                    self.press(now, id, index);
                }
                Leave::Drained { .. } => {
                    leaving.note = Some("it had drained and did not exit".to_owned());
                    leaving.stage = Leave::Stopping {
                        until: now.after(kill_timeout),
                    };
                    self.press(now, id, index);
                }
                Leave::Stopping { .. } | Leave::Aborting { .. } => self.kill(now, id, index),
                Leave::Killed { .. } => self.give_up_reaping(id, index),
                Leave::Stuck => {}
            }
        }
    }

    /// Kills a leaving process.
    fn kill(&mut self, now: Time, id: SlotId, index: usize) {
        self.slot_mut(id).leaving[index].stage = Leave::Killed {
            until: now.after(REAPING_PATIENCE),
        };
        self.press(now, id, index);
        self.touch(id);
    }

    /// Kills whatever still leaves more gently.
    pub(crate) fn kill_leaving(&mut self, now: Time, id: SlotId, cause: ExitReason) {
        for index in 0..self.slot_mut(id).leaving.len() {
            let leaving = &mut self.slot_mut(id).leaving[index];
            if leaving.stage.is_killed() {
                continue;
            }
            if leaving.stage.is_draining() {
                leaving.cause = cause;
            }
            self.kill(now, id, index);
        }
    }

    /// The kernel does not let go of a process: whoever waits for it is told.
    fn give_up_reaping(&mut self, id: SlotId, index: usize) {
        let leaving = &mut self.slot_mut(id).leaving[index];
        leaving.stage = Leave::Stuck;
        let label = leaving.process.label();
        let incarnation = leaving.process.worker.incarnation;
        let awaiting = std::mem::take(&mut leaving.awaiting);
        self.resolve_awaiting(awaiting, None);
        self.give_up_watches(
            id,
            incarnation,
            &format!("{label} was killed and the kernel has not let go of it"),
        );
        self.touch(id);
    }

    /// A process that was leaving has been reaped.
    pub(crate) fn has_left(&mut self, now: Time, id: SlotId, leaving: Leaving, death: Death) {
        let process = &leaving.process;
        let reason = leaving.reason(&death);
        let exit = certificate(process, reason, leaving.note.as_deref(), death, now);
        let drain = leaving.draining_since.map(|since| now.since(since));
        self.tell_watchers(id, &format!("{} is gone", process.label()));
        self.record(id, process.worker, exit.clone(), drain);
        self.resolve_awaiting(leaving.awaiting, Some(&exit));
        self.touch(id);
    }

    /// Keeps a certificate and reports it.
    pub(crate) fn record(
        &mut self,
        id: SlotId,
        worker: Worker,
        exit: Exit,
        drain: Option<Duration>,
    ) {
        self.slot_mut(id).keep(exit.clone());
        self.actions.push(Action::Report(Report::Exited {
            worker,
            exit,
            drain,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, code, policy, signal, worker};
    use crate::{Command, Event};

    /// A fleet whose first worker has just been told to drain by a scale.
    fn draining() -> Driver {
        let mut driver = Driver::ready(policy("web", 2));
        let pool = "web".to_owned();
        driver.command(Command::Scale { pool, workers: 1 });
        driver
    }

    #[test]
    fn a_drain_that_takes_too_long_is_stopped_then_killed() {
        let mut driver = draining();
        let slow = worker(1, 1);
        let within = Duration::from_secs(30);
        assert!(driver.has_done(&Action::Drain {
            worker: slow,
            within
        }));
        driver.pass(29.9);
        assert!(!driver.has_done(&Action::Stop { worker: slow }));
        driver.pass(0.1);
        assert!(driver.has_done(&Action::Stop { worker: slow }));
        driver.pass(4.9);
        assert!(!driver.has_done(&Action::Kill { worker: slow }));
        driver.pass(0.1);
        assert!(driver.has_done(&Action::Kill { worker: slow }));
        driver.exit(slow, signal(9));
        assert_eq!(driver.last_reason(1), ExitReason::DrainTimeout);
    }

    #[test]
    fn a_drained_worker_that_does_not_exit_is_stopped() {
        let mut driver = draining();
        let lingering = worker(1, 1);
        driver.step(Event::Drained { worker: lingering });
        driver.pass(5.0);
        assert!(driver.has_done(&Action::Stop { worker: lingering }));
        driver.exit(lingering, signal(15));
        assert_eq!(driver.last_reason(1), ExitReason::ScaleDown);
    }

    #[test]
    fn who_drains_has_the_cause_of_the_drain_unless_something_else_was_quicker() {
        for (death, reason) in [
            (code(0), ExitReason::ScaleDown),
            (code(7), ExitReason::ScaleDown),
            (signal(11), ExitReason::Signal),
            (signal(9), ExitReason::Signal),
        ] {
            let mut driver = draining();
            driver.exit(worker(1, 1), death.clone());
            assert_eq!(driver.last_reason(1), reason, "{death:?}");
        }
    }

    #[test]
    fn who_has_drained_may_end_by_the_signal_that_it_was_asked_by() {
        for (death, reason) in [
            (signal(15), ExitReason::ScaleDown),
            (signal(3), ExitReason::ScaleDown),
            (signal(11), ExitReason::Signal),
            (signal(9), ExitReason::Signal),
        ] {
            let mut driver = draining();
            driver.step(Event::Drained {
                worker: worker(1, 1),
            });
            driver.exit(worker(1, 1), death.clone());
            assert_eq!(driver.last_reason(1), reason, "{death:?}");
        }
    }

    #[test]
    fn how_long_it_drained_is_reported() {
        let mut driver = draining();
        driver.pass(3.0);
        driver.exit(worker(1, 1), code(0));
        assert!(driver.has_reported(|report| matches!(report,
            Report::Exited { drain: Some(drain), .. } if *drain == Duration::from_secs(3))));
    }

    #[test]
    fn who_drains_is_not_held_to_the_heartbeat() {
        let mut driver = draining();
        driver.pass(25.0);
        assert!(!driver.has_done(&Action::Kill {
            worker: worker(1, 1)
        }));
    }

    #[test]
    fn a_process_the_kernel_does_not_let_go_of_holds_nobody_up() {
        let mut driver = Driver::ready(policy("web", 1));
        let (pool, slot) = ("web".to_owned(), 0);
        let kill = driver.command(Command::Kill { pool, slot });
        driver.say_ready(worker(0, 2));
        driver.pass(9.9);
        assert_eq!(driver.result(kill), None);
        driver.pass(0.2);
        let result = driver.result(kill);
        let Some(Err(crate::Refusal::TimedOut(why))) = result else {
            panic!("{result:?}");
        };
        assert!(why.contains("web/0: pid 1001 was killed"), "{why}");
        driver.command(Command::Stop { now: true });
        driver.exit(worker(0, 2), signal(9));
        assert!(driver.has_done(&Action::Ended));
    }
}
