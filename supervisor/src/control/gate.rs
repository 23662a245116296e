//! A gate before the servers: while it is closed they take no connection, and
//! those that are open end with the answer that is on its way. Who comes
//! meanwhile waits in the kernel's queue.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

/// Shared by the servers and whoever closes it.
#[derive(Debug, Clone)]
pub struct Gate {
    closed: Rc<watch::Sender<bool>>,
    visitors: Rc<watch::Sender<usize>>,
}

impl Default for Gate {
    /// An open gate.
    fn default() -> Self {
        Self {
            closed: Rc::new(watch::Sender::new(false)),
            visitors: Rc::new(watch::Sender::new(0)),
        }
    }
}

/// Somebody whose connection is open; dropped at its end.
#[derive(Debug)]
pub(crate) struct Visitor(Rc<watch::Sender<usize>>);

impl Gate {
    /// Closes it, and returns when no more than `but` connections are left or
    /// the time is over.
    pub(crate) async fn close(&self, but: usize, within: Duration) {
        self.closed.send_replace(true);
        let mut visitors = self.visitors.subscribe();
        let gone = visitors.wait_for(|visitors| *visitors <= but);
        // Who follows the events stays to the end.
        let _ = tokio::time::timeout(within, gone).await;
    }

    /// Opens it again.
    pub(crate) fn open(&self) {
        self.closed.send_replace(false);
    }

    /// Counts a connection.
    pub(crate) fn enter(&self) -> Visitor {
        self.visitors.send_modify(|visitors| *visitors += 1);
        Visitor(Rc::clone(&self.visitors))
    }

    /// Returns when it is open.
    pub(crate) async fn opened(&self) {
        // The sender is ours: it can't be gone.
        let _ = self.closed.subscribe().wait_for(|closed| !closed).await;
    }

    /// Returns when it is closed.
    pub(crate) async fn closed(&self) {
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.0.send_modify(|visitors| *visitors -= 1);
    }
}
