//! A wait beside a connection that costs the connection's requests nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Relaxed, Ordering::Release};
use std::task::{Context, Poll, Wake, Waker};

use pin_project_lite::pin_project;

pin_project! {
    /// A wait that is asked again only when it has something to say. A
    /// connection's task is woken for each request, and to ask a timer or for a
    /// drain every time takes its lock; this one has a waker of its own.
    pub(crate) struct Quiet<F> {
        #[pin]
        wait: F,
        bell: Option<Arc<Bell>>,
    }
}

/// What the wait wakes.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Release);
        self.task.wake_by_ref();
    }
}

impl<F> Quiet<F> {
    pub(crate) fn new(wait: F) -> Self {
        Self { wait, bell: None }
    }
}

impl<F: Future> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let bell = match this.bell {
            Some(bell) if bell.task.will_wake(cx.waker()) => {
                if !bell.rung.load(Relaxed) {
                    return Poll::Pending;
                }
                bell
            }
            _ => this.bell.insert(Arc::new(Bell {
                rung: AtomicBool::new(true),
                task: cx.waker().clone(),
            })),
        };
        // Before it is asked: what rings meanwhile is not to be lost.
        bell.rung.swap(false, AcqRel);
        let waker = Waker::from(Arc::clone(bell));
        this.wait.poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;
    use tokio::sync::Notify;

    use crate::runtime::test_waker::Task;

    #[test]
    fn a_wait_is_asked_once_and_again_when_it_has_rung() {
        let (notify, asked) = (Notify::new(), Cell::new(0));
        let mut notified = pin!(notify.notified());
        let mut quiet = pin!(Quiet::new(poll_fn(|cx| {
            asked.set(asked.get() + 1);
            notified.as_mut().poll(cx)
        })));
        let (task, waker) = Task::with_waker();
        let mut cx = Context::from_waker(&waker);
        for _ in 0..3 {
            assert!(quiet.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(asked.get(), 1);
        notify.notify_waiters();
        assert!(task.was_woken());
        assert!(quiet.as_mut().poll(&mut cx).is_ready());
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn a_wait_that_another_task_takes_over_wakes_that_one() {
        let notify = Notify::new();
        let mut quiet = pin!(Quiet::new(notify.notified()));
        let tasks = [Task::with_waker(), Task::with_waker()];
        for (_, waker) in &tasks {
            let mut cx = Context::from_waker(waker);
            assert!(quiet.as_mut().poll(&mut cx).is_pending());
        }
        notify.notify_waiters();
        let woken = tasks.map(|(task, _)| task.was_woken());
        assert_eq!(woken, [false, true]);
    }
}
