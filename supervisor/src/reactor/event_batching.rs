//! Rests of the event loop, so that what many workers say comes in batches.
//!
//! A thousand idle workers report a thousand times a second, one after the other.
//! To wake up for each costs several times what a report does: meanwhile others
//! have had the processor and its caches. So a loop that hears much rests a little
//! before it waits, as network drivers let interrupts come together. What cannot
//! wait ends a rest at once: a connection to a socket that is watched, and any
//! signal, the end of a worker (SIGCHLD) among them. While something other than
//! reports goes on there is no rest at all.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

/// How long a message may have to wait.
const REST: Duration = Duration::from_millis(20);

/// An answer to a ping comes sooner, and the time that it takes is measured: it
/// may be wrong by this much.
const SHORT_REST: Duration = Duration::from_micros(250);

/// Messages in a second from which on it is worth while: several in a rest.
const MANY: u32 = 250;

/// No rest for so long after something has happened.
const ALERT: Duration = Duration::from_millis(100);

const SECOND: Duration = Duration::from_secs(1);

/// When the loop rests. Its clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rest(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Sockets whose connections can't wait.
    watched: Vec<OwnedFd>,
    pace: Pace,
}

impl Rest {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is of one field.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a connection to these end a rest. Before they are closed this has to
    /// be taken back, since a duplicate keeps a socket open.
    pub(crate) fn watch(&self, sockets: Vec<OwnedFd>) {
        self.state().watched = sockets;
    }

    /// A message has come.
    pub(crate) fn heard(&self, now: Instant) {
        self.state().pace.heard(now);
    }

    /// An answer is on its way whose time is measured.
    pub(crate) fn asked(&self) {
        self.state().pace.asked = true;
    }

    /// Something happens that is more than a report.
    pub(crate) fn stir(&self) {
        self.state().pace.alert = Some(Instant::now() + ALERT);
    }

    /// Ends a rest by then: how late the loop is will be measured.
    pub(crate) fn end_by(&self, time: Instant) {
        self.state().pace.alarm = Some(time);
    }

    /// Before the loop waits for whatever comes next.
    pub(crate) fn before_waiting(&self) {
        let mut state = self.state();
        let Some(rest) = state.pace.rest(Instant::now()) else {
            return;
        };
        let sockets = state.watched.iter();
        let mut watched: Vec<PollFd<'_>> = sockets
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        // A signal ends it as well; what there is the loop finds by itself.
        let _ = ppoll(&mut watched, Some(TimeSpec::from_duration(rest)), None);
    }
}

/// How long to rest.
#[derive(Debug, Default)]
struct Pace {
    /// The second that is being counted, and what was heard in it.
    counted: Option<(Instant, u32)>,
    /// Whether many messages came in the second before.
    busy: bool,
    asked: bool,
    alert: Option<Instant>,
    alarm: Option<Instant>,
}

impl Pace {
    fn heard(&mut self, now: Instant) {
        match &mut self.counted {
            Some((since, heard)) if now - *since < SECOND => *heard += 1,
            Some((since, heard)) => {
                self.busy = *heard >= MANY && now - *since < 2 * SECOND;
                self.counted = Some((now, 1));
            }
            None => self.counted = Some((now, 1)),
        }
    }

    fn rest(&mut self, now: Instant) -> Option<Duration> {
        let asked = std::mem::take(&mut self.asked);
        if !self.busy || self.alert.is_some_and(|end| now < end) {
            return None;
        }
        let rest = if asked { SHORT_REST } else { REST };
        match self.alarm {
            Some(alarm) if alarm < now + rest => alarm.checked_duration_since(now),
            _ => Some(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pace that has heard so many messages a second for three seconds, and
    /// the time after that.
    fn after(messages: u32) -> (Pace, Instant) {
        let begun = Instant::now();
        let mut pace = Pace::default();
        for number in 0..3 * messages {
            pace.heard(begun + SECOND * number / messages);
        }
        (pace, begun + 3 * SECOND)
    }

    #[test]
    fn it_rests_only_where_much_is_heard() {
        let (mut pace, now) = after(1000);
        assert_eq!(pace.rest(now), Some(REST));
        let (mut pace, now) = after(130);
        assert_eq!(pace.rest(now), None);
        // Not any more, once most of them have gone.
        let (mut pace, now) = after(1000);
        pace.heard(now);
        pace.heard(now + 3 * SECOND);
        assert_eq!(pace.rest(now + 3 * SECOND), None);
    }

    #[test]
    fn an_answer_whose_time_is_measured_is_waited_for_briefly() {
        let (mut pace, now) = after(1000);
        pace.asked = true;
        assert_eq!(pace.rest(now), Some(SHORT_REST));
        assert_eq!(pace.rest(now), Some(REST));
    }

    #[test]
    fn nothing_rests_while_something_happens() {
        let (mut pace, now) = after(1000);
        pace.alert = Some(now + ALERT);
        assert_eq!(pace.rest(now), None);
        assert_eq!(pace.rest(now + ALERT), Some(REST));
    }

    #[test]
    fn a_rest_ends_in_time_for_what_is_measured() {
        let (mut pace, now) = after(1000);
        pace.alarm = Some(now + REST / 2);
        assert_eq!(pace.rest(now), Some(REST / 2));
        assert_eq!(pace.rest(now + REST), None);
        pace.alarm = Some(now + 2 * REST);
        assert_eq!(pace.rest(now), Some(REST));
    }
}
