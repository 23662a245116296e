//! What the service manager is told, by the protocol of sd_notify(3): ready,
//! reloading, stopping, a line of status, and that the loop still turns.
//!
//! Without `$NOTIFY_SOCKET` all of it does nothing. The socket is never waited
//! for: a service manager that is busy is told again at the next pulse.

mod socket;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use std::{env, fmt};

use prefork_api::Readiness;
use sd_notify::NotifyState;
use socket::{Link, message};
use tracing::warn;

use crate::systemd::fdstore;

/// How long the service manager is asked to wait from each pulse on, while a
/// start, a reload or a drain takes its time. The pool's own deadlines end them.
const EXTENSION_USEC: u32 = 15_000_000;

/// Changes of state that may wait for the service manager.
const UNSENT: usize = 16;

/// The link to the service manager.
#[derive(Debug)]
pub struct Notifier {
    link: Option<Link>,
    /// Changes of state that it could not take yet. What is said again at
    /// every pulse need not be kept.
    unsent: VecDeque<String>,
    /// How often it wants a sign of life, and when it had the last one.
    watchdog: Option<(Duration, Option<Instant>)>,
    phase: Phase,
    status: String,
    last_reload: Option<(bool, Instant)>,
    /// The names of the sockets that it keeps for the next run.
    kept: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Reloading,
    /// A reload has ended, and that is still to be told.
    Reloaded,
    Stopping,
}

/// How things stand with the workers of all pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether the first generation has been ready.
    pub booted: bool,
    /// Whether the supervisor is on its way out.
    pub stopping: bool,
    /// How far the service is ready.
    pub readiness: Readiness,
    /// Workers that accept connections.
    pub ready: u32,
    /// Workers that there should be.
    pub desired: u32,
    /// Workers that finish what they have.
    pub draining: usize,
    /// The generation in force.
    pub generation: u64,
}

impl Notifier {
    /// The service manager that started this process, if one did and listens.
    pub fn from_environment() -> Self {
        let link = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let link = Link::to(&name);
            link.inspect_err(|error| {
                warn!("cannot reach the service manager at $NOTIFY_SOCKET: {error}");
            })
            .ok()
        });
        let watchdog = link.as_ref().and_then(|_| sd_notify::watchdog_enabled());
        Self::new(link, watchdog)
    }

    fn new(link: Option<Link>, watchdog: Option<Duration>) -> Self {
        Self {
            link,
            unsent: VecDeque::new(),
            watchdog: watchdog.map(|every| (every, None)),
            phase: Phase::Starting,
            status: String::new(),
            last_reload: None,
            kept: fdstore::names().into_iter().collect(),
        }
    }

    /// Whether there is a service manager that listens.
    pub(crate) fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// Has it keep a duplicate of each of these, by name, should every process
    /// of the service be killed (`FDSTORE`, sd_pid_notify_with_fds(3)). What it
    /// can't take now is tried again with the next call.
    pub(crate) fn keep<S: AsFd>(&mut self, sockets: &BTreeMap<String, S>) {
        let Some(link) = &self.link else {
            return;
        };
        for (name, socket) in sockets {
            if self.kept.contains(name) {
                continue;
            }
            let text = format!("FDSTORE=1\nFDNAME={name}\n");
            if link.send_with(&text, socket.as_fd()).is_err() {
                return;
            }
            self.kept.insert(name.clone());
        }
    }

    /// Has it let go of what is not among these.
    pub(crate) fn keep_only<S>(&mut self, sockets: &BTreeMap<String, S>) {
        let Some(link) = &self.link else {
            return;
        };
        self.kept.retain(|name| {
            let text = format!("FDSTOREREMOVE=1\nFDNAME={name}\n");
            sockets.contains_key(name) || link.send(&text).is_err()
        });
    }

    /// Whether [`Self::observe`] would tell of a change that must not wait for
    /// the next pulse.
    pub fn is_due(&self, booted: bool, stopping: bool) -> bool {
        self.link.is_some() && self.phase_after(booted, stopping) != self.phase
    }

    /// To be called at every pulse of the loop: tells what has changed, and
    /// that the loop turns.
    pub fn observe(&mut self, now: Instant, standing: &Standing) {
        if self.link.is_none() {
            return;
        }
        self.send_unsent();
        let phase = self.phase_after(standing.booted, standing.stopping);
        let changed = phase != self.phase;
        self.phase = phase;
        let status = self.describe(now, standing);
        let news = match phase {
            Phase::Running if changed => Some(NotifyState::Ready),
            Phase::Stopping if changed => Some(NotifyState::Stopping),
            _ => None,
        };
        if let Some(news) = news {
            // In one message: whoever waits for the news may look at the status next.
            self.announce(&[news, NotifyState::Status(&status)]);
            self.status = status;
        } else if status != self.status && self.say(&[NotifyState::Status(&status)]) {
            self.status = status;
        }
        if self.phase != Phase::Running {
            self.say(&[NotifyState::ExtendTimeoutUsec(EXTENSION_USEC)]);
        }
        self.feed_watchdog(now);
    }

    /// A reload was asked for; [`Self::reloaded`] must follow, whatever comes of it.
    pub fn reloading(&mut self) {
        if self.phase == Phase::Reloaded {
            self.phase = Phase::Running;
            self.announce(&[NotifyState::Ready]);
        }
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Reloading;
        match NotifyState::monotonic_usec_now() {
            Ok(at) => self.announce(&[NotifyState::Reloading, at]),
            Err(error) => warn!("cannot tell the service manager of the reload: {error}"),
        }
    }

    /// The reload has ended, and this is how it went. The service goes on
    /// either way. It is told by [`Self::observe`], which is due then.
    pub fn reloaded(&mut self, now: Instant, ok: bool) {
        self.last_reload = Some((ok, now));
        if self.phase == Phase::Reloading {
            self.phase = Phase::Reloaded;
        }
    }

    fn phase_after(&self, booted: bool, stopping: bool) -> Phase {
        match self.phase {
            _ if stopping => Phase::Stopping,
            Phase::Starting if booted => Phase::Running,
            Phase::Reloaded => Phase::Running,
            phase => phase,
        }
    }

    fn describe(&self, now: Instant, standing: &Standing) -> String {
        let mut text = format!("ready {}/{}", standing.ready, standing.desired);
        if standing.draining > 0 {
            text.push_str(&format!(", {} draining", standing.draining));
        }
        text.push_str(&format!(", generation {}", standing.generation));
        if let Some((ok, at)) = self.last_reload {
            let outcome = if ok { "ok" } else { "failed" };
            let age = Age(now.saturating_duration_since(at));
            text.push_str(&format!(", reload {outcome} {age}"));
        }
        match self.phase {
            Phase::Starting => format!("starting: {text}"),
            Phase::Running | Phase::Reloaded => match standing.readiness {
                Readiness::Ready => text,
                less => format!("{}: {text}", less.as_str()),
            },
            Phase::Reloading => format!("reloading: {text}"),
            Phase::Stopping => format!("stopping: {text}"),
        }
    }

    /// Twice within each interval, as sd_watchdog_enabled(3) advises.
    fn feed_watchdog(&mut self, now: Instant) {
        let Some((every, last)) = self.watchdog else {
            return;
        };
        let fed = last.is_some_and(|last| now.saturating_duration_since(last) < every / 2);
        if !fed && self.say(&[NotifyState::Watchdog]) {
            self.watchdog = Some((every, Some(now)));
        }
    }

    /// Says something now. False when the service manager could not take it.
    fn say(&self, states: &[NotifyState<'_>]) -> bool {
        self.link
            .as_ref()
            .is_some_and(|link| link.send(&message(states)).is_ok())
    }

    /// Says something that must arrive, after what has not been taken yet.
    fn announce(&mut self, states: &[NotifyState<'_>]) {
        if self.link.is_none() {
            return;
        }
        if self.unsent.len() == UNSENT {
            self.unsent.pop_front();
        }
        self.unsent.push_back(message(states));
        self.send_unsent();
    }

    fn send_unsent(&mut self) {
        let Some(link) = &self.link else {
            return;
        };
        while let Some(message) = self.unsent.front() {
            if link.send(message).is_err() {
                return;
            }
            self.unsent.pop_front();
        }
    }
}

/// A time span as coarse as a line of status needs, so that it seldom changes.
struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0..60 => f.write_str("just now"),
            seconds @ 60..3600 => write!(f, "{}m ago", seconds / 60),
            seconds @ 3600..86_400 => write!(f, "{}h ago", seconds / 3600),
            seconds => write!(f, "{}d ago", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const RUNNING: Standing = Standing {
        booted: true,
        stopping: false,
        readiness: Readiness::Ready,
        ready: 8,
        desired: 8,
        draining: 0,
        generation: 17,
    };

    /// A service manager that keeps what it is told.
    struct Manager {
        socket: UnixDatagram,
        _dir: tempfile::TempDir,
    }

    impl Manager {
        fn new(watchdog: Option<Duration>) -> (Self, Notifier) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            let link = Link::to(path.as_os_str()).unwrap();
            (
                Self { socket, _dir: dir },
                Notifier::new(Some(link), watchdog),
            )
        }

        /// Everything said since the last look, line by line.
        fn heard(&self) -> Vec<String> {
            let messages = self.messages();
            let lines = messages.iter().flat_map(|message| message.lines());
            lines.map(str::to_owned).collect()
        }

        /// The same, message by message.
        fn messages(&self) -> Vec<String> {
            let mut messages = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                messages.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
            messages
        }
    }

    #[test]
    fn readiness_is_told_once_and_the_status_when_it_changes() {
        let (manager, mut notifier) = Manager::new(None);
        let now = Instant::now();
        let starting = Standing {
            booted: false,
            readiness: Readiness::NotReady,
            ready: 3,
            ..RUNNING
        };
        notifier.observe(now, &starting);
        assert_eq!(
            manager.heard(),
            [
                "STATUS=starting: ready 3/8, generation 17",
                "EXTEND_TIMEOUT_USEC=15000000"
            ]
        );
        assert!(notifier.is_due(true, false));
        notifier.observe(now, &RUNNING);
        let told = "READY=1\nSTATUS=ready 8/8, generation 17\n";
        assert_eq!(manager.messages(), [told]);
        assert!(!notifier.is_due(true, false));
        notifier.observe(now, &RUNNING);
        assert!(manager.heard().is_empty());
    }

    #[test]
    fn the_status_begins_with_the_word_where_all_is_not_well() {
        let (manager, mut notifier) = Manager::new(None);
        notifier.observe(Instant::now(), &RUNNING);
        manager.heard();
        for (readiness, ready, told) in [
            (Readiness::Degraded, 7, "degraded: ready 7/8, generation 17"),
            (
                Readiness::NotReady,
                0,
                "not ready: ready 0/8, generation 17",
            ),
            (Readiness::Ready, 8, "ready 8/8, generation 17"),
        ] {
            let standing = Standing {
                readiness,
                ready,
                ..RUNNING
            };
            notifier.observe(Instant::now(), &standing);
            assert_eq!(manager.heard(), [format!("STATUS={told}")]);
        }
    }

    #[test]
    fn a_reload_is_told_from_its_beginning_to_its_end_and_shown_with_its_age() {
        let (manager, mut notifier) = Manager::new(None);
        let now = Instant::now();
        notifier.observe(now, &RUNNING);
        manager.heard();
        notifier.reloading();
        let heard = manager.heard();
        assert_eq!(heard[0], "RELOADING=1");
        let at = heard[1].strip_prefix("MONOTONIC_USEC=").unwrap();
        assert!(at.parse::<u64>().unwrap() > 0);
        notifier.observe(now, &RUNNING);
        assert!(
            manager
                .heard()
                .contains(&"EXTEND_TIMEOUT_USEC=15000000".to_owned())
        );
        notifier.reloaded(now, true);
        assert!(manager.heard().is_empty() && notifier.is_due(true, false));
        let draining = Standing {
            draining: 1,
            generation: 18,
            ..RUNNING
        };
        notifier.observe(now + Duration::from_secs(150), &draining);
        // Nobody sees that it has ended and is told that it goes on.
        let told = "READY=1\nSTATUS=ready 8/8, 1 draining, generation 18, reload ok 2m ago\n";
        assert_eq!(manager.messages(), [told]);
        assert!(!notifier.is_due(true, false));
        // One that follows at once does not swallow the end of the first.
        notifier.reloading();
        notifier.reloaded(now, false);
        notifier.reloading();
        let heard = manager.heard();
        let ends = heard.iter().filter(|line| *line == "READY=1").count();
        assert_eq!(
            (ends, heard.last().unwrap().starts_with("MONOTONIC")),
            (1, true)
        );
    }

    #[test]
    fn a_stop_is_told_and_asks_for_time_as_long_as_it_lasts() {
        let (manager, mut notifier) = Manager::new(None);
        let now = Instant::now();
        notifier.observe(now, &RUNNING);
        manager.heard();
        let stopping = Standing {
            stopping: true,
            ready: 0,
            draining: 8,
            ..RUNNING
        };
        assert!(notifier.is_due(true, true));
        notifier.observe(now, &stopping);
        let status = "STATUS=stopping: ready 0/8, 8 draining, generation 17";
        let extension = "EXTEND_TIMEOUT_USEC=15000000";
        assert_eq!(manager.heard(), ["STOPPING=1", status, extension]);
        notifier.observe(now, &stopping);
        assert_eq!(manager.heard(), [extension]);
        notifier.reloading();
        notifier.reloaded(now, true);
        assert!(manager.heard().is_empty(), "a stop is final");
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_each_interval() {
        let every = Duration::from_secs(10);
        let (manager, mut notifier) = Manager::new(Some(every));
        let start = Instant::now();
        let mut fed = 0;
        for second in 0..20 {
            notifier.observe(start + Duration::from_secs(second), &RUNNING);
            let heard = manager.heard();
            fed += heard.iter().filter(|line| *line == "WATCHDOG=1").count();
        }
        assert_eq!(fed, 4);
    }

    #[test]
    fn a_socket_is_left_once_under_its_name_and_taken_back_when_it_goes() {
        let (manager, mut notifier) = Manager::new(None);
        let listener = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sockets = BTreeMap::from([("a".to_owned(), listener())]);
        notifier.keep(&sockets);
        assert_eq!(manager.heard(), ["FDSTORE=1", "FDNAME=a"]);
        sockets.insert("b".to_owned(), listener());
        notifier.keep(&sockets);
        assert_eq!(manager.heard(), ["FDSTORE=1", "FDNAME=b"]);
        sockets.remove("a");
        notifier.keep(&sockets);
        notifier.keep_only(&sockets);
        assert_eq!(manager.heard(), ["FDSTOREREMOVE=1", "FDNAME=a"]);
        notifier.keep_only(&sockets);
        assert!(manager.heard().is_empty());
    }

    #[test]
    fn a_service_manager_that_does_not_read_never_blocks_and_learns_of_readiness_later() {
        let (manager, mut notifier) = Manager::new(Some(Duration::from_millis(1)));
        let start = Instant::now();
        let starting = Standing {
            booted: false,
            ..RUNNING
        };
        // The kernel queues so many datagrams and no more.
        let mut pulses = 0;
        while notifier.say(&[NotifyState::Watchdog]) {
            pulses += 1;
            assert!(pulses < 100_000, "the queue has no end");
        }
        notifier.observe(start, &starting);
        notifier.observe(start, &RUNNING);
        assert!(!manager.heard().contains(&"READY=1".to_owned()));
        notifier.observe(start, &RUNNING);
        let heard = manager.heard();
        let told = ["READY=1", "STATUS=ready 8/8, generation 17", "WATCHDOG=1"];
        assert_eq!(heard, told);
    }
}
