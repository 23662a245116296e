//! Takes connections from the listeners, until told not to.

pub(crate) mod accept_state;
pub(crate) mod listener;

use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::timeout;

use crate::accept::accept_state::{Gate, State};
use crate::accept::listener::Listener;
use crate::output::say;
use crate::process::Serving;
use crate::runtime::exclusive_epoll::Arrivals;
use crate::transport::stream::Stream;

/// How long to wait where accepting fails for want of something: the call
/// would fail again at once, for as long as the connection waits in the queue.
const WANT: Duration = Duration::from_millis(50);

/// Connections taken in one go before the others get their turn.
const BATCH: u64 = 16;

/// Begins to serve a connection; the application's part of accepting.
pub(crate) type Serve = Rc<dyn Fn(Stream)>;

/// Where connections come from: a listener, or the workers that hand theirs on.
pub(crate) trait Source: AsFd {
    /// Its name, for people.
    fn name(&self) -> &str;

    /// Takes the connection that has waited longest and sees to it.
    ///
    /// # Errors
    /// WouldBlock where none waits, and what concerns more than one connection.
    fn take(&self, serving: &'static Serving, serve: &Serve) -> io::Result<()>;

    /// Lets nothing new come, while what has begun to come can end.
    fn refuse_handshakes(&self) {}

    /// Somebody who has it as well has shut it down.
    fn was_shut_down(&self, serving: &'static Serving) {
        let _ = serving;
    }

    /// Waits until it is closed once what waits is taken; others see to what comes later.
    fn ended(&self) -> impl Future<Output = ()> {
        std::future::pending()
    }
}

impl Source for Listener {
    fn name(&self) -> &str {
        &self.name
    }

    fn take(&self, serving: &'static Serving, serve: &Serve) -> io::Result<()> {
        loop {
            match self.accept() {
                Ok((socket, origin)) => {
                    let mut stream = Stream::admit(socket, origin, serving, self.tls());
                    stream.expect_proxy_header(self.proxy_protocol);
                    serve(stream);
                    return Ok(());
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn refuse_handshakes(&self) {
        self.refuse_handshakes();
    }
}

/// How long a retiring listener waits for handshakes that had begun before.
const LAST_HANDSHAKES: Duration = Duration::from_millis(200);

/// Takes connections from a source, as the gate says, until there are no
/// more to come.
pub(crate) fn accept<S: Source>(
    source: impl Deref<Target = S>,
    gate: Rc<Gate>,
    serving: &'static Serving,
    serve: Serve,
) -> impl Future<Output = ()> {
    // Before anything is polled, so that it is not taken for closed.
    let place = gate.listener();
    async move {
        loop {
            let state = gate.state();
            let following = (state == State::Open).then(|| gate.follower());
            let mut intake = Intake::new(&*source, serving, &serve);
            let mut has_ended = false;
            tokio::select! {
                // The gate first, so that nothing is taken once it is shut.
                biased;
                () = gate.leaves(state) => {}
                () = source.ended() => has_ended = true,
                () = intake.obey(state) => break,
            }
            if has_ended {
                intake.empty().await;
                break;
            }
            if following.is_some() && intake.is_told {
                intake.take_promised();
            }
        }
        drop(source);
        drop(place);
    }
}

/// Takes all that waits on a listener that nobody else accepts from, closes
/// it, and says how many connections that were.
pub(crate) fn rescue(
    listener: Listener,
    gate: &Rc<Gate>,
    serving: &'static Serving,
    serve: Serve,
) -> impl Future<Output = u64> + use<> {
    let place = gate.rescue();
    async move {
        let mut intake = Intake::new(&listener, serving, &serve);
        intake.empty().await;
        let accepted = intake.accepted;
        drop(listener);
        drop(place);
        accepted
    }
}

/// The way of connections from one source to the application.
struct Intake<'a, S> {
    source: &'a S,
    serving: &'static Serving,
    serve: &'a Serve,
    accepted: u64,
    /// Whether it is told of connections, which may then wait for it alone.
    is_told: bool,
    complained: Option<i32>,
}

impl<'a, S: Source> Intake<'a, S> {
    fn new(source: &'a S, serving: &'static Serving, serve: &'a Serve) -> Self {
        Self {
            source,
            serving,
            serve,
            accepted: 0,
            is_told: false,
            complained: None,
        }
    }

    /// Does as the gate says; returns when the listener is done with.
    async fn obey(&mut self, state: State) {
        match state {
            State::Shut => std::future::pending().await,
            State::Open => self.follow().await,
            State::Sweeping => self.empty().await,
            State::Retiring => {
                self.source.refuse_handshakes();
                // The time ends it: there is always one more connection that may come.
                let _ = timeout(LAST_HANDSHAKES, self.follow()).await;
            }
        }
    }

    /// Takes connections as they come, for as long as it is polled.
    async fn follow(&mut self) {
        loop {
            self.serving.room().await;
            self.is_told = true;
            let attended = self.attend().await;
            self.is_told = false;
            if let Err(error) = attended {
                self.wait_after(&error).await;
            }
        }
    }

    /// Takes one connection at a time, which leaves those that came with it to
    /// the other workers, until there is no room for more or nothing tells of
    /// them any more. One that was told of is taken in any case: nobody else
    /// may have been told.
    async fn attend(&mut self) -> io::Result<()> {
        let arrivals = Arrivals::at(
            self.source.as_fd(),
            &self.serving.epolls,
            self.serving.timer,
        )?;
        loop {
            let arrival = arrivals.next().await?;
            match self.take()? {
                true if !self.serving.has_room() => return Ok(()),
                true => arrival.taken()?,
                // It listens again, and this watch would never believe it.
                false if arrival.is_of_a_closed_one() => {
                    self.source.was_shut_down(self.serving);
                    return Ok(());
                }
                false => arrival.gone(),
            }
        }
    }

    /// Takes what this process alone was told of before it stopped following.
    fn take_promised(&mut self) {
        for _ in 0..BATCH {
            if !matches!(self.take(), Ok(true)) {
                return;
            }
        }
    }

    /// Takes connections until none waits.
    async fn empty(&mut self) {
        loop {
            match self.take() {
                Ok(true) if self.accepted.is_multiple_of(BATCH) => {
                    tokio::task::yield_now().await;
                }
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => self.wait_after(&error).await,
            }
        }
    }

    /// Takes the connection that has waited longest; whether there was one.
    fn take(&mut self) -> io::Result<bool> {
        match self.source.take(self.serving, self.serve) {
            Ok(()) => {
                self.complained = None;
                self.accepted += 1;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says once what is wrong, and gives it time.
    async fn wait_after(&mut self, error: &io::Error) {
        if self.complained != error.raw_os_error() {
            self.complained = error.raw_os_error();
            say(format_args!(
                "cannot accept from {} for now: {error}",
                self.source.name()
            ));
        }
        tokio::time::sleep(WANT).await;
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
