//! Tasks: those of this library, told apart from those that the application starts past
//! it, by `tokio::spawn` and the like.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

thread_local! {
    /// Tasks of this library that have not ended.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// Starts a task of this library's own on this thread.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let place = Place::take();
    tokio::task::spawn_local(Own { future, place })
}

/// Tasks of the application that this library knows nothing of, and so does not wait for.
pub(crate) fn unknown() -> usize {
    let all = Handle::current().metrics().num_alive_tasks();
    all.saturating_sub(OWN.get())
}

pin_project! {
    /// A task that is counted for as long as it is there.
    struct Own<F> {
        #[pin]
        future: F,
        place: Place,
    }
}

impl<F: Future> Future for Own<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(cx)
    }
}

/// One of those that are counted.
struct Place;

impl Place {
    fn take() -> Self {
        OWN.set(OWN.get() + 1);
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OWN.set(OWN.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::yield_now;

    use super::*;

    #[test]
    fn only_what_the_application_starts_is_unknown() {
        let runtime = Builder::new_current_thread()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let own = spawn(std::future::pending::<()>());
            spawn(async {}).await.unwrap();
            assert_eq!(unknown(), 0);
            let task = tokio::spawn(std::future::pending::<()>());
            let local = tokio::task::spawn_local(yield_now());
            assert_eq!(unknown(), 2);
            local.await.unwrap();
            assert_eq!(unknown(), 1);
            own.abort();
            assert!(own.await.is_err());
            assert_eq!(unknown(), 1);
            task.abort();
            assert!(task.await.is_err());
            assert_eq!(unknown(), 0);
        });
    }
}
