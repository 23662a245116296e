//! What a worker does with the connections that wait on its listeners.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// Whether connections are taken, and whether all is taken that has to be.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Cell<State>,
    /// Listeners that are open.
    listeners: Cell<usize>,
    /// Listeners of whose connections this process is told.
    followed: Cell<usize>,
    /// Rescues that are under way.
    rescues: Cell<usize>,
    changed: Notify,
}

/// What is to be done with the listeners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Connections are taken as they come.
    #[default]
    Open,
    /// Those that wait are for the listeners' other holders.
    Shut,
    /// What waits is taken, then the listeners are closed.
    Sweeping,
    /// The listeners take no new handshake, give out what they have and close.
    Retiring,
}

impl Gate {
    /// Takes no more connections, once the gate is [settled](Self::settled).
    pub(crate) fn shut(&self) {
        self.set(State::Shut);
    }

    /// Takes connections again.
    pub(crate) fn open(&self) {
        self.set(State::Open);
    }

    /// Takes what waits and closes the listeners: for a worker after which
    /// nobody accepts from them.
    pub(crate) fn sweep(&self) {
        self.set(State::Sweeping);
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

    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// Notes a listener that is open until the place is dropped.
    pub(crate) fn listener(self: &Rc<Self>) -> Place {
        self.place(|gate| &gate.listeners)
    }

    /// Notes a listener of whose connections this process is told, until the
    /// place is dropped.
    pub(crate) fn follower(self: &Rc<Self>) -> Place {
        self.place(|gate| &gate.followed)
    }

    /// Notes a rescue that is under way until the place is dropped.
    pub(crate) fn rescue(self: &Rc<Self>) -> Place {
        self.place(|gate| &gate.rescues)
    }

    fn place(self: &Rc<Self>, count: fn(&Self) -> &Cell<usize>) -> Place {
        count(self).update(|places| places + 1);
        Place {
            gate: Rc::clone(self),
            count,
        }
    }

    /// Waits until a gate that was shut takes nothing more.
    pub(crate) async fn settled(&self) {
        self.until(|gate| gate.state.get() == State::Open || gate.followed.get() == 0)
            .await;
    }

    /// Whether no connection waits for this worker in particular.
    pub(crate) fn has_nothing_left(&self) -> bool {
        let closes = matches!(self.state.get(), State::Sweeping | State::Retiring);
        self.rescues.get() == 0 && self.followed.get() == 0 && !(closes && self.listeners.get() > 0)
    }

    /// Waits until no connection waits for this worker in particular.
    pub(crate) async fn nothing_left(&self) {
        self.until(Self::has_nothing_left).await;
    }

    /// Waits until this is not the state any more.
    pub(crate) async fn leaves(&self, state: State) {
        self.until(|gate| gate.state.get() != state).await;
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
}

/// One of what a [`Gate`] counts.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Rc<Gate>,
    count: fn(&Gate) -> &Cell<usize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.count)(&self.gate).update(|places| places - 1);
        self.gate.changed.notify_waiters();
    }
}
