//! Signals, reduced to what they ask for.
//!
//! Only what a process sends on purpose is an order. What the kernel sends for a
//! terminal is job control (SIGTTOU to all of a group of which one has written, SIGHUP when
//! the terminal has gone) and asks for nothing; Ctrl-C alone is meant.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getsid};
use tokio::io::unix::AsyncFd;

use crate::kernel::sys::signals::{self, Caught};

/// What a signal asks of the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// TERM or INT: stop; the second time, now.
    Stop,
    /// HUP.
    Reload,
    /// Nothing: HUP says that the terminal is gone.
    GoOnAlone,
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

/// A signal that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) asked: Asked,
    pub(crate) caught: Caught,
}

impl std::fmt::Display for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.caught.signal)?;
        match self.caught.sender {
            Some(pid) => write!(f, " from process {pid}"),
            None => f.write_str(" from the terminal"),
        }
    }
}

/// All of them; who asks for more than one thing at once gets the first of these.
const ALL: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCHLD,
];

/// How long a shell that hangs up on its jobs may take to be gone.
const HANGING_UP: Duration = Duration::from_millis(300);

/// The signals that the supervisor listens to.
#[derive(Debug)]
pub struct Signals {
    woken: AsyncFd<OwnedFd>,
    /// Whether it was started from a terminal.
    had_terminal: bool,
    /// A SIGHUP of the shell that it was started from, which may be about to go;
    /// and when that shows.
    doubtful: Option<(Caught, Instant)>,
}

impl Signals {
    /// From here on none of them has its default effect. A SIGHUP that whoever
    /// started it has ignored (nohup(1)) stays ignored.
    pub fn take() -> io::Result<Self> {
        let wanted = ALL
            .into_iter()
            .filter(|signal| *signal != Signal::SIGHUP || !signals::is_ignored(*signal));
        let taken = Self {
            woken: signals::listen(wanted)?,
            had_terminal: has_terminal(),
            doubtful: None,
        };
        // What came while one program took the other's place comes now.
        Self::all().thread_unblock()?;
        Ok(taken)
    }

    /// Whether SIGHUP is ignored, and no reload can be asked for by it.
    pub(crate) fn ignores_reload() -> bool {
        signals::is_ignored(Signal::SIGHUP)
    }

    /// All of them, to be kept waiting while one program takes another's place.
    pub(crate) fn all() -> SigSet {
        ALL.into_iter().collect()
    }

    /// What was asked for already, without waiting for more.
    pub(crate) fn heard(&mut self) -> Option<Heard> {
        ALL.into_iter()
            .filter_map(signals::take)
            .find_map(|caught| self.judge(caught))
    }

    /// The next thing asked for.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.heard() {
                return heard;
            }
            let decided = self.doubtful.map(|(_, decided)| decided);
            tokio::select! {
                () = signals::woken(&self.woken) => {}
                () = crate::reactor::worker_process::task::at(decided) => {
                    if let Some((caught, _)) = self.doubtful.take() {
                        let asked = match has_terminal() {
                            true => Asked::Reload,
                            false => Asked::GoOnAlone,
                        };
                        return Heard { asked, caught };
                    }
                }
            }
        }
    }

    fn judge(&mut self, caught: Caught) -> Option<Heard> {
        let is_order = caught.sender.is_some();
        let asked = match caught.signal {
            Signal::SIGTERM | Signal::SIGINT => Asked::Stop,
            Signal::SIGHUP if !is_order => Asked::GoOnAlone,
            Signal::SIGHUP if self.is_doubtful(caught) => {
                self.doubtful = Some((caught, Instant::now() + HANGING_UP));
                return None;
            }
            Signal::SIGHUP => Asked::Reload,
            Signal::SIGUSR1 => Asked::ReopenLogs,
            Signal::SIGUSR2 => Asked::Upgrade,
            Signal::SIGTTIN if is_order => Asked::More,
            Signal::SIGTTOU if is_order => Asked::Fewer,
            Signal::SIGCHLD => Asked::Child,
            _ => return None,
        };
        Some(Heard { asked, caught })
    }

    /// Whether a SIGHUP may be a shell's that passes on what its terminal's end was
    /// to itself.
    fn is_doubtful(&self, caught: Caught) -> bool {
        self.had_terminal && caught.sender == getsid(None).ok().map(Pid::as_raw)
    }
}

/// Whether this process has a controlling terminal that is still there.
fn has_terminal() -> bool {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let terminal = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open("/dev/tty");
    terminal.is_ok()
}
