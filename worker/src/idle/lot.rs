//! The parking lot: idle connections, of which each is a descriptor, an entry here and a
//! place in one epoll for all of them. What served them is gone, and is built again when a
//! byte comes. When the worker leaves they are handed on from here.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use prefork_proto::passage::Kept;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::accept::Serve;
use crate::idle::Bare;
use crate::idle::handoff::Handed;
use crate::output::say;
use crate::process::Serving;
use crate::process::drain::Terms;
use crate::runtime::task;
use crate::sys;
use crate::transport::stream::Stream;

/// Connections that wake up or are handed on before the others get their turn.
const BATCH: usize = 64;

/// When so many have come to rest, what was freed with their machinery goes back to the
/// system, a moment after the last: it lies between what is still used, where no allocator
/// returns it by itself.
const MANY: usize = 128;
const MOMENT: Duration = Duration::from_secs(1);

/// How long to wait for room in a passage: others have to take what is in it.
const AGAIN: Duration = Duration::from_millis(1);

/// The process's idle connections.
#[derive(Debug)]
pub(crate) struct Lot {
    epoll: Epoll,
    places: Mutex<Places>,
    /// There is something to do before what was to be done next.
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
    /// What a drain allows, once it has begun here.
    drain: Option<Terms>,
    /// Those that are still to be handed on, and when to try again.
    leaving: VecDeque<RawFd>,
    again: Option<Instant>,
}

#[derive(Debug)]
struct Parked {
    bare: Bare,
    until: Instant,
    /// Why it stays although its worker leaves.
    kept: Option<Kept>,
}

impl Places {
    fn add(&mut self, parked: Parked) {
        let fd = parked.bare.as_fd().as_raw_fd();
        self.ends.insert((parked.until, fd));
        self.parked.insert(fd, parked);
    }

    fn remove(&mut self, fd: RawFd) -> Option<Parked> {
        let parked = self.parked.remove(&fd)?;
        self.ends.remove(&(parked.until, fd));
        Some(parked)
    }

    /// When there is something to be done.
    fn next(&self) -> Option<Instant> {
        let end = self.ends.first().map(|(end, _)| *end);
        let tidy = self.last_came.map(|last| last + MOMENT);
        [end, tidy, self.again].into_iter().flatten().min()
    }
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
        let kept = None;
        self.add(Parked { bare, until, kept }, serving);
    }

    /// Hands a connection on, or has it rest until its time is over: for good where it
    /// can't go, else until there is room for it. Whether there was.
    pub(crate) fn let_go(&self, bare: Bare, until: Instant, serving: &'static Serving) -> bool {
        match serving.handoffs.hand_on(bare) {
            Handed::On => true,
            Handed::Kept(bare, why) => {
                let kept = Some(why);
                self.add(Parked { bare, until, kept }, serving);
                true
            }
            Handed::NotYet(bare) => {
                let fd = bare.as_fd().as_raw_fd();
                self.park(bare, until, serving);
                let mut places = self.places();
                places.leaving.push_back(fd);
                let again = serving.timer.now() + AGAIN;
                if places.again.replace(again).is_none() {
                    self.sooner.notify_one();
                }
                false
            }
        }
    }

    fn add(&self, mut parked: Parked, serving: &'static Serving) {
        let fd = parked.bare.as_fd();
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        let data = u64::try_from(fd.as_raw_fd()).unwrap_or(u64::MAX);
        if let Err(errno) = self.epoll.add(fd, EpollEvent::new(interest, data)) {
            // The kernel has no memory or no place for it (epoll_ctl(2)).
            say(format_args!("an idle connection is closed: {errno}"));
            return close(parked.bare, serving);
        }
        let now = serving.timer.now();
        let mut places = self.places();
        if let Some(terms) = places.drain {
            parked.until = parked.until.min(now + terms.idle_grace);
        }
        let before = places.next();
        places.add(parked);
        places.came += 1;
        if places.came >= MANY {
            places.last_came = Some(now);
        }
        if places.next() < before || before.is_none() {
            self.sooner.notify_one();
        }
    }

    /// Takes a connection out.
    fn take(&self, fd: RawFd) -> Option<Parked> {
        let parked = self.places().remove(fd)?;
        // It is watched: this can't fail.
        let _ = self.epoll.delete(parked.bare.as_fd());
        Some(parked)
    }

    /// Sees to those that rest here, for as long as the process serves.
    pub(crate) async fn attend(&'static self, serving: &'static Serving, serve: Serve) {
        // An error says that the runtime has ended.
        let Ok(awake) = sys::watch_readable(self.epoll.0.as_fd()) else {
            return;
        };
        let mut drains = false;
        loop {
            let next = self.places().next();
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
                    self.begin_to_leave(terms);
                }
            }
            while self.hand_on(serving) {
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Builds up those that have something to read; how many there were.
    fn wake(&self, serving: &'static Serving, serve: &Serve) -> usize {
        let mut events = [EpollEvent::empty(); BATCH];
        let awake = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(awake) => &events[..awake],
            // It is asked again: the readiness stays.
            Err(Errno::EINTR) => return 1,
            Err(_) => return 0,
        };
        for event in awake {
            let fd = RawFd::try_from(event.data()).ok();
            if let Some(parked) = fd.and_then(|fd| self.take(fd)) {
                rouse(parked.bare, serving, serve);
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
            let drains = places.drain.is_some();
            drop(places);
            let Some(parked) = self.take(fd) else { return };
            if parked.bare.has_input() {
                // It is there, and would have been seen in a moment.
                rouse(parked.bare, serving, serve);
                continue;
            }
            if drains {
                serving
                    .handoffs
                    .keeps(parked.kept.unwrap_or(Kept::NoReceiver));
            }
            close(parked.bare, serving);
        }
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

    /// All are to be handed on, and none stays longer than its grace.
    fn begin_to_leave(&self, terms: Terms) {
        let mut places = self.places();
        places.drain = Some(terms);
        places.leaving = places.parked.keys().copied().collect();
        let end = terms.since + terms.idle_grace;
        let late = places.ends.split_off(&(end, RawFd::MIN));
        for (_, fd) in late {
            places.ends.insert((end, fd));
            if let Some(parked) = places.parked.get_mut(&fd) {
                parked.until = end;
            }
        }
    }

    /// Hands some of them on; whether there are more that can go at once.
    fn hand_on(&self, serving: &'static Serving) -> bool {
        for _ in 0..BATCH {
            let mut places = self.places();
            let Some(fd) = places.leaving.pop_front() else {
                places.again = None;
                return false;
            };
            drop(places);
            // One that has woken up goes when it has been answered.
            let Some(parked) = self.take(fd) else {
                continue;
            };
            if !self.let_go(parked.bare, parked.until, serving) {
                return false;
            }
        }
        true
    }
}

/// Has a connection served again.
fn rouse(bare: Bare, serving: &'static Serving, serve: &Serve) {
    match Stream::taken_up(bare, serving) {
        Ok(stream) => serve(stream),
        Err(error) => say(format_args!("an idle connection is closed: {error}")),
    }
}

/// Closes a connection that its client believes to be open.
fn close(bare: Bare, serving: &'static Serving) {
    if let Ok(stream) = Stream::taken_up(bare, serving) {
        task::spawn(stream.close());
    }
}
