//! A pool behind: its workers, and which of them gets a request. That is the one with
//! the fewest in flight, counted over all processes that forward to the pool, and none
//! gets more than the pool's `concurrency`. Where all are full, requests wait here in
//! the order in which they came.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::connection::Connection;
use super::counts::Counts;
use super::failure::Failure;
use prefork_worker::Timer;
use prefork_worker::front::{CELLS, Counter, Row, Upstream, UpstreamAddress, Upstreams, Vacate};

/// How often a request that waits looks whether another process has left a place: what
/// this one leaves is seen at once.
const LOOK: Duration = Duration::from_millis(2);

/// Tries to take a place that others may take at the same time.
const TRIES: usize = 4;

/// A pool behind.
#[derive(Debug)]
pub(crate) struct Pool {
    name: String,
    /// Requests that a worker gets at a time; 0 for any number.
    concurrency: Cell<u32>,
    members: RefCell<Vec<Rc<Member>>>,
    /// Those that are in no table any more and still have something of ours.
    former: RefCell<Vec<Rc<Member>>>,
    /// The table whose last part has not come.
    coming: RefCell<Vec<Upstream>>,
    counts: Counts,
    /// Where to begin to look, so that equals take turns.
    next: Cell<usize>,
    line: Mutex<()>,
    waiting: Cell<usize>,
    /// A place was left, or there is another table.
    changed: Notify,
}

/// One process of a pool behind.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) slot: u32,
    incarnation: u64,
    pub(super) address: UpstreamAddress,
    place: Option<u32>,
    leaving: Cell<bool>,
    /// Of this process's requests.
    in_flight: Cell<u32>,
    emptied: Notify,
    /// Connections on which nothing is going on, the one used last at the end.
    pub(super) idle: RefCell<Vec<Connection>>,
}

/// How long a request may wait for a place, and among how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) timer: &'static Timer,
    pub(super) until: Instant,
    pub(super) max_queue: usize,
}

impl Pool {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            concurrency: Cell::new(0),
            members: RefCell::default(),
            former: RefCell::default(),
            coming: RefCell::default(),
            counts: Counts::default(),
            next: Cell::new(fastrand::usize(..CELLS as usize)),
            line: Mutex::default(),
            waiting: Cell::new(0),
            changed: Notify::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether each request has a connection of its own: a program that takes one
    /// request at a time may stay with a connection that is silent, and leave others
    /// waiting.
    pub(super) fn is_serial(&self) -> bool {
        self.concurrency.get() == 1
    }

    /// Counts in this row from now on.
    pub(super) fn share(&self, row: Row) {
        self.counts.share(row);
    }

    /// Counts answers there from now on.
    pub(super) fn show_answers(&self, counter: Counter) {
        self.counts.show_answers(counter);
    }

    /// Takes a table, or a part of one.
    pub(super) fn learn(&self, table: Upstreams) {
        self.coming.borrow_mut().extend(table.workers);
        if table.more {
            return;
        }
        let mut before = std::mem::take(&mut *self.members.borrow_mut());
        let mut members = Vec::new();
        for upstream in self.coming.take() {
            match before.iter().position(|it| it.is(&upstream)) {
                Some(known) => members.push(before.swap_remove(known)),
                None => members.extend(Member::new(&upstream).map(Rc::new)),
            }
            if let Some(member) = members.last().filter(|_| upstream.leaving) {
                member.leave();
            }
        }
        before.iter().for_each(|gone| gone.leave());
        let mut former = self.former.borrow_mut();
        former.extend(before);
        former.retain(|member| member.in_flight.get() > 0);
        self.concurrency.set(table.concurrency);
        *self.members.borrow_mut() = members;
        self.changed.notify_waiters();
    }

    /// The process that is to be left alone, if anything is known of it.
    pub(super) fn departing(&self, whom: &Vacate) -> Option<Rc<Member>> {
        let members = self.members.borrow();
        let former = self.former.borrow();
        let is = |it: &&Rc<Member>| (it.slot, it.incarnation) == (whom.slot, whom.incarnation);
        members.iter().chain(former.iter()).find(is).cloned()
    }

    /// A place at the worker that has the fewest, none of `avoided`. Those that wait
    /// already go first.
    ///
    /// # Errors
    /// Too many wait, or it took too long.
    pub(super) async fn place(
        self: &Rc<Self>,
        avoided: &[Rc<Member>],
        patience: Patience,
    ) -> Result<Place, Failure> {
        let is_first = avoided.is_empty();
        if (!is_first || self.waiting.get() == 0)
            && let Some(place) = self.take(avoided)
        {
            return Ok(place);
        }
        let _waiting = match is_first {
            true => Some(Waiting::begin(self, patience.max_queue).ok_or(Failure::QueueFull)?),
            false => None,
        };
        let waited = async {
            // What goes to another worker after a failure has had its turn.
            let _turn = match is_first {
                true => Some(self.line.lock().await),
                false => None,
            };
            loop {
                let mut changed = pin!(self.changed.notified());
                changed.as_mut().enable();
                if let Some(place) = self.take(avoided) {
                    return place;
                }
                tokio::select! {
                    () = changed => {}
                    () = patience.timer.sleep_until(patience.timer.now() + LOOK) => {}
                }
            }
        };
        tokio::select! {
            biased;
            place = waited => Ok(place),
            () = patience.timer.sleep_until(patience.until) => Err(self.why_none()),
        }
    }

    /// Whether any but these is to have requests.
    pub(super) fn has_other(&self, avoided: &[Rc<Member>]) -> bool {
        let members = self.members.borrow();
        let is_avoided = |it: &Rc<Member>| avoided.iter().any(|avoided| Rc::ptr_eq(avoided, it));
        members.iter().any(|it| it.stays() && !is_avoided(it))
    }

    fn why_none(&self) -> Failure {
        match self.members.borrow().iter().any(|it| !it.leaving.get()) {
            true => Failure::QueueTimeout,
            false => Failure::NoWorker,
        }
    }

    /// A place, if there is one now.
    fn take(self: &Rc<Self>, avoided: &[Rc<Member>]) -> Option<Place> {
        for _ in 0..TRIES {
            let member = self.least(avoided)?;
            if self.reserve(&member) {
                return Some(Place {
                    pool: Rc::clone(self),
                    member,
                    answer: Cell::new(None),
                });
            }
        }
        None
    }

    /// The worker that has the fewest, if it can take one more.
    fn least(&self, avoided: &[Rc<Member>]) -> Option<Rc<Member>> {
        let members = self.members.borrow();
        let begin = self.next.get();
        self.next.set(begin.wrapping_add(1));
        let is_open = |it: &&Rc<Member>| {
            !it.leaving.get() && !avoided.iter().any(|avoided| Rc::ptr_eq(avoided, it))
        };
        let begin = begin % members.len().max(1);
        let in_turn = members[begin..].iter().chain(&members[..begin]);
        let loaded = in_turn.filter(is_open).map(|it| (self.load(it), it));
        let (load, least) = loaded.min_by_key(|(load, _)| *load)?;
        (!self.is_full(load)).then(|| Rc::clone(least))
    }

    fn load(&self, member: &Member) -> u32 {
        match member.place {
            Some(place) => self.counts.load(place),
            None => member.in_flight.get(),
        }
    }

    fn is_full(&self, load: u32) -> bool {
        let most = self.concurrency.get();
        most > 0 && load >= most
    }

    /// Counts one more at a worker, unless that is one too many.
    fn reserve(&self, member: &Member) -> bool {
        let with_it = match member.place {
            Some(place) => self.counts.add(place),
            None => member.in_flight.get() + 1,
        };
        if self.is_full(with_it.saturating_sub(1)) {
            if let Some(place) = member.place {
                self.counts.remove(place);
            }
            return false;
        }
        member.in_flight.set(member.in_flight.get() + 1);
        true
    }
}

impl Member {
    /// `None` where its address is none.
    fn new(upstream: &Upstream) -> Option<Self> {
        Some(Self {
            slot: upstream.slot,
            incarnation: upstream.incarnation,
            address: upstream.address.parse().ok()?,
            place: upstream.place.filter(|place| *place < CELLS),
            leaving: Cell::new(false),
            in_flight: Cell::new(0),
            emptied: Notify::new(),
            idle: RefCell::default(),
        })
    }

    fn is(&self, upstream: &Upstream) -> bool {
        (self.slot, self.incarnation) == (upstream.slot, upstream.incarnation)
            && upstream.address.parse().as_ref() == Ok(&self.address)
    }

    /// Gets nothing more from here on.
    pub(super) fn leave(&self) {
        self.leaving.set(true);
        self.idle.take();
    }

    /// Whether a connection to it may be used again.
    pub(super) fn stays(&self) -> bool {
        !self.leaving.get()
    }

    /// Waits until nothing of this process's is in flight there.
    pub(super) async fn emptied(&self) {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.in_flight.get() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// A request's place at a worker, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) pool: Rc<Pool>,
    pub(super) member: Rc<Member>,
    /// What became of the request, until that is counted.
    answer: Cell<Option<Answer>>,
}

/// What became of a request at a worker.
#[derive(Debug, Clone, Copy)]
struct Answer {
    /// It was answered with 5xx, or there is no whole answer.
    failed: bool,
    /// Until its head was there, or it was clear that there is none.
    took: Duration,
}

impl Place {
    /// The worker has answered after so long, or it is known that it won't.
    pub(super) fn answered(&self, failed: bool, took: Duration) {
        self.answer.set(Some(Answer { failed, took }));
    }

    /// What was an answer has broken off.
    pub(super) fn broke_off(&self) {
        let broken = |answer| Answer {
            failed: true,
            ..answer
        };
        self.answer.set(self.answer.take().map(broken));
    }

    /// Counts what became of the request, once.
    pub(super) fn settle(&self) {
        if let (Some(Answer { failed, took }), Some(place)) =
            (self.answer.take(), self.member.place)
        {
            self.pool.counts.answered(place, failed, took);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.settle();
        let member = &self.member;
        if let Some(place) = member.place {
            self.pool.counts.remove(place);
        }
        member.in_flight.set(member.in_flight.get() - 1);
        if member.in_flight.get() == 0 {
            member.emptied.notify_waiters();
        }
        self.pool.changed.notify_waiters();
    }
}

/// A request that waits, among those that do.
struct Waiting<'a>(&'a Pool);

impl<'a> Waiting<'a> {
    fn begin(pool: &'a Pool, most: usize) -> Option<Self> {
        let waiting = pool.waiting.get();
        if waiting >= most {
            return None;
        }
        pool.waiting.set(waiting + 1);
        Some(Self(pool))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

#[cfg(test)]
mod tests;
