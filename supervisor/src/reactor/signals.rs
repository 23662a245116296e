//! Signals, reduced to what they ask for.

use std::io;

use nix::sys::signal::SigSet;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks of the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// TERM or INT: stop; the second time, now.
    Stop,
    /// HUP.
    Reload,
    /// USR1.
    ReopenLogs,
    /// TTIN: one worker more.
    More,
    /// TTOU: one worker fewer.
    Fewer,
    /// USR2.
    Upgrade,
    /// CHLD: some child has ended; it may be a stranger.
    Child,
}

/// The signals that the supervisor listens to.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
    ttin: Signal,
    ttou: Signal,
    child: Signal,
}

impl Signals {
    /// From here on none of them has its default effect.
    pub fn take() -> io::Result<Self> {
        let signals = Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            ttin: signal(SignalKind::from_raw(libc::SIGTTIN))?,
            ttou: signal(SignalKind::from_raw(libc::SIGTTOU))?,
            child: signal(SignalKind::child())?,
        };
        // What came while one program took the other's place comes now.
        Self::all().thread_unblock()?;
        Ok(signals)
    }

    /// All of them, to be kept waiting while one program takes another's place.
    pub(crate) fn all() -> SigSet {
        use nix::sys::signal::Signal::{
            SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2,
        };
        [
            SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGCHLD,
        ]
        .into_iter()
        .collect()
    }

    /// What was asked for already, without waiting for more.
    pub(crate) async fn heard(&mut self) -> Option<Asked> {
        tokio::select! {
            biased;
            asked = self.next() => Some(asked),
            () = std::future::ready(()) => None,
        }
    }

    /// The next thing asked for.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.term.recv() => Asked::Stop,
            _ = self.int.recv() => Asked::Stop,
            _ = self.hup.recv() => Asked::Reload,
            _ = self.usr1.recv() => Asked::ReopenLogs,
            _ = self.usr2.recv() => Asked::Upgrade,
            _ = self.ttin.recv() => Asked::More,
            _ = self.ttou.recv() => Asked::Fewer,
            _ = self.child.recv() => Asked::Child,
        }
    }
}
