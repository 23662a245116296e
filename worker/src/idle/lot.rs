//! The parking lot: idle connections, of which each is a descriptor, an entry here and a
//! place in one epoll for all of them. What served them is gone, and is built again when a
//! byte comes.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::accept::Serve;
use crate::idle::Bare;
use crate::idle::handoff::hand_on;
use crate::output::say;
use crate::process::Serving;
use crate::process::drain::Terms;
use crate::sys;
use crate::transport::stream::Stream;

/// Connections that wake up or are handed on before the others get their turn.
const BATCH: usize = 64;

/// When so many have come to rest, what was freed with their machinery goes back to the
/// system, a moment after the last: it lies between what is still used, where no allocator
/// returns it by itself.
const MANY: usize = 128;
const MOMENT: Duration = Duration::from_secs(1);

/// The process's idle connections.
#[derive(Debug)]
pub(crate) struct Lot {
    epoll: Epoll,
    places: Mutex<Places>,
    /// One has come whose time is over before that of all others.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Places {
    /// By descriptor.
    parked: HashMap<RawFd, Parked>,
    /// When the time of each is over.
    ends: BTreeSet<(Instant, RawFd)>,
    /// How many have come since memory was given back, and when the last did.
    came: usize,
    last_came: Option<Instant>,
    /// What a drain allows, once it has gone through those that were here.
    terms: Option<Terms>,
}

#[derive(Debug)]
struct Parked {
    bare: Bare,
    until: Instant,
}

impl Lot {
    /// An empty one.
    ///
    /// # Errors
    /// There is no descriptor for its epoll.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            places: Mutex::default(),
            sooner: Notify::new(),
        })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // A panic while it was held can't have left it half changed.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a connection rest until its time is over.
    pub(crate) fn park(&self, bare: Bare, until: Instant, serving: &'static Serving) {
        let fd = bare.as_fd().as_raw_fd();
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        let data = u64::try_from(fd).unwrap_or(u64::MAX);
        if let Err(errno) = self
            .epoll
            .add(bare.as_fd(), EpollEvent::new(interest, data))
        {
            // The kernel has no memory or no place for it (epoll_ctl(2)).
            say(format_args!("an idle connection is closed: {errno}"));
            return close(bare, serving);
        }
        let mut places = self.places();
        let until = match places.terms {
            Some(terms) => until.min(serving.timer.now() + terms.idle_grace),
            None => until,
        };
        if places.ends.first().is_none_or(|(first, _)| until < *first) {
            self.sooner.notify_one();
        }
        places.ends.insert((until, fd));
        places.parked.insert(fd, Parked { bare, until });
        places.came += 1;
        if places.came >= MANY {
            if places.last_came.is_none() {
                self.sooner.notify_one();
            }
            places.last_came = Some(serving.timer.now());
        }
    }

    /// When there is something to be done here.
    fn next(&self) -> Option<Instant> {
        let places = self.places();
        let end = places.ends.first().map(|(end, _)| *end);
        let tidy = places.last_came.map(|last| last + MOMENT);
        end.into_iter().chain(tidy).min()
    }

    /// Gives memory back, once no more come.
    fn tidy(&self, now: Instant) {
        let mut places = self.places();
        if places.last_came.is_none_or(|last| now < last + MOMENT) {
            return;
        }
        (places.came, places.last_came) = (0, None);
        drop(places);
        sys::give_memory_back();
    }

    /// Takes a connection out.
    fn take(&self, fd: RawFd) -> Option<Bare> {
        let mut places = self.places();
        let Parked { bare, until } = places.parked.remove(&fd)?;
        places.ends.remove(&(until, fd));
        // It is watched: this can't fail.
        let _ = self.epoll.delete(bare.as_fd());
        Some(bare)
    }

    /// Sees to those that rest here, for as long as the process serves.
    pub(crate) async fn attend(&'static self, serving: &'static Serving, serve: Serve) {
        // An error says that the runtime has ended.
        let Ok(awake) = sys::watch_readable(self.epoll.0.as_fd()) else {
            return;
        };
        let mut drains = false;
        loop {
            let next = self.next();
            let over = async {
                match next {
                    Some(next) => serving.timer.sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ready = awake.readable() => {
                    let Ok(mut ready) = ready else { return };
                    if self.wake(serving, &serve) == 0 {
                        ready.clear_ready();
                    }
                }
                () = over => {
                    self.close_late(serving, &serve);
                    self.tidy(serving.timer.now());
                }
                () = self.sooner.notified() => {}
                terms = serving.drain.begun(), if !drains => {
                    drains = true;
                    self.leave(serving, terms).await;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Builds up those that have something to read; how many there were.
    fn wake(&self, serving: &'static Serving, serve: &Serve) -> usize {
        let mut events = [EpollEvent::empty(); BATCH];
        // One that is interrupted is made again: the readiness stays.
        let awake = self.epoll.wait(&mut events, EpollTimeout::ZERO);
        let awake = match awake {
            Ok(awake) => &events[..awake],
            Err(Errno::EINTR) => return 1,
            Err(_) => return 0,
        };
        for event in awake {
            let fd = RawFd::try_from(event.data()).ok();
            if let Some(bare) = fd.and_then(|fd| self.take(fd)) {
                rouse(bare, serving, serve);
            }
        }
        awake.len()
    }

    /// Closes those whose time is over.
    fn close_late(&self, serving: &'static Serving, serve: &Serve) {
        let now = serving.timer.now();
        for _ in 0..BATCH {
            let places = self.places();
            let late = places.ends.first().filter(|(end, _)| *end <= now);
            let Some(&(_, fd)) = late else { return };
            drop(places);
            let Some(bare) = self.take(fd) else { return };
            if bare.has_input() {
                // It is there, and would have been seen in a moment.
                rouse(bare, serving, serve);
            } else {
                close(bare, serving);
            }
        }
    }

    /// Hands on what rests here; what stays has a little time left.
    async fn leave(&self, serving: &'static Serving, terms: Terms) {
        self.places().terms = Some(terms);
        let all: Vec<RawFd> = self.places().parked.keys().copied().collect();
        for (number, fd) in all.into_iter().enumerate() {
            if number % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
            let Some(bare) = self.take(fd) else { continue };
            if let Some(stays) = hand_on(bare, serving).await {
                self.park(stays, terms.since + terms.idle_grace, serving);
            }
        }
    }
}

/// Has a connection served again. One whose client has only closed it needs no service.
fn rouse(bare: Bare, serving: &'static Serving, serve: &Serve) {
    match Stream::taken_up(bare, serving) {
        Ok(stream) => serve(stream),
        Err(error) => {
            say(format_args!("an idle connection is closed: {error}"));
        }
    }
}

/// Closes a connection that its client believes to be open.
fn close(bare: Bare, serving: &'static Serving) {
    if let Ok(stream) = Stream::taken_up(bare, serving) {
        tokio::task::spawn_local(stream.close());
    }
}
