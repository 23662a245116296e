//! Takes connections from the listeners, until told not to.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::Notify;
use tokio::time::timeout;

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

/// How long a retiring listener waits for handshakes that had begun before.
const LAST_HANDSHAKES: Duration = Duration::from_millis(200);

/// Whether connections are taken.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Cell<State>,
    listeners: Cell<usize>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Shut,
    /// The listeners take no new handshake, give out what they have and close.
    Retiring,
}

impl Gate {
    /// Takes no more connections, from the moment this returns. Those that
    /// wait are for the listener's other holders.
    pub(crate) fn shut(&self) {
        self.set(State::Shut);
    }

    /// Takes connections again.
    pub(crate) fn open(&self) {
        self.set(State::Open);
    }

    /// Closes the listeners once what waits on them is taken: for a worker
    /// that is their only holder.
    pub(crate) fn retire(&self) {
        self.set(State::Retiring);
    }

    fn set(&self, state: State) {
        self.state.set(state);
        self.changed.notify_waiters();
    }

    async fn until(&self, mut reached: impl FnMut(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if reached(self) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until this is not the state any more.
    async fn leaves(&self, state: State) {
        self.until(|gate| gate.state.get() != state).await;
    }

    /// Waits until every listener has retired.
    pub(crate) async fn retired(&self) {
        self.until(|gate| gate.listeners.get() == 0).await;
    }
}

/// Takes connections from a listener, as the gate says, until it has retired.
pub(crate) fn accept(
    listener: Listener,
    gate: Rc<Gate>,
    serving: &'static Serving,
    serve: Serve,
) -> impl Future<Output = ()> {
    // Before anything is polled, so that it is not taken for retired.
    gate.listeners.set(gate.listeners.get() + 1);
    accept_until_retired(listener, gate, serving, serve)
}

async fn accept_until_retired(
    listener: Listener,
    gate: Rc<Gate>,
    serving: &'static Serving,
    serve: Serve,
) {
    loop {
        match gate.state.get() {
            State::Shut => gate.leaves(State::Shut).await,
            State::Open => {
                tokio::select! {
                    // The gate first, so that nothing is taken once it is shut.
                    biased;
                    () = gate.leaves(State::Open) => {}
                    () = take(&listener, serving, &serve) => {}
                }
            }
            State::Retiring => break,
        }
    }
    listener.refuse_handshakes();
    // The time ends it: there is always one more connection that may come.
    let _ = timeout(LAST_HANDSHAKES, take(&listener, serving, &serve)).await;
    drop(listener);
    gate.listeners.set(gate.listeners.get() - 1);
    gate.changed.notify_waiters();
}

/// Takes connections for as long as it is polled.
async fn take(listener: &Listener, serving: &'static Serving, serve: &Serve) {
    let mut accepted = 0;
    let mut complained = None;
    loop {
        let result = listener.accept().await;
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
