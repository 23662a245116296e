//! What is heard of a process, and what it means when nothing is.

use prefork_proto::control::ExitReason;

use super::Fleet;
use super::event::{Action, Report, Time, Worker};
use super::leave::How;
use super::lifecycle::Failure;
use super::process::Stage;
use super::slot::{Place, Seat, SlotId};

impl Fleet {
    /// A process reported on itself. This is by far the most frequent event;
    /// it touches no more than the process unless a limit has been reached.
    pub(super) fn health(&mut self, now: Time, worker: Worker, requests: u64, in_flight: u64) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        let Some(process) = self.slot_mut(id).process_mut(place) else {
            return;
        };
        process.in_flight = in_flight;
        if let Some(serving) = process.serving_mut() {
            serving.last_health = now;
        }
        let spent = process
            .limits
            .requests
            .is_some_and(|limit| requests >= limit);
        if spent && place == Place::Current {
            self.recycle(now, id, ExitReason::MaxRequests);
        }
    }

    /// A process's resident memory was looked up.
    pub(super) fn memory(&mut self, now: Time, worker: Worker, resident: u64) {
        let Some((id, place)) = self.find(worker) else {
            return;
        };
        let limit = self.policy(id.pool).max_rss;
        if place == Place::Current && limit.is_some_and(|limit| resident > limit) {
            self.recycle(now, id, ExitReason::MaxRss);
        }
    }

    /// A process said why it is about to leave.
    pub(super) fn bye(&mut self, worker: Worker, reason: String) {
        if let Some((id, place)) = self.find(worker)
            && let Some(process) = self.slot_mut(id).process_mut(place)
        {
            process.farewell = Some(reason);
        }
    }

    /// A process broke the protocol. One that is leaving has a deadline
    /// already, and a channel that closes is the way most of them leave: it is
    /// only noted.
    pub(super) fn misbehaved(&mut self, now: Time, worker: Worker, rule: &str) {
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
        self.expel(now, id, place, cause, How::Kill, rule, &phrase);
    }

    /// Acts on the deadline of the slot's seat, if it has come.
    pub(super) fn seat_due(&mut self, now: Time, id: SlotId) {
        let policy = self.policy(id.pool);
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
            Seat::Held(process) if process.deadline(policy) <= now => match &process.stage {
                Stage::Starting => self.boot_timed_out(now, id, Place::Current),
                Stage::Ready(_) | Stage::Paused(_) => self.hung(now, id),
            },
            Seat::Held(process) => {
                if process.too_old_at().is_some_and(|age| age <= now) {
                    self.recycle(now, id, ExitReason::MaxAge);
                }
            }
        }
    }

    /// A process was not ready in time.
    pub(super) fn boot_timed_out(&mut self, now: Time, id: SlotId, place: Place) {
        let within = self.policy(id.pool).boot_timeout;
        let phrase = format!("was not ready within {within:?}");
        let cause = ExitReason::BootTimeout;
        self.expel(now, id, place, cause, How::Kill, "", &phrase);
    }

    /// The current process has been silent for too long.
    fn hung(&mut self, now: Time, id: SlotId) {
        let how = if self.policy(id.pool).dump_on_hang {
            How::Abort
        } else {
            How::Kill
        };
        let Some(process) = self.slot(id).and_then(|slot| slot.current()) else {
            return;
        };
        let Some(serving) = process.serving() else {
            return;
        };
        let worker = process.worker;
        let silent = now.since(serving.last_health);
        self.actions
            .push(Action::Report(Report::HeartbeatMissed { worker, silent }));
        let phrase = format!("was silent for {silent:?}");
        let note = format!("silent for {silent:?}");
        let cause = ExitReason::HeartbeatTimeout;
        self.expel(now, id, Place::Current, cause, how, &note, &phrase);
    }

    /// Makes a process leave that has failed but lives. Its slot does not wait
    /// for the reaping.
    #[expect(clippy::too_many_arguments, reason = "each says one thing of the end")]
    fn expel(
        &mut self,
        now: Time,
        id: SlotId,
        place: Place,
        cause: ExitReason,
        how: How,
        note: &str,
        phrase: &str,
    ) {
        let note = Some(note.to_owned());
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
