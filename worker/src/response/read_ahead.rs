//! How far responses run ahead of what their clients take.
//!
//! What the application has given and no client has taken lies in memory, and a
//! client decides how long. So a response is asked for its next part only as far
//! as it may run ahead: a little at first, more with what its client takes, and
//! less where its connection or the worker holds much already. It never waits
//! for anything but what itself has given, so none stands in another's way.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::limits::min_rate::{Least, Pace};
use crate::process::Serving;
use crate::request::connection_state::Requests;
use crate::runtime::task;
use crate::sys;

/// How far a response may run ahead at first, in any case, and at the most; in bytes.
const FIRST: u64 = 16 << 10;
const LEAST: u64 = 4 << 10;
const MOST: u64 = 256 << 10;

/// What a connection's responses and a worker's are meant to hold, in bytes.
/// They come to hold more only by what each may in any case, and by parts that
/// the application makes larger.
const CONNECTION: u64 = 2 << 20;
const WORKER: u64 = 64 << 20;

/// One response gets such a part of what is left of that.
const CONNECTION_SHARE: u64 = 8;
const WORKER_SHARE: u64 = 64;

/// Parts of no more bytes are not counted: what is kept beside them takes as much.
const SMALL: usize = 1 << 10;

/// Where a worker has held so much, the allocator is asked to give memory back
/// once it holds a fraction of that for a while: it keeps what it had for good otherwise.
const PEAK: u64 = 8 << 20;
const QUIET: u64 = 1 << 20;
const A_WHILE: Duration = Duration::from_secs(3);

thread_local! {
    /// How long the next part is to be, for whoever makes it as it is asked for.
    static PART: Cell<usize> = const { Cell::new(FIRST as usize) };
}

/// How many bytes the next part of a response's body is to have at the most.
///
/// It is for a body that makes its parts as they are asked for, and means something
/// inside its `poll_frame`: a client that takes little is given little, so that what it
/// has not taken does not lie in memory.
///
/// ```
/// use bytes::Bytes;
///
/// fn next_part(rest: &mut Bytes) -> Bytes {
///     rest.split_to(rest.len().min(prefork_worker::part_size()))
/// }
/// # let mut rest = Bytes::from_static(b"text");
/// # assert_eq!(next_part(&mut rest), "text");
/// ```
pub fn part_size() -> usize {
    PART.get()
}

/// What a worker's responses hold.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    held: AtomicU64,
    /// Memory is going to be given back.
    gives_back: AtomicBool,
}

impl Stock {
    fn add(&self, bytes: u64) -> u64 {
        // Only the serving thread counts here.
        let held = self.held.load(Relaxed) + bytes;
        self.held.store(held, Relaxed);
        held
    }

    fn remove(&self, bytes: u64) {
        self.held.store(self.held.load(Relaxed) - bytes, Relaxed);
    }
}

/// Waits until little is held again, and has the memory of what was held go back.
async fn give_back(serving: &'static Serving) {
    let held = &serving.stock.held;
    let mut quiet = false;
    while !quiet {
        quiet = held.load(Relaxed) <= QUIET;
        let then = serving.timer.now() + A_WHILE;
        serving.timer.sleep_until(then).await;
        quiet &= held.load(Relaxed) <= QUIET;
    }
    sys::give_memory_back();
    serving.stock.gives_back.store(false, Relaxed);
}

/// How far a response may run ahead of which so many bytes were taken.
fn allowed(requests: &Requests, taken: u64) -> u64 {
    let left = |most: u64, held: u64, share: u64| most.saturating_sub(held) / share;
    let connection = left(CONNECTION, requests.held.get(), CONNECTION_SHARE);
    let held = requests.serving().stock.held.load(Relaxed);
    let worker = left(WORKER, held, WORKER_SHARE);
    (FIRST + taken)
        .min(MOST)
        .min(connection)
        .min(worker)
        .max(LEAST)
}

/// The first part of a response is asked for.
pub(crate) fn begin(requests: &Requests) {
    PART.set(allowed(requests, 0) as usize);
}

/// A response on its way to its client, from its first part that counts.
#[derive(Debug)]
pub(crate) struct Delivery {
    requests: Rc<Requests>,
    held: Cell<u64>,
    taken: Cell<u64>,
    /// Whom to wake when something was taken.
    waiting: RefCell<Option<Waker>>,
    pace: RefCell<Pace>,
    /// What ends the response's stream, where it has one.
    task: Option<AbortHandle>,
}

/// A connection's responses on their way.
#[derive(Debug, Default)]
pub(crate) struct Deliveries(RefCell<Vec<Weak<Delivery>>>);

impl Delivery {
    /// Begins one, which is looked after as long as it lasts.
    fn begin(requests: &Rc<Requests>) -> Rc<Self> {
        let delivery = Rc::new(Self {
            requests: Rc::clone(requests),
            held: Cell::new(0),
            taken: Cell::new(0),
            waiting: RefCell::new(None),
            pace: RefCell::new(Pace::from(requests.serving().timer.now(), 0)),
            task: requests.task(),
        });
        // Where there are no streams, the connection is judged.
        if delivery.task.is_some() {
            requests.deliveries.add(&delivery);
        }
        delivery
    }

    /// Whether all that was given has been taken.
    pub(crate) fn is_taken(&self) -> bool {
        self.held.get() == 0
    }

    /// Whether the next part has to wait until more was taken; then this task
    /// is woken.
    pub(crate) fn runs_too_far(&self, cx: &Context<'_>) -> bool {
        let (held, allowed) = (self.held.get(), allowed(&self.requests, self.taken.get()));
        if held > 0 && held >= allowed {
            self.wake_when_taken(cx);
            return true;
        }
        PART.set((allowed - held).max(LEAST) as usize);
        false
    }

    /// Has this task woken when something was taken.
    pub(crate) fn wake_when_taken(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        match &mut *waiting {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waiting = Some(cx.waker().clone()),
        }
    }

    fn take(&self, bytes: usize) {
        self.taken.set(self.taken.get() + bytes as u64);
        self.requests.take(bytes);
    }

    fn hold(&self, bytes: u64) {
        self.held.set(self.held.get() + bytes);
        let requests = &self.requests;
        requests.held.set(requests.held.get() + bytes);
        let serving = requests.serving();
        if serving.stock.add(bytes) >= PEAK && !serving.stock.gives_back.swap(true, Relaxed) {
            task::spawn(give_back(serving));
        }
    }

    fn let_go(&self, bytes: u64) {
        self.held.set(self.held.get() - bytes);
        let requests = &self.requests;
        requests.held.set(requests.held.get() - bytes);
        requests.serving().stock.remove(bytes);
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ends its stream if its client takes too little, for which it has to have
    /// something to take.
    fn judge(&self, now: Instant, least: Least, can_be_taken: bool) {
        let mut pace = self.pace.borrow_mut();
        if self.is_taken() || !can_be_taken {
            pace.rest(now, self.taken.get());
        } else if pace.is_late(now, self.taken.get(), least)
            && let Some(task) = &self.task
        {
            task.abort();
        }
    }
}

impl Deliveries {
    fn add(&self, delivery: &Rc<Delivery>) {
        let mut all = self.0.borrow_mut();
        if all.len() == all.capacity() {
            all.retain(|delivery| delivery.strong_count() > 0);
        }
        all.push(Rc::downgrade(delivery));
    }

    /// Ends the streams of those whose clients take less than they have to.
    pub(crate) fn judge(&self, now: Instant, least: Least, can_be_taken: bool) {
        self.0.borrow_mut().retain(|delivery| {
            let Some(delivery) = delivery.upgrade() else {
                return false;
            };
            delivery.judge(now, least, can_be_taken);
            true
        });
    }
}

/// A part of a response; it is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Part<D> {
    data: D,
    /// Nowhere where it is small, and its connection knows what was sent. In a box,
    /// so that such a part is as small as its data and drops as fast.
    taken: Option<Box<Taken>>,
}

/// Where it counts what is taken of a part.
#[derive(Debug)]
enum Taken {
    /// For all streams of its connection.
    Together(Rc<Requests>),
    /// For its response as well.
    Alone(Lease),
}

#[derive(Debug)]
struct Lease {
    delivery: Rc<Delivery>,
    bytes: u64,
}

impl<D: Buf> Part<D> {
    /// A part of a connection's response, which is on its way from its first part
    /// that counts.
    #[inline]
    pub(crate) fn new(
        data: D,
        delivery: &mut Option<Rc<Delivery>>,
        requests: &Rc<Requests>,
        is_http2: bool,
    ) -> Self {
        let taken = match data.remaining() {
            ..=SMALL if !is_http2 => None,
            ..=SMALL => Some(Box::new(Taken::Together(Rc::clone(requests)))),
            bytes => Some(Box::new(Taken::Alone(Lease::of(bytes, delivery, requests)))),
        };
        Self { data, taken }
    }

    #[inline]
    fn count(&self, bytes: usize) {
        match self.taken.as_deref() {
            None => {}
            Some(Taken::Together(requests)) => requests.take(bytes),
            Some(Taken::Alone(lease)) => lease.delivery.take(bytes),
        }
    }
}

impl Lease {
    fn of(bytes: usize, delivery: &mut Option<Rc<Delivery>>, requests: &Rc<Requests>) -> Self {
        let delivery = delivery.get_or_insert_with(|| Delivery::begin(requests));
        let bytes = bytes as u64;
        delivery.hold(bytes);
        Self {
            delivery: Rc::clone(delivery),
            bytes,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.delivery.let_go(self.bytes);
    }
}

impl<D: Buf> Buf for Part<D> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(into)
    }

    fn advance(&mut self, bytes: usize) {
        self.data.advance(bytes);
        self.count(bytes);
    }

    fn copy_to_bytes(&mut self, bytes: usize) -> Bytes {
        let copied = self.data.copy_to_bytes(bytes);
        self.count(bytes);
        copied
    }
}
