//! The places of a server's connections. While all are taken, a connection that only
//! holds its place goes for one that comes: first those that wait for a request, the one
//! that has waited longest before the others.
//!
//! So nobody keeps an operator or a probe out by connecting often and saying little. Who
//! has sent its request is answered, whoever comes meanwhile.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// How long a connection has its place in any case: who sends its request at once is not
/// sent away by a crowd that comes after it.
const GRACE: Duration = Duration::from_millis(100);

/// Between two looks for a place, while there is none.
const PAUSE: Duration = Duration::from_millis(10);

/// How many connections there may be, and those that there are.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    /// How long an answer may take before its connection may go; `None` for as long as
    /// it takes.
    slow: Option<Duration>,
    taken: RefCell<Vec<Rc<Seat>>>,
    left: Notify,
}

/// One connection's place.
#[derive(Debug)]
struct Seat {
    since: Cell<Instant>,
    /// Answers that are not sent yet.
    answering: Cell<usize>,
    is_gone: Cell<bool>,
    go: Notify,
}

/// A place that is taken; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    seat: Rc<Seat>,
    places: Rc<Places>,
}

impl Places {
    /// So many of them.
    pub(super) fn new(most: usize, slow: Option<Duration>) -> Rc<Self> {
        Rc::new(Self {
            most,
            slow,
            taken: RefCell::default(),
            left: Notify::new(),
        })
    }

    /// Waits until somebody new may be let in.
    pub(super) async fn room(&self) {
        while self.taken.borrow().len() >= self.most {
            if !self.send_one_away() {
                // Whoever is there is too new or being answered.
                tokio::select! {
                    () = self.left.notified() => {}
                    () = sleep(PAUSE) => {}
                }
                continue;
            }
            // Its task has to run to leave.
            tokio::task::yield_now().await;
        }
    }

    /// Takes a place; there has to be room.
    pub(super) fn take(self: &Rc<Self>) -> Place {
        let seat = Rc::new(Seat {
            since: Cell::new(Instant::now()),
            answering: Cell::new(0),
            is_gone: Cell::new(false),
            go: Notify::new(),
        });
        self.taken.borrow_mut().push(Rc::clone(&seat));
        Place {
            seat,
            places: Rc::clone(self),
        }
    }

    /// Tells the one to go that has done nothing for longest; false where nobody can.
    fn send_one_away(&self) -> bool {
        let now = Instant::now();
        let taken = self.taken.borrow();
        if taken.iter().any(|seat| seat.is_gone.get()) {
            return true;
        }
        let can_go = |seat: &&Rc<Seat>| {
            let patience = match seat.answering.get() {
                0 => Some(GRACE),
                _ => self.slow,
            };
            patience.is_some_and(|patience| now - seat.since.get() >= patience)
        };
        let candidates = taken.iter().filter(can_go);
        let victim = candidates.min_by_key(|seat| (seat.answering.get() > 0, seat.since.get()));
        if let Some(seat) = victim {
            seat.is_gone.set(true);
            seat.go.notify_one();
        }
        victim.is_some()
    }
}

impl Place {
    /// Returns when it has to be left for another one.
    pub(super) async fn told_to_go(&self) {
        self.seat.go.notified().await;
    }

    /// Notes that a request has come, until the answer is dropped.
    pub(super) fn answer(&self) -> Answering {
        self.seat.answering.set(self.seat.answering.get() + 1);
        self.seat.since.set(Instant::now());
        Answering(Rc::clone(&self.seat))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.borrow_mut();
        taken.retain(|seat| !Rc::ptr_eq(seat, &self.seat));
        self.places.left.notify_one();
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Answering(Rc<Seat>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.set(self.0.answering.get() - 1);
        self.0.since.set(Instant::now());
    }
}

/// A body that says when it is sent or given up.
#[derive(Debug)]
pub(super) struct Sent<B> {
    pub(super) body: B,
    pub(super) _answering: Answering,
}

impl<B: Body + Unpin> Body for Sent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer to be, with what notes that it is on its way.
pub(super) async fn sent<B, E>(
    answering: Answering,
    answer: impl Future<Output = Result<hyper::Response<B>, E>>,
) -> Result<hyper::Response<Sent<B>>, E> {
    let answer = answer.await?;
    Ok(answer.map(|body| Sent {
        body,
        _answering: answering,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_longest_for_a_request_goes_and_who_is_answered_stays() {
        let places = Places::new(3, None);
        let (first, second, third) = (places.take(), places.take(), places.take());
        let answering = first.answer();
        sleep(GRACE).await;
        // The second has done something meanwhile.
        drop(second.answer());
        let gone = async {
            third.told_to_go().await;
            drop(third);
        };
        tokio::join!(places.room(), gone);
        let fourth = places.take();
        let gone = async {
            second.told_to_go().await;
            drop(second);
        };
        tokio::join!(places.room(), gone);
        let _fifth = places.take();
        drop((answering, first));
        places.room().await;
        drop(fourth);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_goes_where_that_is_allowed() {
        let places = Places::new(1, Some(Duration::from_secs(1)));
        let place = places.take();
        let _answering = place.answer();
        let begun = Instant::now();
        let gone = async {
            place.told_to_go().await;
            drop(place);
        };
        tokio::join!(places.room(), gone);
        assert!(begun.elapsed() >= Duration::from_secs(1));
    }
}
