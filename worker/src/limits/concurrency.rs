//! How many requests the application has at a time, and what becomes of others.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::limits::Limits;
use crate::runtime::timer::Timer;

/// The turns of the whole process.
#[derive(Debug)]
pub(crate) struct Admission {
    turns: Semaphore,
    waiting: AtomicUsize,
    most_waiting: usize,
    patience: Duration,
    /// Nobody waits any more.
    relieved: Notify,
}

/// A request's turn, until it is dropped.
pub(crate) type Turn = SemaphorePermit<'static>;

impl Admission {
    /// One that admits as many requests as these limits say; none where they
    /// say nothing.
    pub(crate) fn under(limits: &Limits) -> Option<Self> {
        let most = limits.max_concurrency?.min(Semaphore::MAX_PERMITS);
        Some(Self {
            turns: Semaphore::new(most),
            waiting: AtomicUsize::new(0),
            most_waiting: limits.max_queue.unwrap_or(most),
            patience: limits.queue_timeout,
            relieved: Notify::new(),
        })
    }

    /// A turn at once, if there is one and nobody waits for it.
    pub(crate) fn now(&'static self) -> Option<Turn> {
        self.turns.try_acquire().ok()
    }

    /// A turn as soon as there is one; none where too many wait already, or
    /// the time is over.
    pub(crate) fn wait(
        &'static self,
        timer: &'static Timer,
    ) -> Option<impl Future<Output = Option<Turn>> + use<>> {
        let place = Place::take(self)?;
        let until = timer.now() + self.patience;
        Some(async move {
            let turn = tokio::select! {
                biased;
                // It is never closed.
                turn = self.turns.acquire() => turn.ok(),
                () = timer.sleep_until(until) => None,
            };
            drop(place);
            turn
        })
    }

    /// Whether requests wait.
    pub(crate) fn is_pressed(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Waits until none does.
    pub(crate) async fn relieved(&self) {
        loop {
            let relieved = self.relieved.notified();
            if !self.is_pressed() {
                return;
            }
            relieved.await;
        }
    }

    /// What a client that was turned away is told, in seconds.
    pub(crate) fn retry_after(&self) -> u64 {
        self.patience.as_secs().max(1)
    }
}

/// A waiting request's place in the queue.
struct Place(&'static Admission);

impl Place {
    fn take(admission: &'static Admission) -> Option<Self> {
        // Only the serving thread counts here.
        let waiting = admission.waiting.load(Relaxed);
        if waiting >= admission.most_waiting {
            return None;
        }
        admission.waiting.store(waiting + 1, Relaxed);
        Some(Self(admission))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Relaxed) == 1 {
            self.0.relieved.notify_waiters();
        }
    }
}
