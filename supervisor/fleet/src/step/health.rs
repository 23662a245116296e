//! What is heard of a process, and what it means when nothing is.

use std::rc::Rc;
use std::time::Duration;

use prefork_api::ExitReason;

use crate::Fleet;
use crate::interface::{Action, Report, Time, Worker};
use crate::policy::Policy;
use crate::state::failure::{Failure, SPEAK};
use crate::state::leave::How;
use crate::state::slot::{Place, Seat, SlotId};
use crate::state::timeouts::{Patience, STRETCH};

impl Fleet {
    /// A process reported on itself. This is by far the most frequent event;
    /// it touches no more than the process unless a limit has been reached.
    pub(crate) fn health(&mut self, now: Time, worker: Worker, requests: u64, in_flight: u64) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        let Some(process) = self.slot_mut(id).process_mut(place) else {
            return;
        };
        process.in_flight = in_flight;
        if let Some(serving) = process.serving_mut() {
            serving.last_health = now;
            process.patience = Patience::default();
        }
        let spent = process
            .limits
            .requests
            .is_some_and(|limit| requests >= limit);
        if spent && place == Place::Current {
            self.recycle(now, id, ExitReason::MaxRequests);
        }
    }

    /// A process said why it is about to leave.
    pub(crate) fn bye(&mut self, worker: Worker, reason: String) {
        if let Some((id, place)) = self.find(worker)
            && let Some(process) = self.slot_mut(id).process_mut(place)
        {
            process.farewell = Some(reason.into_boxed_str());
        }
    }

    /// A process broke the protocol. One that is leaving has a deadline
    /// already, and a channel that closes is the way most of them leave: it is
    /// only noted.
    pub(crate) fn misbehaved(&mut self, now: Time, worker: Worker, rule: &str) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        if let Place::Leaving(index) = place {
            let leaving = &mut self.slot_mut(id).leaving[index];
            leaving.note.get_or_insert_with(|| rule.to_owned());
            return;
        }
        let phrase = format!("broke the protocol: {rule}");
        let cause = ExitReason::ProtocolError;
        self.expel(now, id, place, cause, How::Kill, &phrase);
    }

    /// A process that was about to be ready is of no use.
    pub(crate) fn unfit(&mut self, now: Time, worker: Worker, why: &str) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        let phrase = format!("failed its check: {why}");
        let cause = ExitReason::CheckFailed;
        self.expel(now, id, place, cause, How::Stop, &phrase);
    }

    /// Acts on the deadline of the slot's seat, if it has come.
    pub(crate) fn seat_due(&mut self, now: Time, id: SlotId) {
        let Some(slot) = self.slot(id) else {
            return;
        };
        match &slot.seat {
            Seat::Vacant => {}
            Seat::Backoff { until, .. } => {
                if *until <= now {
                    self.slot_mut(id).seat = Seat::Vacant;
                }
            }
            Seat::Held(process) => {
                if process.too_old_at().is_some_and(|age| age <= now) {
                    self.recycle(now, id, ExitReason::MaxAge);
                }
                self.look(now, id, Place::Current);
            }
        }
    }

    /// Has a process looked at that has been silent for so long that it is time.
    pub(crate) fn look(&mut self, now: Time, id: SlotId, place: Place) -> bool {
        let Some(process) = self.slot_mut(id).process_mut(place) else {
            return false;
        };
        let due = process.look_at().is_some_and(|at| at <= now);
        if due {
            let worker = process.worker;
            let first = process.patience.ask();
            self.actions.push(Action::Look { worker, first });
        }
        due
    }

    /// A process that is silent was looked at: it has failed, or there is a reason
    /// to wait for it.
    pub(crate) fn looked(&mut self, now: Time, worker: Worker, waited: Duration) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        let Some(process) = self.slot_mut(id).process_mut(place) else {
            return;
        };
        if matches!(place, Place::Leaving(_)) || !process.patience.is_looking() {
            return;
        }
        let silence = process.silence();
        process.patience.answer(now, silence, waited);
        let news = process.patience.is_news(silence);
        let starved = process.patience.starved();
        let over = process.fails_at() <= now;
        if news {
            self.actions.push(Action::Report(Report::Starved {
                worker,
                silent: now.since(silence.since),
                starved,
                most: silence.timeout.saturating_mul(STRETCH),
            }));
        }
        if over {
            self.fell_silent(now, id, place);
        }
        self.touch(id);
    }

    /// Nothing that had to come of a process has come: `ready`, or `health`.
    fn fell_silent(&mut self, now: Time, id: SlotId, place: Place) {
        let Some(process) = self.slot_mut(id).process_mut(place) else {
            return;
        };
        let policy = Rc::clone(&process.policy);
        let starved = waiting(process.patience.starved());
        match process.serving().copied() {
            None => self.boot_timed_out(now, id, place, &policy, &starved),
            Some(serving) => {
                let worker = process.worker;
                let silent = now.since(serving.last_health);
                self.actions
                    .push(Action::Report(Report::HeartbeatMissed { worker, silent }));
                let phrase = format!("was silent for {:?}{starved}", in_ms(silent));
                self.hung(now, id, place, &policy, &phrase);
            }
        }
    }

    /// A process was not ready in time.
    fn boot_timed_out(
        &mut self,
        now: Time,
        id: SlotId,
        place: Place,
        policy: &Policy,
        starved: &str,
    ) {
        let within = policy.boot_timeout;
        let process = self.slot_mut(id).process_mut(place);
        let silent = process.is_some_and(|process| !process.greeted);
        let mut phrase = format!("was not ready within {within:?}{starved}");
        if silent {
            phrase.push_str(": it never said hello on its channel; ");
            phrase.push_str(SPEAK);
        }
        let process = self.slot_mut(id).process_mut(place);
        let hindered = process.and_then(|process| process.hindered.take());
        phrase.extend(hindered.map(|it| format!(": {}", it.why)));
        let cause = ExitReason::BootTimeout;
        self.expel(now, id, place, cause, How::Kill, &phrase);
    }

    /// A process that served, or could, has been silent for too long.
    fn hung(&mut self, now: Time, id: SlotId, place: Place, policy: &Policy, phrase: &str) {
        let how = if policy.dump_on_hang {
            How::Abort
        } else {
            How::Kill
        };
        let cause = ExitReason::HeartbeatTimeout;
        self.expel(now, id, place, cause, how, phrase);
    }

    /// Makes a process leave that has failed but lives. Its slot does not wait
    /// for the reaping. `phrase` says what it did wrong.
    pub(crate) fn expel(
        &mut self,
        now: Time,
        id: SlotId,
        place: Place,
        cause: ExitReason,
        how: How,
        phrase: &str,
    ) {
        let note = Some(phrase.to_owned());
        match place {
            Place::Current => {
                if let Some(process) = self.vacate(id) {
                    let failure = Failure::of(&process, now, phrase, None);
                    self.dismiss(now, id, process, cause, how, note);
                    self.current_failed(now, id, &failure);
                }
            }
            Place::Successor => {
                if let Some((process, replacing)) = self.take_successor(id) {
                    let failure = Failure::of(&process, now, phrase, None);
                    self.dismiss(now, id, process, cause, how, note);
                    self.successor_failed(now, id, replacing, &failure);
                }
            }
            Place::Leaving(_) => {}
        }
    }
}

/// What is said of the part of a silence that a process waited for a processor.
fn waiting(starved: Duration) -> String {
    let starved = in_ms(starved);
    if starved.is_zero() {
        return String::new();
    }
    format!(" (it waited {starved:?} for a processor)")
}

/// As exactly as anybody wants to read it.
fn in_ms(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use prefork_api::SlotState;

    use super::*;
    use crate::Event;
    use crate::driver::{Driver, code, policy, signal, worker};

    #[test]
    fn a_silent_worker_is_killed_and_replaced_without_waiting_for_its_end() {
        let mut driver = Driver::ready(policy("web", 2));
        let silent = worker(0, 1);
        driver.pass_but(9.9, &[silent]);
        assert_eq!(driver.current(0), silent);
        driver.pass_but(0.2, &[silent]);
        assert!(driver.has_done(&Action::Kill { worker: silent }));
        assert!(driver.has_reported(|report| matches!(report,
            Report::HeartbeatMissed { worker, silent: for_how_long }
                if *worker == silent && *for_how_long == Duration::from_secs(10))));
        assert_eq!(driver.current(0), worker(0, 2));
        assert_eq!(driver.current(1), worker(1, 1));
        driver.exit(silent, signal(9));
        assert_eq!(driver.last_reason(0), ExitReason::HeartbeatTimeout);
    }

    #[test]
    fn a_silent_worker_may_dump_its_core_before_it_is_killed() {
        let mut dumping = policy("web", 1);
        dumping.dump_on_hang = true;
        let mut driver = Driver::ready(dumping);
        let silent = worker(0, 1);
        driver.pass_but(10.0, &[silent]);
        assert!(driver.has_done(&Action::Abort { worker: silent }));
        driver.say_ready(worker(0, 2));
        driver.pass(4.9);
        assert!(!driver.has_done(&Action::Kill { worker: silent }));
        driver.pass(0.2);
        assert!(driver.has_done(&Action::Kill { worker: silent }));
    }

    #[test]
    fn a_worker_that_is_not_ready_in_time_is_killed_and_counts_as_a_crash() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.exit(worker(0, 1), code(1));
        driver.pass(30.0);
        assert!(driver.has_done(&Action::Kill {
            worker: worker(0, 2)
        }));
        assert_eq!(driver.state(0), SlotState::Backoff);
        driver.exit(worker(0, 2), signal(9));
        assert_eq!(driver.last_reason(0), ExitReason::BootTimeout);
        let detail = &driver.last_exit(0).detail;
        assert!(detail.contains("not ready within 30s"), "{detail}");
        assert!(detail.contains("never said hello"), "{detail}");
        driver.pass(1.0);
        let worker = worker(0, 3);
        driver.step(Event::Greeted { worker });
        driver.pass(30.0);
        driver.exit(worker, signal(9));
        let detail = &driver.last_exit(0).detail;
        assert!(detail.ends_with("not ready within 30s"), "{detail}");

        driver.pass(1.0);
        let worker = driver.current(0);
        driver.step(Event::Greeted { worker });
        let why = "what it is to be told waits".to_owned();
        driver.step(Event::Hindered { worker, why });
        driver.pass(30.0);
        driver.exit(worker, signal(9));
        let detail = &driver.last_exit(0).detail;
        assert!(
            detail.ends_with("within 30s: what it is to be told waits"),
            "{detail}"
        );
    }

    #[test]
    fn a_worker_that_breaks_the_protocol_is_killed_and_replaced() {
        let mut driver = Driver::ready(policy("web", 1));
        let rule = "a line of 1 MiB".to_owned();
        driver.step(Event::Misbehaved {
            worker: worker(0, 1),
            rule,
        });
        assert!(driver.has_done(&Action::Kill {
            worker: worker(0, 1)
        }));
        assert_eq!(driver.current(0), worker(0, 2));
        driver.exit(worker(0, 1), signal(9));
        assert_eq!(driver.last_reason(0), ExitReason::ProtocolError);
        assert!(driver.last_exit(0).detail.contains("a line of 1 MiB"));
    }

    #[test]
    fn the_deadlines_of_a_reactor_that_was_held_up_wait_for_its_tick() {
        let mut driver = Driver::ready(policy("web", 2));
        driver.now = driver.now.after(Duration::from_secs(60));
        for slot in 0..2 {
            driver.step(Event::Health {
                worker: worker(slot, 1),
                requests: 0,
                in_flight: 0,
            });
        }
        assert_eq!(driver.step(Event::Tick), []);
        assert!(driver.fleet.is_ready());
    }
}
