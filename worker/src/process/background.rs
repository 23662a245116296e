//! What an application does beside answering: tasks, and calls that block. A
//! drain waits for both, and a panic in one ends nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use prometheus::IntCounter;
use tokio::sync::{Notify, Semaphore};

use crate::runtime::task;

/// Blocking calls that run at a time, each on a thread of its own.
const BLOCKING: usize = 64;

/// Why a blocking call has no result.
///
/// ```no_run
/// use prefork_worker::{BlockingError, Context};
///
/// async fn sum(context: &Context, numbers: Vec<u64>) -> String {
///     match context.blocking(move || numbers.iter().sum::<u64>()).await {
///         Ok(sum) => sum.to_string(),
///         Err(BlockingError::Panicked) => "the sum is too large".to_owned(),
///         Err(BlockingError::Ended) => "the worker leaves".to_owned(),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockingError {
    /// It panicked; what it said is on stderr.
    #[error("the blocking call panicked")]
    Panicked,
    /// The worker ended before its turn came.
    #[error("the worker ended before the blocking call was begun")]
    Ended,
}

/// The process's work in the background.
#[derive(Debug)]
pub(crate) struct Background {
    open: AtomicU64,
    ended: Notify,
    turns: Semaphore,
    panics: OnceLock<IntCounter>,
}

impl Default for Background {
    fn default() -> Self {
        Self {
            open: AtomicU64::new(0),
            ended: Notify::new(),
            turns: Semaphore::new(BLOCKING),
            panics: OnceLock::new(),
        }
    }
}

impl Background {
    /// Tasks and blocking calls that have not ended.
    pub(crate) fn open(&self) -> u64 {
        self.open.load(SeqCst)
    }

    /// Waits until all have ended.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.open() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Begins a task on this thread.
    pub(crate) fn spawn(&'static self, task: impl Future<Output = ()> + 'static) {
        let place = self.begin();
        let task = task::spawn(task);
        task::spawn(async move {
            if task.await.is_err_and(|error| error.is_panic()) {
                place.background.count_panic();
            }
            drop(place);
        });
    }

    /// Runs what blocks on a thread for such calls, when its turn has come. It
    /// runs to its end, also where nobody waits for it any more.
    pub(crate) async fn blocking<T, F>(&'static self, call: F) -> Result<T, BlockingError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let place = self.begin();
        let turn = self.turns.acquire().await;
        let turn = turn.map_err(|_| BlockingError::Ended)?;
        let call = move || {
            // What it has left half done is its own: it was moved here.
            let result = catch_unwind(AssertUnwindSafe(call));
            if result.is_err() {
                place.background.count_panic();
            }
            drop((turn, place));
            result.map_err(|_| BlockingError::Panicked)
        };
        let result = tokio::task::spawn_blocking(call).await;
        result.unwrap_or(Err(BlockingError::Ended))
    }

    fn begin(&'static self) -> Place {
        self.open.fetch_add(1, SeqCst);
        // Exported with 0 from the first use on.
        self.panics();
        Place { background: self }
    }

    fn count_panic(&self) {
        self.panics().inc();
    }

    fn panics(&self) -> &IntCounter {
        self.panics.get_or_init(|| {
            let help = "Background tasks and blocking calls that panicked.";
            let counter =
                IntCounter::new("background_panics_total", help).expect("the name is a valid one");
            // Where the application has a metric of that name, its own is shown.
            let _ = prometheus::register(Box::new(counter.clone()));
            counter
        })
    }
}

/// A task's or call's place among the others; leaves it when dropped.
#[derive(Debug)]
struct Place {
    background: &'static Background,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.background.open.fetch_sub(1, SeqCst) == 1 {
            self.background.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;
    use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

    fn background() -> &'static Background {
        Box::leak(Box::default())
    }

    fn runtime() -> LocalRuntime {
        let mut builder = Builder::new_current_thread();
        builder.enable_all();
        builder.build_local(LocalOptions::default()).unwrap()
    }

    #[test]
    fn tasks_are_waited_for_and_a_panic_in_one_is_counted() {
        runtime().block_on(async {
            let background = background();
            let (done, wait) = tokio::sync::oneshot::channel::<()>();
            background.spawn(async { panic!("as asked for") });
            background.spawn(async move { wait.await.unwrap() });
            assert_eq!(background.open(), 2);
            let early = tokio::time::timeout(Duration::from_millis(50), background.ended());
            assert!(early.await.is_err());
            assert_eq!((background.open(), background.panics().get()), (1, 1));
            done.send(()).unwrap();
            background.ended().await;
            assert_eq!(background.open(), 0);
        });
    }

    #[test]
    fn blocking_calls_give_their_result_or_say_that_they_panicked() {
        runtime().block_on(async {
            let background = background();
            assert_eq!(background.blocking(|| 6 * 7).await, Ok(42));
            let panicked = background.blocking(|| panic!("as asked for")).await;
            assert_eq!(panicked, Err::<(), _>(BlockingError::Panicked));
            background.ended().await;
            assert_eq!(background.panics().get(), 1);
        });
    }

    #[test]
    fn no_more_blocking_calls_run_at_a_time_than_there_are_turns() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        runtime().block_on(async {
            let background = background();
            for _ in 0..3 * BLOCKING {
                background.spawn(async {
                    let call = || {
                        MOST.fetch_max(RUNNING.fetch_add(1, SeqCst) + 1, SeqCst);
                        std::thread::sleep(Duration::from_millis(5));
                        RUNNING.fetch_sub(1, SeqCst);
                    };
                    background.blocking(call).await.unwrap();
                });
            }
            background.ended().await;
            let most = MOST.load(SeqCst);
            assert!((1..=BLOCKING).contains(&most), "{most}");
        });
    }

    #[test]
    fn a_call_that_nobody_waits_for_any_more_is_still_waited_for_by_the_drain() {
        runtime().block_on(async {
            let background = background();
            let (end, wait) = std::sync::mpsc::channel::<()>();
            let call = background.blocking(move || wait.recv().unwrap());
            assert!(
                tokio::time::timeout(Duration::from_millis(50), call)
                    .await
                    .is_err()
            );
            assert_eq!(background.open(), 1);
            end.send(()).unwrap();
            background.ended().await;
        });
    }
}
