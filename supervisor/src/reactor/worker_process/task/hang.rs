//! A process that is to be ended because it hangs is looked at first: where it was is
//! gone afterwards. What ends it waits for that for [`MOST_DELAY`] at most, and its
//! certificate for the names of its functions.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use prefork_api::ThreadDump;

use crate::helper::thread_dump::Looking;
#[cfg(doc)]
use crate::helper::thread_dump::MOST_DELAY;
use crate::reactor::worker_process::task::*;

/// As many processes are looked at at once: where all hang for one reason, that says as
/// much as all of them.
const MOST_AT_ONCE: usize = 4;

/// Who may look. All tasks share it.
pub(crate) fn looks() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MOST_AT_ONCE))
}

/// The look at this process, once it is taken.
#[derive(Debug, Default)]
pub(super) struct Hang {
    look: Look,
    /// What ends it, until it was looked at.
    held: Vec<Signal>,
}

#[derive(Debug, Default)]
enum Look {
    #[default]
    None,
    /// It was not looked at, and why.
    Missed(String),
    Taken {
        looking: Looking,
        is_seen: bool,
        _permit: OwnedSemaphorePermit,
    },
}

impl Hang {
    /// Waits until what ends it need not wait any more; for ever where nothing does. May
    /// be cancelled.
    pub(super) async fn seen(&mut self) {
        match &mut self.look {
            Look::Taken {
                looking, is_seen, ..
            } if !*is_seen => looking.seen().await,
            _ => std::future::pending().await,
        }
    }

    fn is_in_hand(&self) -> bool {
        matches!(self.look, Look::Taken { is_seen: false, .. })
    }

    /// What is known of where it was, if it was asked for.
    pub(super) async fn result(&mut self) -> Option<Box<ThreadDump>> {
        let why = match std::mem::take(&mut self.look) {
            Look::None => return None,
            Look::Missed(why) => why,
            Look::Taken { looking, .. } => match looking.result().await {
                Some(dump) => return Some(dump),
                None => "everything: looking at it took too long".to_owned(),
            },
        };
        Some(Box::new(ThreadDump {
            lacks: vec![why],
            ..ThreadDump::default()
        }))
    }
}

impl Process {
    /// Looks where it is, unless it was looked at before.
    pub(super) fn look(&mut self) {
        if !matches!(self.hang.look, Look::None) {
            return;
        }
        let permit = Arc::clone(&self.ties.looks).try_acquire_owned();
        self.hang.look = match permit {
            Err(_) => Look::Missed("everything: others were being looked at".to_owned()),
            Ok(permit) => match Looking::start(self.pid, self.started.ticks()) {
                Ok(looking) => Look::Taken {
                    looking,
                    is_seen: false,
                    _permit: permit,
                },
                Err(error) => Look::Missed(format!("everything: no process to look: {error}")),
            },
        };
    }

    /// Sends a signal, once nobody looks at the process any more.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.hang.is_in_hand() {
            self.hang.held.push(signal);
        } else {
            self.send_signal(signal);
        }
    }

    /// It was looked at, or the time for that is over: sends what had to wait.
    pub(super) fn seen(&mut self) {
        if let Look::Taken { is_seen, .. } = &mut self.hang.look {
            *is_seen = true;
        }
        for signal in std::mem::take(&mut self.hang.held) {
            self.send_signal(signal);
        }
    }
}
