//! A task that notes that it was woken, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Wake, Waker};

#[derive(Debug, Default)]
pub(crate) struct Task(AtomicBool);

impl Task {
    /// A task that was not woken yet, and what wakes it.
    pub(crate) fn with_waker() -> (Arc<Self>, Waker) {
        let task = Arc::new(Self::default());
        let waker = Waker::from(Arc::clone(&task));
        (task, waker)
    }

    pub(crate) fn was_woken(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}
