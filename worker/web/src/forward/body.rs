//! Bodies on their way through, a part at a time: neither is ever held as a whole, and
//! each asks for its next part when the other end has room for it.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::exchange::Exchange;
use super::failure::Failure;
use prefork_worker::StartError;
use prefork_worker::Timer;

/// How far a request's body has come.
#[derive(Debug)]
pub(super) struct Progress {
    timer: &'static Timer,
    /// When the last of it was given out.
    since: Cell<Instant>,
    failed: Cell<bool>,
}

impl Progress {
    pub(super) fn new(timer: &'static Timer) -> Rc<Self> {
        Rc::new(Self {
            timer,
            since: Cell::new(timer.now()),
            failed: Cell::new(false),
        })
    }

    /// Begins anew: it is sent somewhere else.
    pub(super) fn begin(&self) {
        self.since.set(self.timer.now());
    }

    /// Since when nothing of the request was given out.
    pub(super) fn since(&self) -> Instant {
        self.since.get()
    }

    /// Whether it broke off on the client's side.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get()
    }
}

/// A request's body.
#[derive(Debug)]
pub(super) struct Upload {
    /// None where there is none, or it is sent a second time.
    body: Option<Incoming>,
    progress: Rc<Progress>,
}

impl Upload {
    pub(super) fn new(body: Option<Incoming>, progress: &Rc<Progress>) -> Self {
        Self {
            body,
            progress: Rc::clone(progress),
        }
    }

    /// The body again, of which nothing was given out.
    pub(super) fn into_inner(self) -> Option<Incoming> {
        self.body
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        self.progress.begin();
        if let Some(Err(_)) = &frame {
            self.progress.failed.set(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// The body of a worker's response.
#[derive(Debug)]
pub(crate) struct Forwarded {
    body: Incoming,
    /// None once the worker has said everything.
    exchange: Option<Box<Exchange>>,
}

impl Forwarded {
    pub(super) fn new(body: Incoming, exchange: Box<Exchange>) -> Self {
        let mut forwarded = Self {
            body,
            exchange: Some(exchange),
        };
        forwarded.look_for_end();
        forwarded
    }

    /// Gives the worker's place back as soon as it has said everything, whoever has
    /// heard it by then.
    fn look_for_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(exchange) = self.exchange.take()
        {
            exchange.end();
        }
    }
}

impl Body for Forwarded {
    type Data = Bytes;
    type Error = StartError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StartError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => self.look_for_end(),
            Some(Err(_)) => {
                if let Some(exchange) = self.exchange.take() {
                    exchange.fail(Failure::Cut);
                }
            }
            None => {
                if let Some(exchange) = self.exchange.take() {
                    exchange.end();
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(StartError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
