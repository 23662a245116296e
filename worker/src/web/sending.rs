//! A file on its way to a client, part by part, and how many of them are open.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use super::content::Source;
use crate::{ahead, sys};

/// The files that are being sent, by when each was opened or its last part read. Beyond
/// a number, the one that has stood for longest gives up its descriptor: clients
/// that take nothing must not use up what others need to connect.
#[derive(Debug)]
pub(super) struct OpenFiles {
    most: usize,
    open: RefCell<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    files: BTreeMap<u64, Arc<Source>>,
}

/// As many are open in any case.
const AT_LEAST: u64 = 16;

impl OpenFiles {
    /// At the most a quarter of what the process may have open.
    pub(super) fn new() -> Rc<Self> {
        let most = (sys::most_descriptors() / 4).max(AT_LEAST);
        Rc::new(Self {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            open: RefCell::default(),
        })
    }

    /// This one was opened, or a part of it read; its place among the others.
    fn used(&self, place: Option<u64>, source: &Arc<Source>) -> Option<u64> {
        let mut open = self.open.borrow_mut();
        open.next += 1;
        let now = open.next;
        let known = place.and_then(|place| open.files.remove(&place));
        let source = known.unwrap_or_else(|| Arc::clone(source));
        open.files.insert(now, source);
        if open.files.len() > self.most
            && let Some((_, longest)) = open.files.pop_first()
        {
            longest.close();
        }
        Some(now)
    }

    fn forget(&self, place: u64) {
        self.open.borrow_mut().files.remove(&place);
    }
}

/// The body of an answer that is a file, or a range of one.
#[derive(Debug)]
pub(super) struct Sending {
    source: Arc<Source>,
    at: u64,
    left: u64,
    /// What a blocking thread reads, from `at`.
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    files: Rc<OpenFiles>,
    place: Option<u64>,
}

impl Sending {
    /// So many bytes of a file, from where it begins.
    pub(super) fn new(source: Arc<Source>, length: u64, files: Rc<OpenFiles>) -> Self {
        // It counts from now on: its tag may have to be made, and its client may want nothing.
        let place = files.used(None, &source);
        Self {
            at: source.begin(),
            source,
            left: length,
            reading: None,
            files,
            place,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        if self.reading.is_none() {
            let part = ahead::part();
            let want = usize::try_from(self.left).map_or(part, |left| left.min(part));
            if let Some(read) = self.source.read_cached(self.at, want) {
                return Poll::Ready(Ok(read));
            }
            let (source, at) = (Arc::clone(&self.source), self.at);
            self.reading = Some(spawn_blocking(move || source.read(at, want)));
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Pending;
        };
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(read.map_err(io::Error::other).flatten())
    }

    /// So many bytes more are on their way.
    fn went_on(&mut self, bytes: u64) {
        self.at += bytes;
        self.left -= bytes;
        if self.left > 0 {
            self.place = self.files.used(self.place, &self.source);
        } else {
            self.source.close();
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.files.forget(place);
        }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let read = ready!(this.poll_read(cx))?;
        if read.is_empty() {
            return Poll::Ready(Some(Err(shortened())));
        }
        this.went_on(read.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(read.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The length was promised in the response's head, so the connection has to
/// break: the client learns that it has not everything.
fn shortened() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file became shorter while it was sent",
    )
}
