//! The process's timer: all waits for a time, on one timerfd(2), by the process's own
//! [`Clock`].
//!
//! A worker always waits for some time or other: to report, to look at a
//! connection, to look at a listener. While a timer of the runtime's runs, each
//! of the runtime's waits for events costs one more look at the clock and some
//! two hundred instructions, and on a quiet worker there is one for every
//! request. A descriptor costs nothing until its time has come.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::runtime::clock::{Clock, PULSE};
use crate::runtime::task;
use crate::sys;

/// The worker's timer: waits for a time, by a clock that stands still while the process
/// does. [`Context::timer`](crate::Context::timer) has it.
///
/// Clients and others are held to their times by it: what they sent while the process
/// was stopped, frozen or suspended lies in their sockets, and that time counts for
/// nothing. A wait costs a quiet worker nothing; one of the runtime's own costs each of
/// its looks for events a look at the clock as well.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn upstream() {}
/// async fn within(context: &prefork_worker::Context, patience: Duration) -> bool {
///     let timer = context.timer();
///     tokio::select! {
///         () = upstream() => true,
///         () = timer.sleep_until(timer.now() + patience) => false,
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Timer {
    descriptor: TimerFd,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    clock: Clock,
    /// By when it is their time; the number tells those of one moment apart.
    wakers: BTreeMap<Key, Waker>,
    next: u64,
    /// When the descriptor will say something, by the system's clock.
    armed: Option<Instant>,
}

type Key = (Instant, u64);

impl Timer {
    /// Makes the process's; to be called in its runtime.
    ///
    /// # Errors
    /// What timerfd_create(2) and epoll_ctl(2) say.
    pub(crate) fn start() -> io::Result<&'static Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let descriptor = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let timer: &'static Self = Box::leak(Box::new(Self {
            descriptor,
            waiting: Mutex::new(Waiting {
                clock: Clock::new(Instant::now()),
                wakers: BTreeMap::new(),
                next: 0,
                armed: None,
            }),
        }));
        let ends = sys::watch_readable(timer.descriptor.as_fd())?;
        task::spawn(timer.run(ends));
        Ok(timer)
    }

    /// The time now, as its clock shows it.
    pub fn now(&self) -> Instant {
        self.waiting().clock.show(Instant::now())
    }

    /// What [`Self::now`] was, or would have been, at this time of the system's.
    pub(crate) fn shown(&self, at: Instant) -> Instant {
        self.waiting().clock.shown(at)
    }

    /// Waits until its clock shows this time.
    pub fn sleep_until(&self, at: Instant) -> Sleep<'_> {
        Sleep {
            timer: self,
            at,
            number: None,
        }
    }

    async fn run(&self, ends: AsyncFd<BorrowedFd<'_>>) {
        // An error says that the runtime has ended.
        while let Ok(mut end) = ends.readable().await {
            // It is not read: only the next end makes it ready again.
            end.clear_ready();
            for waker in self.due().into_values() {
                waker.wake();
            }
        }
    }

    /// Takes out those whose time has come, and arms for the next one.
    fn due(&self) -> BTreeMap<Key, Waker> {
        let mut waiting = self.waiting();
        let now = waiting.clock.show(Instant::now());
        let later = waiting.wakers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut waiting.wakers, later);
        waiting.armed = None;
        if let Some((&(next, _), _)) = waiting.wakers.first_key_value() {
            let next = waiting.clock.instant(next);
            self.arm(&mut waiting, next);
        }
        due
    }

    /// Notes whom to wake at a time; the number of it.
    fn note(&self, at: Instant, number: Option<u64>, waker: &Waker) -> u64 {
        let mut waiting = self.waiting();
        let number = number.unwrap_or_else(|| {
            waiting.next += 1;
            waiting.next
        });
        waiting.wakers.insert((at, number), waker.clone());
        let at = waiting.clock.instant(at);
        if waiting.armed.is_none_or(|armed| at < armed) {
            self.arm(&mut waiting, at);
        }
        number
    }

    /// Has the descriptor say something then, or sooner, for the clock to be looked at.
    fn arm(&self, waiting: &mut Waiting, at: Instant) {
        let now = Instant::now();
        let at = at.min(now + PULSE);
        // None at all would disarm it.
        let left = at.saturating_duration_since(now);
        let left = TimeSpec::from(left.max(Duration::from_nanos(1)));
        // It fails for what is no time or no timer; then the next one tries again.
        let set = self
            .descriptor
            .set(Expiration::OneShot(left), TimerSetTimeFlags::empty());
        waiting.armed = set.is_ok().then_some(at);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that is done while it is held panics half way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait for a time of a [`Timer`]; over when dropped.
///
/// ```
/// use std::time::Duration;
///
/// use prefork_worker::{Sleep, Timer};
///
/// fn a_second(timer: &Timer) -> Sleep<'_> {
///     timer.sleep_until(timer.now() + Duration::from_secs(1))
/// }
/// ```
#[derive(Debug)]
pub struct Sleep<'a> {
    timer: &'a Timer,
    at: Instant,
    /// Its number while somebody is to be woken.
    number: Option<u64>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.now() >= self.at {
            return Poll::Ready(());
        }
        self.number = Some(self.timer.note(self.at, self.number, cx.waker()));
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // What it would have woken is dropped after the lock is released:
            // with it may go a task that has timer of its own.
            let _waker = self.timer.waiting().wakers.remove(&(self.at, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::spawn_local;

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(test)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn each_ends_at_its_time_in_whatever_order_they_began() {
        run(async {
            let timer = Timer::start().unwrap();
            let begun = Instant::now();
            let ended = Rc::new(RefCell::new(Vec::new()));
            let tasks = [60, 20, 0, 40, 20].map(|after| {
                let ended = Rc::clone(&ended);
                spawn_local(async move {
                    let at = begun + millis(after);
                    timer.sleep_until(at).await;
                    assert!(Instant::now() >= at);
                    ended.borrow_mut().push(after);
                })
            });
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(*ended.borrow(), [0, 20, 20, 40, 60]);
            assert!(timer.waiting().wakers.is_empty());
        });
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing_and_the_others_go_on() {
        run(async {
            let timer = Timer::start().unwrap();
            let now = Instant::now();
            let far = timer.sleep_until(now + Duration::from_secs(3600));
            let given_up = timer.sleep_until(now + millis(20));
            let near = timer.sleep_until(now + millis(40));
            tokio::select! {
                biased;
                () = far => panic!("an hour has passed"),
                () = async { tokio::select! {
                    biased;
                    () = given_up => {}
                    () = std::future::ready(()) => {}
                } } => {}
            }
            assert!(timer.waiting().wakers.is_empty());
            near.await;
        });
    }
}
