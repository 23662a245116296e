//! The bodies that come on an HTTP/2 connection's streams: how much of each has
//! come, and what is to be done about one that is too large.
//!
//! hyper shows nothing of a stream's body before it is with the application. So
//! it is measured on its way to hyper (see [`crate::transport::http2::frames`]), by the thread
//! that answers, too; there is a lock since an upgradeable stream has to be `Send`.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use hyper::body::{Body as _, Incoming};
use hyper::{Request, StatusCode};

use crate::limits::Limits;
use crate::transport::http2::frames::take_mark;

/// As many bodies are remembered of requests that were answered early.
const MOST_LEFT: usize = 256;

/// As many are remembered of requests that the application has not seen yet, or
/// twice as many as there may be streams; of more than those, the first. hyper's
/// library reads all that has come before it gives the first of them out, and
/// refuses what a client opens beyond what it may.
const MOST_OPENED: usize = 1024;

/// What a client has asked for before it says so (RFC 9113, 6.9.2).
const FIRST_WINDOW: u64 = 65_535;

/// A connection's bodies.
#[derive(Debug)]
pub(crate) struct Uploads {
    /// What tells the connection's marks from what its client writes.
    number: u64,
    /// Bytes that a body may have.
    most: u64,
    /// Bytes that a client may send before the application has read any.
    window: u64,
    /// Bodies that there may be of requests which nobody has seen.
    most_opened: usize,
    /// The stream whose head has begun to come and has not ended, or 0.
    opening: AtomicU32,
    /// Bytes that the client has asked for, of all streams together.
    granted: AtomicU64,
    /// By their streams, which only grow.
    bodies: Mutex<Vec<Body>>,
    /// Whether the client may be owed a 100 (Continue), and whom to wake to write it.
    owes: AtomicBool,
    writer: OnceLock<Waker>,
}

#[derive(Debug)]
struct Body {
    stream: u32,
    received: u64,
    ended: bool,
    stage: Stage,
    interim: Interim,
}

/// What becomes of the 100 (Continue) that a client may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interim {
    /// It is not owed.
    None,
    /// It is to be written.
    Owed,
    /// It can't be sent: the stream was reset.
    Never,
}

/// How far the request is that a body belongs to.
#[derive(Debug)]
enum Stage {
    /// It has not been seen yet.
    Opened,
    /// It is not answered; whom to wake when its body is too large.
    Unanswered(Option<Waker>),
    /// Its response has begun.
    Answered,
    /// Its response is over, and so much of its body had come by then.
    Left { at: u64 },
}

/// What there is of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes, with what pads them.
    pub(crate) received: u64,
    /// Whether that is all.
    pub(crate) ended: bool,
}

/// What to do with a part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// To let it pass.
    Pass,
    /// To end its stream first, which is there: its limit can't be held
    /// otherwise.
    Cut,
}

impl Uploads {
    pub(crate) fn under(limits: &Limits) -> Self {
        Self {
            number: RandomState::new().hash_one(()),
            most: limits.max_body_size.unwrap_or(u64::MAX),
            window: limits.http2_stream_window.into(),
            most_opened: MOST_OPENED.max(limits.http2_max_streams as usize * 2),
            opening: AtomicU32::new(0),
            granted: AtomicU64::new(FIRST_WINDOW),
            bodies: Mutex::default(),
            owes: AtomicBool::new(false),
            writer: OnceLock::new(),
        }
    }

    /// What the connection's marks are made with.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The stream of a request's body, if there is one to come, from the mark
    /// that is taken away here.
    ///
    /// # Errors
    /// The mark is not there: the client's last field had no end.
    pub(crate) fn take(&self, request: &mut Request<Incoming>) -> Result<Option<u32>, StatusCode> {
        let stream = take_mark(request.headers_mut(), self.number);
        match stream {
            // It is there as a whole, or it is a tunnel.
            _ if request.body().is_end_stream() => {
                stream.into_iter().for_each(|stream| self.forget(stream));
                Ok(None)
            }
            Some(stream) if self.claim(stream) => Ok(Some(stream)),
            _ => Err(StatusCode::BAD_REQUEST),
        }
    }

    fn forget(&self, stream: u32) {
        self.bodies().retain(|body| body.stream != stream);
    }

    fn bodies(&self) -> MutexGuard<'_, Vec<Body>> {
        // Nothing that is done under the lock leaves it half done.
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that the client has asked for so far, of all streams together.
    pub(crate) fn granted(&self) -> u64 {
        self.granted.load(Relaxed)
    }

    /// The client asks for so many more.
    pub(crate) fn grant(&self, bytes: u32) {
        let granted = self.granted().saturating_add(bytes.into());
        self.granted.store(granted, Relaxed);
    }

    /// The stream whose head has begun to come and has not ended.
    pub(crate) fn opening(&self) -> Option<u32> {
        Some(self.opening.load(Relaxed)).filter(|stream| *stream > 0)
    }

    /// The head of this stream has begun to come; of none, if it is 0.
    pub(crate) fn set_opening(&self, stream: u32) {
        self.opening.store(stream, Relaxed);
    }

    /// A stream begins, and its body is to come.
    pub(crate) fn open(&self, stream: u32) {
        let mut bodies = self.bodies();
        let left = |body: &Body| matches!(body.stage, Stage::Left { .. });
        let opened = |body: &Body| matches!(body.stage, Stage::Opened);
        let many = |kind: &dyn Fn(&Body) -> bool, most| {
            bodies.len() >= most && bodies.iter().filter(|body| kind(body)).count() >= most
        };
        if many(&opened, self.most_opened) {
            return;
        }
        if many(&left, MOST_LEFT)
            && let Some(oldest) = bodies.iter().position(left)
        {
            bodies.remove(oldest);
        }
        bodies.push(Body {
            stream,
            received: 0,
            ended: false,
            stage: Stage::Opened,
            interim: Interim::None,
        });
    }

    /// So many bytes of a body come.
    pub(crate) fn receive(&self, stream: u32, bytes: u64) -> Part {
        let mut bodies = self.bodies();
        let Some(at) = find(&bodies, stream) else {
            return Part::Pass;
        };
        let body = &mut bodies[at];
        body.received += bytes;
        body.interim = Interim::None;
        if body.received <= self.most {
            return Part::Pass;
        }
        match &mut body.stage {
            Stage::Opened => return Part::Pass,
            Stage::Unanswered(waker) => {
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
                return Part::Pass;
            }
            // Somebody still reads it, or its client would have no room for so
            // much: only then is the stream certain to be there.
            Stage::Left { at } if body.received <= *at + self.window => return Part::Pass,
            Stage::Left { .. } | Stage::Answered => {}
        }
        bodies.remove(at);
        Part::Cut
    }

    /// A body is there as a whole.
    pub(crate) fn end(&self, stream: u32) {
        let mut bodies = self.bodies();
        if let Some(at) = find(&bodies, stream) {
            match bodies[at].stage {
                Stage::Left { .. } => drop(bodies.remove(at)),
                _ => bodies[at].ended = true,
            }
        }
    }

    /// The request is there that a body belongs to; whether it is one that
    /// nothing was known of yet. Requests come in the order of their streams, so
    /// that those before will not come any more.
    fn claim(&self, stream: u32) -> bool {
        let mut bodies = self.bodies();
        let opened = |body: &Body| matches!(body.stage, Stage::Opened);
        match find(&bodies, stream) {
            Some(at) if opened(&bodies[at]) => bodies[at].stage = Stage::Unanswered(None),
            _ => return false,
        }
        bodies.retain(|body| body.stream > stream || !opened(body));
        true
    }

    /// Whether the body of a request without an answer is too large; if it is
    /// not, `waker` is woken as soon as it is.
    pub(crate) fn is_over(&self, stream: u32, waker: &Waker) -> bool {
        let mut bodies = self.bodies();
        let Some(at) = find(&bodies, stream) else {
            return false;
        };
        let body = &mut bodies[at];
        if body.received > self.most {
            return true;
        }
        if let Stage::Unanswered(woken) = &mut body.stage
            && !body.ended
        {
            match woken {
                Some(woken) => woken.clone_from(waker),
                None => *woken = Some(waker.clone()),
            }
        }
        false
    }

    /// The response to a request has begun.
    pub(crate) fn answered(&self, stream: u32) {
        let mut bodies = self.bodies();
        if let Some(at) = find(&bodies, stream) {
            bodies[at].stage = Stage::Answered;
        }
    }

    /// This task writes what the connection's client is owed.
    pub(crate) fn written_by(&self, task: Waker) {
        // A connection is served by one task from its beginning to its end.
        let _ = self.writer.set(task);
    }

    /// A stream with a body begins, whose request is there at once.
    #[cfg(test)]
    pub(crate) fn begin(&self, stream: u32) {
        self.open(stream);
        assert!(self.claim(stream));
    }

    /// The client waits for a 100 (Continue) before it sends this body, and is to
    /// have one, unless some of the body or its end is there without it.
    pub(crate) fn owe_continue(&self, stream: u32) {
        let mut bodies = self.bodies();
        let Some(at) = find(&bodies, stream) else {
            return;
        };
        let body = &mut bodies[at];
        if body.received > 0 || body.ended || body.interim != Interim::None {
            return;
        }
        body.interim = Interim::Owed;
        self.owes.store(true, Relaxed);
        if let Some(writer) = self.writer.get() {
            writer.wake_by_ref();
        }
    }

    /// Whether a client may be owed a 100 (Continue).
    pub(crate) fn owes_continue(&self) -> bool {
        self.owes.load(Relaxed)
    }

    /// The next stream on which a 100 (Continue) is owed, which is to be written
    /// now. None is owed any more once the response has begun.
    pub(crate) fn take_owed(&self) -> Option<u32> {
        let mut bodies = self.bodies();
        let owed = bodies.iter_mut().find(|body| {
            body.interim == Interim::Owed
                && !body.ended
                && matches!(body.stage, Stage::Unanswered(_))
        });
        self.owes.store(owed.is_some(), Relaxed);
        let body = owed?;
        body.interim = Interim::None;
        Some(body.stream)
    }

    /// The server has reset this stream: nothing may be sent on it any more.
    pub(crate) fn reset(&self, stream: u32) {
        let mut bodies = self.bodies();
        if let Some(at) = find(&bodies, stream) {
            bodies[at].interim = Interim::Never;
        }
    }

    /// A request is over.
    pub(crate) fn leave(&self, stream: u32) {
        let mut bodies = self.bodies();
        if let Some(at) = find(&bodies, stream) {
            let body = &mut bodies[at];
            if body.ended || self.most == u64::MAX {
                bodies.remove(at);
            } else {
                body.stage = Stage::Left { at: body.received };
            }
        }
    }

    /// What there is of a body, if it is known.
    pub(crate) fn progress(&self, stream: u32) -> Option<Progress> {
        let bodies = self.bodies();
        let body = &bodies[find(&bodies, stream)?];
        Some(Progress {
            received: body.received,
            ended: body.ended,
        })
    }
}

fn find(bodies: &[Body], stream: u32) -> Option<usize> {
    bodies
        .binary_search_by_key(&stream, |body| body.stream)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::test_waker::Task;

    fn uploads(most: u64) -> Uploads {
        Uploads::under(&Limits {
            max_body_size: Some(most),
            http2_stream_window: 100,
            ..Limits::default()
        })
    }

    #[test]
    fn whoever_waits_for_a_body_is_told_that_it_is_too_large() {
        let uploads = uploads(10);
        uploads.open(1);
        assert!(uploads.claim(1));
        let (task, waker) = Task::with_waker();
        assert_eq!(uploads.receive(1, 10), Part::Pass);
        assert!(!uploads.is_over(1, &waker) && !task.was_woken());
        assert_eq!(uploads.receive(1, 1), Part::Pass);
        assert!(task.was_woken() && uploads.is_over(1, &waker));
        // Also where it all came before the request did.
        uploads.open(3);
        uploads.receive(3, 11);
        assert!(uploads.claim(3) && uploads.is_over(3, &waker));
    }

    #[test]
    fn a_stream_is_cut_where_it_is_answered_and_where_somebody_still_reads_it() {
        let uploads = uploads(10);
        for stream in [1, 3] {
            uploads.open(stream);
            assert!(uploads.claim(stream));
            assert_eq!(uploads.receive(stream, 10), Part::Pass);
            uploads.answered(stream);
        }
        assert_eq!(uploads.receive(1, 1), Part::Cut);
        assert_eq!(uploads.receive(1, 1), Part::Pass, "once");
        uploads.leave(3);
        assert_eq!(uploads.receive(3, 100), Part::Pass, "what was on its way");
        assert_eq!(uploads.receive(3, 1), Part::Cut);
        assert_eq!(uploads.progress(3), None);
    }

    #[test]
    fn a_body_is_one_requests_and_those_that_never_came_are_forgotten() {
        let uploads = uploads(10);
        for stream in [1, 3, 5] {
            uploads.open(stream);
        }
        assert!(uploads.claim(3) && !uploads.claim(3) && !uploads.claim(7));
        assert_eq!(uploads.progress(1), None);
        assert!(uploads.claim(5));
        uploads.end(5);
        let whole = Progress {
            received: 0,
            ended: true,
        };
        assert_eq!(uploads.progress(5), Some(whole));
        uploads.leave(5);
        uploads.leave(3);
        uploads.end(3);
        for stream in (7..10_007).step_by(2) {
            uploads.open(stream);
            if stream % 4 == 1 {
                assert!(uploads.claim(stream));
                uploads.leave(stream);
            }
        }
        assert!((100..=MOST_LEFT).contains(&uploads.bodies().len()));
    }

    #[test]
    fn a_client_is_owed_a_continue_until_its_body_comes_or_its_answer_does() {
        let uploads = uploads(10);
        let (task, waker) = Task::with_waker();
        uploads.written_by(waker);
        for stream in [1, 3, 5, 7, 9, 11] {
            uploads.open(stream);
        }
        // A stream may be reset before anybody sees its request.
        uploads.reset(1);
        for stream in [1, 3, 5, 7, 9, 11] {
            assert!(uploads.claim(stream));
        }
        uploads.receive(3, 1);
        uploads.end(5);
        for stream in [1, 3, 5] {
            uploads.owe_continue(stream);
        }
        assert!(!task.was_woken() && !uploads.owes_continue());
        for stream in [7, 9, 11] {
            uploads.owe_continue(stream);
        }
        assert!(task.was_woken() && uploads.owes_continue());
        uploads.answered(7);
        uploads.leave(9);
        assert_eq!(uploads.take_owed(), Some(11));
        assert_eq!(uploads.take_owed(), None);
        assert!(!uploads.owes_continue());
    }
}
