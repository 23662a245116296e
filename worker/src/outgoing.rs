//! A response's body on its way to the client.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf;
use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::answer::panicked;
use crate::in_flight::InFlight;

pin_project! {
    /// A response's body; the request is in flight until it is gone.
    pub(crate) struct Outgoing<B> {
        #[pin]
        body: Option<B>,
        in_flight: InFlight,
    }
}

impl<B> Outgoing<B> {
    pub(crate) fn new(body: Option<B>, in_flight: InFlight) -> Self {
        Self { body, in_flight }
    }
}

impl<B: Body> Body for Outgoing<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = match this.body.as_pin_mut() {
            Some(body) => {
                let frame = catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx)));
                frame.unwrap_or_else(|panic| {
                    // The response has begun: it can only break off.
                    panicked(this.in_flight.requests.serving());
                    resume_unwind(panic)
                })
            }
            None => Poll::Ready(None),
        };
        if let Poll::Ready(frame) = &frame {
            this.in_flight.requests.traffic.speak();
            if let (Some(entry), Some(Ok(frame))) = (&mut this.in_flight.entry, frame)
                && let Some(data) = frame.data_ref()
            {
                entry.sent(data.remaining());
            }
        }
        this.in_flight.offer(matches!(frame, Poll::Ready(Some(_))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
