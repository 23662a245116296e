//! Takes connections from the listeners, until told not to.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::Notify;

use crate::listener::Listener;
use crate::serving::Serving;
use crate::stderr::say;
use crate::stream::Stream;

/// How long to wait where accepting fails for want of something: the call
/// would fail again at once, for as long as the connection waits in the queue.
const WANT: Duration = Duration::from_millis(50);

/// Connections taken in one go before the others get their turn.
const BATCH: u32 = 16;

/// Begins to serve a connection; the application's part of accepting.
pub(crate) type Serve = Rc<dyn Fn(Stream)>;

/// Whether connections are taken.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    shut: Cell<bool>,
    changed: Notify,
}

impl Gate {
    /// Takes no more connections, from the moment this returns.
    pub(crate) fn shut(&self) {
        self.set(true);
    }

    /// Takes connections again.
    pub(crate) fn open(&self) {
        self.set(false);
    }

    fn set(&self, shut: bool) {
        self.shut.set(shut);
        self.changed.notify_waiters();
    }

    async fn until(&self, shut: bool) {
        loop {
            let changed = self.changed.notified();
            if self.shut.get() == shut {
                return;
            }
            changed.await;
        }
    }
}

/// Accepts from one listener for as long as it is polled.
pub(crate) async fn accept(
    listener: Rc<Listener>,
    gate: Rc<Gate>,
    serving: &'static Serving,
    serve: Serve,
) {
    let mut accepted = 0;
    let mut complained = None;
    loop {
        gate.until(false).await;
        let result = tokio::select! {
            // The gate first, so that nothing is taken once it is shut.
            biased;
            () = gate.until(true) => continue,
            result = listener.accept() => result,
        };
        match result {
            Ok(socket) => {
                serve(Stream::admit(socket, serving));
                complained = None;
                accepted += 1;
                if accepted % BATCH == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                if complained != error.raw_os_error() {
                    complained = error.raw_os_error();
                    say(format_args!(
                        "cannot accept from {} for now: {error}",
                        listener.name
                    ));
                }
                tokio::time::sleep(WANT).await;
            }
        }
    }
}

/// Whether the error is one that the connection had before it was accepted
/// (accept(2), "Error handling"). It has been taken out of the queue.
fn concerns_one_connection(error: &io::Error) -> bool {
    let Some(errno) = error.raw_os_error().map(Errno::from_raw) else {
        return false;
    };
    matches!(
        errno,
        Errno::ECONNABORTED
            | Errno::ECONNRESET
            | Errno::EINTR
            | Errno::ENETDOWN
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
            | Errno::EPERM
    )
}
