//! A response's body on its way to the client.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Buf;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::request::in_flight::InFlight;
use crate::response::panicked;
use crate::response::read_ahead::{self, Delivery, Part};

pin_project! {
    /// A response's body; the request is in flight until it is gone.
    pub(crate) struct Outgoing<B> {
        #[pin]
        body: Option<B>,
        in_flight: InFlight,
        delivery: Option<Rc<Delivery>>,
        // What ends it, once all else is taken.
        trailers: Option<Box<HeaderMap>>,
    }
}

impl<B> Outgoing<B> {
    pub(crate) fn new(body: Option<B>, in_flight: InFlight) -> Self {
        Self {
            body,
            in_flight,
            delivery: None,
            trailers: None,
        }
    }
}

impl<B: Body> Outgoing<B> {
    /// Whether its end has to wait for what was given. hyper lets go of a stream
    /// of HTTP/2 as soon as it has the end, and then there is nothing any more to
    /// end it by if its client does not take the rest.
    fn keeps_its_end(&self) -> bool {
        let delivery = self.delivery.as_ref();
        self.in_flight.is_http2 && delivery.is_some_and(|it| !it.is_taken())
    }
}

type Given<B> = Option<Result<Frame<Part<<B as Body>::Data>>, <B as Body>::Error>>;

impl<B: Body> Body for Outgoing<B> {
    type Data = Part<B::Data>;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Given<B>> {
        let waits = match &self.delivery {
            None => {
                read_ahead::begin(&self.in_flight.requests);
                false
            }
            // Its end is there, and kept back.
            Some(delivery) if self.body.is_none() && !delivery.is_taken() => {
                delivery.wake_when_taken(cx);
                true
            }
            Some(delivery) => delivery.runs_too_far(cx),
        };
        if waits {
            self.project().in_flight.offer(true);
            return Poll::Pending;
        }
        let this = self.as_mut().project();
        let frame = match this.body.as_pin_mut() {
            Some(body) => {
                let frame = catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx)));
                frame.unwrap_or_else(|panic| {
                    // The response has begun: it can only break off.
                    panicked(this.in_flight.requests.serving());
                    resume_unwind(panic)
                })
            }
            None => Poll::Ready(this.trailers.take().map(|it| Ok(Frame::trailers(*it)))),
        };
        if let Poll::Ready(frame) = &frame {
            this.in_flight.requests.traffic.speak();
            if this.in_flight.is_watched()
                && let Some(Ok(frame)) = frame
                && let Some(data) = frame.data_ref()
            {
                this.in_flight.sent(data.remaining());
            }
        }
        this.in_flight.offer(matches!(frame, Poll::Ready(Some(_))));
        match frame {
            Poll::Ready(Some(Ok(frame))) => self.give(frame, cx),
            Poll::Ready(None) if self.body.is_some() && self.keeps_its_end() => {
                self.as_mut().project().body.set(None);
                self.poll_frame(cx)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.trailers.is_none()
            && self.body.as_ref().is_none_or(Body::is_end_stream)
            && !self.keeps_its_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: Body> Outgoing<B> {
    /// Gives a frame of the application's out, or keeps it back if it is the end.
    #[inline(always)]
    fn give(
        mut self: Pin<&mut Self>,
        frame: Frame<B::Data>,
        cx: &mut Context<'_>,
    ) -> Poll<Given<B>> {
        if frame.is_trailers() && self.body.is_some() && self.keeps_its_end() {
            let mut this = self.as_mut().project();
            *this.trailers = frame.into_trailers().ok().map(Box::new);
            this.body.set(None);
            return self.poll_frame(cx);
        }
        let this = self.project();
        let (delivery, in_flight) = (this.delivery, this.in_flight);
        let (requests, is_http2) = (&in_flight.requests, in_flight.is_http2);
        let part = frame.map_data(|data| Part::new(data, delivery, requests, is_http2));
        Poll::Ready(Some(Ok(part)))
    }
}
