//! The program: started with its socket, watched until it ends.

use std::ffi::{CString, OsString};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use prefork_proto::adapter::{
    Brief, Health, PROGRAM_FD, Piece, Ready, Socket, UpstreamAddress, pieces,
};
use prefork_proto::message::CHANNEL_FD_ENV;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::notify::{Notify, Said};
use super::probe;
use crate::accept::listener::Listener;
use crate::error::StartError;
use crate::output::say;
use crate::sys::{self, Image};

/// The first descriptor that is passed: SD_LISTEN_FDS_START of sd_listen_fds(3).
const FIRST_FD: i32 = 3;

/// A program that is not ready by then is talked of.
const NOTICE: Duration = Duration::from_secs(3);

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Killed(signal) => match Signal::try_from(*signal) {
                Ok(signal) => write!(f, "was ended by {signal}"),
                Err(_) => write!(f, "was ended by signal {signal}"),
            },
        }
    }
}

/// Something that became known of the program.
#[derive(Debug)]
pub(super) enum News {
    Ended(Ended),
    Said(Said),
}

/// The running program.
pub(super) struct Program {
    pid: Pid,
    children: tokio::signal::unix::Signal,
    notify: Notify,
    /// Whether a signal has stopped it.
    stopped: bool,
    /// What it says of itself.
    pub(super) status: String,
    /// The inodes of the listeners that it shares with others.
    shared: Vec<u64>,
}

impl Program {
    /// Starts it with its socket.
    pub(super) fn start(brief: &Brief, listeners: &[Listener]) -> Result<Self, StartError> {
        let children = signal(SignalKind::child())?;
        let notify = Notify::bind(&brief.notify)?;
        let sockets = sockets(brief, listeners)?;
        let shared = match brief.socket {
            Socket::Listeners => sockets
                .iter()
                .map(|(_, fd)| sys::inode(fd))
                .collect::<Result<_, _>>()?,
            _ => Vec::new(),
        };
        let values = Values::of(&brief.socket);
        let argv = brief
            .argv
            .iter()
            .map(|word| Ok(CString::new(values.fill(word))?));
        let argv = argv.collect::<Result<Vec<_>, StartError>>()?;
        let names: Vec<&str> = sockets.iter().map(|(name, _)| &**name).collect();
        let envp = environment(brief, &values, &names)?;
        let path = CString::new(brief.program.as_os_str().as_bytes())?;
        // SAFETY: the supervisor says that it has passed it, and a program is started once.
        #[expect(unsafe_code, reason = "what was passed is known here alone")]
        let pinned = brief.pinned.then(|| unsafe { sys::claim(PROGRAM_FD) });
        let fds: Vec<_> = sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
        let image = Image {
            pinned: pinned.as_ref().map(AsFd::as_fd),
            path: &path,
            argv: &argv,
            envp,
            fds: &fds,
        };
        let pid = sys::spawn_program(image)?;
        Ok(Self {
            pid,
            children,
            notify,
            stopped: false,
            status: String::new(),
            shared,
        })
    }

    /// The next that becomes known. Safe to cancel.
    pub(super) async fn next(&mut self) -> News {
        loop {
            if let Some(ended) = self.reap() {
                return News::Ended(ended);
            }
            tokio::select! {
                _ = self.children.recv() => {}
                said = self.notify.hear() => {
                    if let Some(status) = &said.status {
                        self.status.clone_from(status);
                    }
                    return News::Said(said);
                }
            }
        }
    }

    /// Waits for its end.
    pub(super) async fn end(&mut self) -> Ended {
        loop {
            if let News::Ended(ended) = self.next().await {
                return ended;
            }
        }
    }

    /// Ends it at once.
    pub(super) async fn kill(&mut self) -> Ended {
        self.signal(libc::SIGKILL);
        self.end().await
    }

    /// Reaps whatever has ended below, and tells of the program itself.
    fn reap(&mut self) -> Option<Ended> {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED;
        // ECHILD where nothing is left, StillAlive where nothing has changed.
        while let Ok(status) = waitpid(None, Some(flags)) {
            if status == WaitStatus::StillAlive {
                break;
            }
            if status.pid() != Some(self.pid) {
                continue;
            }
            match status {
                WaitStatus::Exited(_, code) => return Some(Ended::Exited(code)),
                WaitStatus::Signaled(_, signal, _) => return Some(Ended::Killed(signal as i32)),
                WaitStatus::Stopped(..) => self.stopped = true,
                WaitStatus::Continued(_) => self.stopped = false,
                _ => {}
            }
        }
        None
    }

    /// Whether a signal has stopped it.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Sends it a signal. A stopped one goes on, so that it can heed it.
    pub(super) fn signal(&self, number: i32) {
        if let Ok(signal) = Signal::try_from(number) {
            // It is our child and not reaped, so the number is right; ESRCH is impossible.
            let _ = kill(self.pid, signal);
            let _ = kill(self.pid, Signal::SIGCONT);
        }
    }

    /// Waits until it is ready.
    pub(super) async fn become_ready(&mut self, brief: &Brief) -> Result<(), Ended> {
        let boot_timeout = Duration::from_millis(brief.boot_timeout_ms);
        let notice_at = Instant::now() + NOTICE.min(boot_timeout / 2);
        let mut noticed = false;
        let by_word = matches!(brief.ready, Ready::First | Ready::Notify);
        let by_itself = becomes_ready(brief, self.pid, self.shared.clone());
        let mut by_itself = std::pin::pin!(by_itself);
        loop {
            tokio::select! {
                news = self.next() => match news {
                    News::Ended(ended) => return Err(ended),
                    News::Said(said) if said.ready && by_word => return Ok(()),
                    News::Said(_) => {}
                },
                () = &mut by_itself => return Ok(()),
                () = sleep_until(notice_at), if !noticed => {
                    noticed = true;
                    say(format_args!("{}", not_ready(brief)));
                }
            }
        }
    }
}

/// Why it is still waited for.
fn not_ready(brief: &Brief) -> String {
    let place = match brief.socket.address() {
        Some(address) => format!("on {address}"),
        None => "on the pool's listeners".to_owned(),
    };
    let waits_for = match &brief.ready {
        Ready::First => format!("it neither listens {place} nor has said READY=1"),
        Ready::Notify => "it has not said READY=1 to NOTIFY_SOCKET".to_owned(),
        Ready::Listening => format!("it does not listen {place}"),
        Ready::Http(path) => format!("it does not answer GET {path} {place}"),
        Ready::After(millis) => format!("{millis} ms have not passed"),
    };
    format!("the program is not ready yet: {waits_for}")
}

/// Ends when the program is ready by what can be seen of it; never where only its
/// word counts.
async fn becomes_ready(brief: &Brief, pid: Pid, shared: Vec<u64>) {
    const GAP: Duration = Duration::from_millis(10);
    const LONGEST_GAP: Duration = Duration::from_millis(100);
    let mut gap = GAP;
    loop {
        let ready = match (&brief.ready, &brief.socket) {
            (Ready::Notify, _) => return std::future::pending().await,
            (Ready::After(millis), _) => return sleep(Duration::from_millis(*millis)).await,
            (Ready::Http(path), Socket::Bound(address) | Socket::Passed(address)) => {
                let patience = Duration::from_millis(brief.heartbeat_timeout_ms);
                probe::get(address, path, patience).await.is_ok()
            }
            (_, Socket::Bound(address)) => probe::connect(address).await.is_ok(),
            // Its socket listens already: it is to accept, and see that nothing comes.
            (_, Socket::Passed(address)) => probe::accepts(address).await.is_ok(),
            (_, Socket::Listeners) => probe::waits_on(pid, &shared),
        };
        if ready {
            return;
        }
        sleep(gap).await;
        gap = (gap * 2).min(LONGEST_GAP);
    }
}

/// The sockets that it inherits, with their names.
fn sockets(brief: &Brief, listeners: &[Listener]) -> Result<Vec<(String, OwnedFd)>, StartError> {
    match &brief.socket {
        Socket::Bound(_) => Ok(Vec::new()),
        Socket::Passed(UpstreamAddress::Unix(path)) => {
            let listener = UnixListener::bind(path)?;
            admit_front(path)?;
            Ok(vec![("http".to_owned(), listener.into())])
        }
        Socket::Passed(UpstreamAddress::Tcp(address)) => {
            let listener = std::net::TcpListener::bind(address)?;
            Ok(vec![("http".to_owned(), listener.into())])
        }
        Socket::Listeners => listeners
            .iter()
            // LISTEN_FDNAMES is a list with colons between (sd_listen_fds(3)).
            .map(|listener| Ok((listener.name.replace(':', "_"), listener.duplicate()?)))
            .collect(),
    }
}

/// Lets the front's group write to a socket, which connecting takes. The directory
/// lets nobody else as far as here.
pub(super) fn admit_front(path: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
}

/// What the placeholders stand for.
struct Values {
    socket: String,
    host: String,
    port: String,
}

impl Values {
    fn of(socket: &Socket) -> Self {
        let mut values = Self {
            socket: String::new(),
            host: String::new(),
            port: String::new(),
        };
        match socket.address() {
            Some(UpstreamAddress::Unix(path)) => values.socket = path.display().to_string(),
            Some(UpstreamAddress::Tcp(address)) => {
                values.host = address.ip().to_string();
                values.port = address.port().to_string();
            }
            None => {}
        }
        values
    }

    fn fill(&self, word: &str) -> String {
        let piece = |piece| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Placeholder("socket") => self.socket.clone(),
            Piece::Placeholder("host") => self.host.clone(),
            Piece::Placeholder("port") => self.port.clone(),
            Piece::Placeholder("fd") => FIRST_FD.to_string(),
            // The configuration has no others.
            Piece::Placeholder(name) => format!("{{{name}}}"),
        };
        pieces(word).into_iter().map(piece).collect()
    }
}

/// What the adapter inherited, less what is its own, plus what sd_listen_fds(3) and
/// sd_notify(3) want; LISTEN_PID comes last, when it is known.
fn environment(brief: &Brief, values: &Values, names: &[&str]) -> Result<Vec<CString>, StartError> {
    let is_ours = |name: &OsString| {
        name == CHANNEL_FD_ENV
            || name
                .to_str()
                .is_some_and(|name| brief.env.contains_key(name))
    };
    let inherited = std::env::vars_os().filter(|(name, _)| !is_ours(name));
    let mut variables: Vec<Vec<u8>> = inherited
        .map(|(name, value)| [name.as_bytes(), b"=", &value.into_vec()].concat())
        .collect();
    let mut set =
        |name: &str, value: String| variables.push(format!("{name}={value}").into_bytes());
    for (name, value) in &brief.env {
        set(name, values.fill(value));
    }
    set("LISTEN_FDS", names.len().to_string());
    set("LISTEN_FDNAMES", names.join(":"));
    if matches!(brief.ready, Ready::First | Ready::Notify) || brief.health == Health::Notify {
        set("NOTIFY_SOCKET", brief.notify.display().to_string());
    }
    if brief.health == Health::Notify {
        let micros = brief.heartbeat_timeout_ms.saturating_mul(1000);
        set("WATCHDOG_USEC", micros.to_string());
    }
    let words = variables.into_iter().map(|word| Ok(CString::new(word)?));
    words.collect()
}
