//! The requests of a connection that the application has begun to work on and
//! not answered. One that it answers at once never comes here.

use std::cell::RefCell;
use std::task::Waker;

use hyper::StatusCode;
use tokio::time::Instant;

use crate::limits::Limits;
use crate::limits::min_rate::Pace;
use crate::transport::http2::bodies::Uploads;

/// What a request's body has to do with its deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// There is none, or it is there as a whole.
    Here,
    /// It ends there in the connection's input.
    At(u64),
    /// It is in chunks: it ends with an empty line, and so does what it holds
    /// now and then.
    Chunked,
    /// It comes on this stream.
    Stream(u32),
}

/// A connection's requests without an answer.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    requests: RefCell<Vec<Option<Request>>>,
}

#[derive(Debug)]
struct Request {
    /// When it was there as a whole, as far as that was seen.
    since: Instant,
    body: BodyEnd,
    /// How its body comes.
    pace: Pace,
    waker: Waker,
    verdict: Option<StatusCode>,
}

/// What a connection's input is like at a look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    /// Bytes that came so far.
    pub(crate) received: u64,
    /// Whether more has come, which nobody reads as long as the application
    /// takes nothing of a body.
    pub(crate) waits: bool,
    /// Whether they end with an empty line.
    pub(crate) ends_empty: bool,
    /// What has come on its streams, if it has any.
    pub(crate) uploads: Option<&'a Uploads>,
}

impl Unanswered {
    /// Notes a request, and whom to wake when its time is over; its key. So many
    /// bytes of the connection have come by now.
    pub(crate) fn begin(
        &self,
        since: Instant,
        body: BodyEnd,
        received: u64,
        waker: &Waker,
    ) -> usize {
        let received = match body {
            BodyEnd::Stream(_) => 0,
            _ => received,
        };
        let request = Some(Request {
            since,
            body,
            pace: Pace::from(since, received),
            waker: waker.clone(),
            verdict: None,
        });
        let mut requests = self.requests.borrow_mut();
        match requests.iter().position(Option::is_none) {
            Some(free) => {
                requests[free] = request;
                free
            }
            None => {
                requests.push(request);
                requests.len() - 1
            }
        }
    }

    /// Looks after a request again; what to answer in the application's place,
    /// if its time is over.
    pub(crate) fn look_after(&self, key: usize, waker: &Waker) -> Option<StatusCode> {
        let mut requests = self.requests.borrow_mut();
        let request = requests[key].as_mut()?;
        request.waker.clone_from(waker);
        request.verdict
    }

    /// A request is answered, or nobody waits for its answer.
    pub(crate) fn end(&self, key: usize) {
        self.requests.borrow_mut()[key] = None;
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.borrow().iter().all(Option::is_none)
    }

    /// Passes judgement on those whose time is over.
    pub(crate) fn judge(&self, now: Instant, limits: &Limits, input: Input<'_>) {
        for request in self.requests.borrow_mut().iter_mut().flatten() {
            if request.verdict.is_none() {
                request.verdict = request.verdict_at(now, limits, input);
                if request.verdict.is_some() {
                    request.waker.wake_by_ref();
                }
            }
        }
    }
}

impl Request {
    fn verdict_at(
        &mut self,
        now: Instant,
        limits: &Limits,
        input: Input<'_>,
    ) -> Option<StatusCode> {
        let mut received = input.received;
        let whole = match self.body {
            BodyEnd::Here => true,
            BodyEnd::At(end) => input.received >= end || input.waits,
            BodyEnd::Chunked => input.ends_empty || input.waits,
            BodyEnd::Stream(stream) => {
                let progress = input.uploads.and_then(|it| it.progress(stream));
                received = progress.map_or(0, |progress| progress.received);
                progress.is_none_or(|progress| progress.ended)
            }
        };
        if whole {
            let late = now >= self.since + limits.request_timeout?;
            return late.then_some(StatusCode::SERVICE_UNAVAILABLE);
        }
        self.since = now;
        let late = self.pace.is_late(now, received, limits.uploading()?);
        late.then_some(StatusCode::REQUEST_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn judged(body: BodyEnd, rate: Option<u64>, looks: &[(u32, u64)]) -> Vec<Option<u16>> {
        let begun = Instant::now();
        let requests = Unanswered::default();
        let key = requests.begin(begun, body, 1, Waker::noop());
        let limits = Limits {
            request_timeout: Some(6 * SECOND),
            body_timeout: Some(2 * SECOND),
            min_rate: rate,
            ..Limits::default()
        };
        let look = |(at, received): &(u32, u64)| {
            let input = Input {
                received: *received,
                waits: *received == 90,
                ends_empty: *received == 100,
                uploads: None,
            };
            requests.judge(begun + *at * SECOND, &limits, input);
            Some(requests.look_after(key, Waker::noop())?.as_u16())
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn an_answer_is_waited_for_from_the_requests_end() {
        let looks = [(5, 7), (6, 8)];
        assert_eq!(judged(BodyEnd::Here, None, &looks), [None, Some(503)]);
        let looks = [(4, 50), (9, 100), (11, 100)];
        for body in [BodyEnd::At(100), BodyEnd::Chunked] {
            let judged = judged(body, None, &looks);
            assert_eq!(judged, [None, None, Some(503)], "{body:?}");
        }
    }

    #[test]
    fn a_body_that_does_not_go_on_is_waited_for_no_longer() {
        for body in [BodyEnd::At(100), BodyEnd::Chunked] {
            let judged = judged(body, None, &[(3, 50), (4, 50), (5, 50)]);
            assert_eq!(judged, [None, None, Some(408)], "{body:?}");
        }
    }

    #[test]
    fn it_is_the_application_that_is_waited_for_where_it_takes_no_more_of_a_body() {
        for body in [BodyEnd::At(100), BodyEnd::Chunked] {
            let judged = judged(body, None, &[(1, 50), (5, 90), (6, 90), (7, 90)]);
            assert_eq!(judged, [None, None, None, Some(503)], "{body:?}");
        }
    }

    #[test]
    fn a_body_that_goes_on_by_a_byte_now_and_then_is_late_as_well() {
        for body in [BodyEnd::At(100), BodyEnd::Chunked] {
            let drips = [(1, 2), (2, 3)];
            assert_eq!(judged(body, Some(10), &drips), [None, Some(408)]);
            assert_eq!(judged(body, None, &drips), [None, None]);
            let goes_on = [(1, 11), (2, 21), (3, 31), (4, 41)];
            assert_eq!(judged(body, Some(10), &goes_on), [None; 4]);
        }
    }
}
