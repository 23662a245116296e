//! The life of a process: it is started, becomes ready, ends or fails.

use crate::Fleet;
use crate::interface::{Action, Death, Report, Time, Worker};
use crate::state::failure::{Failure, SPEAK, certificate, how_it_ended, unasked_reason};
use crate::state::process::{Hindrance, Limits, Process, Serving, Stage};
use crate::state::slot::{Place, Seat, SlotId};
use crate::state::timeouts::Patience;

impl Fleet {
    /// Asks for a process for the slot; the caller gives it its place. On
    /// `probation` it is not to serve when it is ready.
    pub(crate) fn spawn(
        &mut self,
        now: Time,
        id: SlotId,
        generation: u64,
        probation: bool,
    ) -> Process {
        let policy = self.policy_in(id.pool, generation);
        let pool = &mut self.pools[id.pool];
        let slot = &mut pool.slots[id.index as usize];
        slot.incarnations += 1;
        let worker = Worker {
            pool: id.pool,
            slot: id.index,
            incarnation: slot.incarnations,
        };
        self.actions.push(Action::Spawn {
            worker,
            generation,
            paused: probation,
        });
        Process {
            worker,
            generation,
            pid: None,
            started: now,
            in_flight: 0,
            limits: Limits::draw(now, &policy, &mut self.rng),
            patience: Patience::default(),
            greeted: false,
            hindered: None,
            farewell: None,
            stage: Stage::Starting,
            policy,
            probation,
        }
    }

    /// Seats a new process in a vacant slot.
    pub(crate) fn start_current(&mut self, now: Time, id: SlotId) {
        let generation = self.slot_mut(id).generation;
        let process = self.spawn(now, id, generation, false);
        self.slot_mut(id).seat = Seat::Held(process);
    }

    /// Takes the current process out of its seat. Who was to follow it sits
    /// down, ready or not, unless it still has to prove itself in a reload;
    /// otherwise the seat is vacant. What is still asked of the process comes
    /// to nothing.
    pub(crate) fn vacate(&mut self, id: SlotId) -> Option<Process> {
        let process = self.slot_mut(id).take_current()?;
        if self.has_turn_to_come(id) {
            self.wait_again(id);
        } else if let Some(successor) = self.drop_replacement(id) {
            self.slot_mut(id).seat = Seat::Held(successor);
        }
        self.give_up_asking(id, "the worker left before it answered");
        self.touch(id);
        Some(process)
    }

    /// A process was forked.
    pub(crate) fn spawned(&mut self, now: Time, worker: Worker, pid: i32) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        if let Some(process) = self.slot_mut(id).process_mut(place)
            && process.pid.is_none()
        {
            process.pid = Some(pid);
            self.actions
                .push(Action::Report(Report::Started { worker, pid }));
            if let Place::Leaving(index) = place {
                self.press_newborn(now, id, index);
            }
        }
    }

    /// A process said `hello`.
    pub(crate) fn greeted(&mut self, worker: Worker) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        if let Some(process) = self.slot_mut(id).process_mut(place) {
            process.greeted = true;
        }
    }

    /// What a process is to be told could not be sent.
    pub(crate) fn hindered(&mut self, worker: Worker, why: String) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        if let Some(process) = self.slot_mut(id).process_mut(place) {
            process.hindered = Some(Box::new(Hindrance { why }));
        }
    }

    /// No process could be made.
    pub(crate) fn spawn_failed(&mut self, now: Time, worker: Worker, error: &str) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        let slot = self.slot_mut(id);
        if slot.process_mut(place).is_none_or(|p| p.pid.is_some()) {
            return;
        }
        let unmade = |process: &Process| Failure {
            why: format!("no process could be made: {error}"),
            mendable: false,
            ..Failure::of(process, now, "", None)
        };
        match place {
            Place::Current => {
                if let Some(process) = self.vacate(id) {
                    self.current_failed(now, id, &unmade(&process));
                }
            }
            Place::Successor => {
                if let Some((process, replacing)) = self.take_successor(id) {
                    self.successor_failed(now, id, replacing, &unmade(&process));
                }
            }
            Place::Leaving(index) => {
                let leaving = slot.leaving.remove(index);
                self.resolve_awaiting(leaving.awaiting, None);
                self.touch(id);
            }
        }
    }

    /// A process said that it accepts connections.
    pub(crate) fn ready(&mut self, now: Time, worker: Worker) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        if matches!(place, Place::Leaving(_)) {
            return;
        }
        let slot = self.slot_mut(id);
        let Some(process) = slot.process_mut(place) else {
            return;
        };
        if process.pid.is_none() || process.serving().is_some() {
            return;
        }
        let serving = Serving {
            since: now,
            last_health: now,
        };
        process.stage = if process.probation {
            Stage::Probation {
                serving,
                asked: false,
            }
        } else {
            Stage::Ready(serving)
        };
        process.patience = Patience::default();
        let serves = process.is_ready();
        let boot = now.since(process.started);
        let label = process.label();
        slot.been_ready = true;
        self.actions
            .push(Action::Report(Report::Ready { worker, boot }));
        self.tell_watchers(id, &format!("{label} is ready"));
        if place == Place::Successor && serves {
            self.succeed(now, id);
        }
        self.touch(id);
    }

    /// A process has been reaped.
    pub(crate) fn exited(&mut self, now: Time, worker: Worker, death: Death) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        if let Place::Leaving(index) = place {
            let leaving = self.slot_mut(id).leaving.remove(index);
            self.has_left(now, id, leaving, death);
            return;
        }
        let (process, replacing) = match place {
            Place::Successor => match self.take_successor(id) {
                Some((process, cause)) => (process, Some(cause)),
                None => return,
            },
            _ => match self.vacate(id) {
                Some(process) => (process, None),
                None => return,
            },
        };
        let reason = unasked_reason(&death);
        let exit = certificate(&process, reason, None, death, now);
        self.record(id, worker, exit.clone(), None);
        let mut phrase = how_it_ended(&exit);
        if process.serving().is_none() {
            phrase.push_str(" before it was ready");
            // One that fails has its own words for that.
            if !process.greeted && exit.code == Some(0) {
                phrase.push_str(": it never said hello on its channel; ");
                phrase.push_str(SPEAK);
                phrase.push_str(", and not go into the background");
            }
        }
        let failure = Failure::of(&process, now, &phrase, Some(exit));
        match replacing {
            None => self.current_failed(now, id, &failure),
            Some(cause) => self.successor_failed(now, id, cause, &failure),
        }
    }

    /// The current process ended or had to be made to; its seat is free, or its
    /// successor has sat down. Decides when the next process starts.
    pub(crate) fn current_failed(&mut self, now: Time, id: SlotId, failure: &Failure) {
        if failure.ready_for.is_none() {
            self.boot_failed(now, id, failure);
        }
        self.touch(id);
        if self.breaks_reload(failure) {
            self.roll_back(now, id, failure);
            return;
        }
        if !self.is_wanted(id) {
            return;
        }
        self.note_setback(id, failure);
        let pool = &mut self.pools[id.pool];
        let slot = &mut pool.slots[id.index as usize];
        let delay = if failure.mendable {
            let ready_for = failure.ready_for;
            slot.backoff
                .crashed(now, ready_for, &pool.policy, &mut self.rng)
        } else {
            Some(slot.backoff.failed(now, &pool.policy, &mut self.rng))
        };
        if let (Seat::Vacant, Some(delay)) = (&slot.seat, delay) {
            slot.seat = Seat::Backoff {
                until: now.after(delay),
                why: failure.why.clone(),
            };
            self.actions.push(Action::Report(Report::BackingOff {
                worker: failure.worker,
                delay,
                why: failure.why.clone(),
            }));
        }
    }

    /// The slot of a worker, and the worker's place in it; none if it has gone.
    pub(crate) fn find(&self, worker: Worker) -> Option<(SlotId, Place)> {
        let id = SlotId::from(worker);
        let place = self.slot(id)?.place_of(worker.incarnation)?;
        Some((id, place))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prefork_api::{ExitReason, SlotState};

    use super::*;
    use crate::driver::{Driver, code, pid, policy, signal, worker};
    use crate::{Command, Event, JobId, PoolId};

    #[test]
    fn a_first_crash_is_mended_at_once() {
        let mut driver = Driver::ready(policy("web", 2));
        let actions = driver.exit(worker(0, 1), code(3));
        let successor = worker(0, 2);
        assert!(actions.contains(&Action::Spawn {
            worker: successor,
            generation: 1,
            paused: false
        }));
        assert_eq!(driver.current(0), successor);
        assert_eq!(driver.state(1), SlotState::Ready);
        let exit = driver.last_exit(0);
        assert_eq!((exit.reason, exit.code), (ExitReason::Crash, Some(3)));
        assert_eq!(exit.pid, pid(worker(0, 1)));
    }

    #[test]
    fn an_end_that_nobody_asked_for_says_who_caused_it() {
        let oom = Death {
            oom: true,
            ..signal(9)
        };
        for (death, reason) in [
            (code(0), ExitReason::Clean),
            (code(1), ExitReason::Crash),
            (signal(11), ExitReason::Signal),
            (oom, ExitReason::Oom),
        ] {
            let mut driver = Driver::ready(policy("web", 1));
            driver.exit(worker(0, 1), death);
            assert_eq!(driver.last_reason(0), reason);
        }
    }

    #[test]
    fn what_a_worker_said_last_is_in_its_certificate() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.step(Event::Bye {
            worker: worker(0, 1),
            reason: "my license ran out".to_owned(),
        });
        driver.exit(worker(0, 1), code(0));
        assert_eq!(driver.last_exit(0).detail, "my license ran out");
    }

    #[test]
    fn a_second_crash_waits_and_the_slot_says_why() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.exit(worker(0, 1), code(3));
        driver.exit(worker(0, 2), code(4));
        assert_eq!(driver.state(0), SlotState::Backoff);
        let (until, why) = driver.slot(0).backoff().unwrap();
        assert!(until > driver.now);
        assert!(why.contains("exited with code 4 before it was ready"));
        driver.pass(0.1);
        assert_eq!(driver.current(0), worker(0, 3));
    }

    #[test]
    fn a_program_that_ends_at_once_starts_ten_times_at_most_in_ten_seconds() {
        for seed in 0..500 {
            let pools = vec![policy("api", 1), policy("web", 1)];
            let mut driver = Driver::start_pools(seed, pools);
            let healthy = Worker {
                pool: PoolId(1),
                ..worker(0, 1)
            };
            driver.say_ready(worker(0, 1));
            driver.say_ready(healthy);
            let mut starts = 0;
            while driver.now < Time(Duration::from_secs(10)) {
                if let Some(current) = driver.slot(0).current() {
                    starts += 1;
                    driver.exit(current.worker(), code(1));
                } else {
                    let (until, _) = driver.slot(0).backoff().unwrap();
                    let wait = until.since(driver.now);
                    driver.pass(wait.as_secs_f64());
                }
            }
            assert!((6..=10).contains(&starts), "seed {seed}: {starts} starts");
            let process = driver.fleet.process(healthy).unwrap();
            assert_eq!(process.state(), SlotState::Ready);
        }
    }

    #[test]
    fn a_spawn_that_fails_waits_from_the_first_time_on() {
        let mut driver = Driver::ready(policy("web", 1));
        driver.spawns_fail = true;
        driver.exit(worker(0, 1), code(1));
        assert_eq!(driver.state(0), SlotState::Backoff);
        assert!(driver.slot(0).backoff().unwrap().1.contains("EMFILE"));
        driver.spawns_fail = false;
        driver.pass(0.1);
        driver.say_ready(worker(0, 3));
        assert_eq!(driver.state(0), SlotState::Ready);
    }

    #[test]
    fn events_of_the_dead_change_nothing() {
        let mut driver = Driver::ready(policy("web", 1));
        let dead = worker(0, 1);
        driver.exit(dead, code(1));
        driver.say_ready(worker(0, 2));
        let rule = "late".to_owned();
        let reason = String::new();
        for event in [
            Event::Ready { worker: dead },
            Event::Drained { worker: dead },
            Event::Misbehaved { worker: dead, rule },
            Event::Bye {
                worker: dead,
                reason,
            },
            Event::Spawned {
                worker: dead,
                pid: 1,
            },
        ] {
            assert_eq!(driver.step(event), []);
        }
        assert_eq!(driver.exit(dead, code(1)), []);
        let elsewhere = Worker {
            pool: PoolId(9),
            ..dead
        };
        assert_eq!(driver.say_ready(elsewhere), []);
        assert_eq!(driver.current(0), worker(0, 2));
    }

    #[test]
    fn a_worker_is_born_once() {
        let mut driver = Driver::ready(policy("web", 2));
        let pool = "web".to_owned();
        driver.command(Command::Scale { pool, workers: 1 });
        for slot in 0..2 {
            let (worker, pid) = (worker(slot, 1), 7);
            assert_eq!(driver.step(Event::Spawned { worker, pid }), []);
        }
    }

    #[test]
    fn who_is_to_leave_before_it_is_born_is_told_at_its_birth() {
        let mut fleet = Fleet::new(1, vec![policy("web", 1)]);
        let now = Time::default();
        fleet.start(now);
        let (job, command) = (JobId(1), Command::Stop { now: true });
        assert_eq!(fleet.step(now, Event::Command { job, command }), []);
        let unborn = worker(0, 1);
        let (worker, pid) = (unborn, 7);
        let actions = fleet.step(now, Event::Spawned { worker, pid });
        assert!(actions.contains(&Action::Kill { worker: unborn }));
        let exit = signal(9);
        let actions = fleet.step(now, Event::Exited { worker, exit });
        assert_eq!(actions.last(), Some(&Action::Ended));
    }

    #[test]
    fn ten_certificates_are_kept_newest_first() {
        let mut driver = Driver::ready(policy("web", 1));
        for incarnation in 1..=12 {
            driver.exit(worker(0, incarnation), code(1));
            driver.pass(31.0);
        }
        let kept: Vec<u64> = driver
            .slot(0)
            .exits()
            .map(|exit| exit.incarnation)
            .collect();
        assert_eq!(kept, (3..=12).rev().collect::<Vec<u64>>());
    }
}
