//! A file on its way to a client, part by part, and how many of them are open.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::content::Source;
use crate::sys;
use prefork_worker::part_size;

/// The files that are being sent, by when each was opened or its last part read. Beyond
/// a number, the one that has stood for longest gives up its descriptor: clients
/// that take nothing must not use up what others need to connect.
#[derive(Debug)]
pub(super) struct OpenFiles {
    most: usize,
    open: RefCell<Open>,
    /// Who opens a file again holds one until the file counts: a thousand clients
    /// that go on at once must not open a thousand files on the way there.
    turns: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    files: BTreeMap<u64, Arc<Source>>,
}

/// As many are open in any case.
const AT_LEAST: u64 = 16;

/// Files that are opened again at a time.
const OPENED_AGAIN: usize = 8;

/// What a blocking thread reads, and the turn that it took.
type Reading = Pin<Box<dyn Future<Output = io::Result<(Vec<u8>, Option<OwnedSemaphorePermit>)>>>>;

impl OpenFiles {
    /// At the most a quarter of what the process may have open.
    pub(super) fn new() -> Rc<Self> {
        let most = (sys::most_descriptors() / 4).max(AT_LEAST);
        Rc::new(Self {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            open: RefCell::default(),
            turns: Arc::new(Semaphore::new(OPENED_AGAIN)),
        })
    }

    /// Reads a part on a blocking thread, when it is its turn to open the file again
    /// where that is closed.
    fn read(&self, source: &Arc<Source>, at: u64, want: usize) -> Reading {
        let (source, turns) = (Arc::clone(source), Arc::clone(&self.turns));
        Box::pin(async move {
            let turn = match source.is_open() {
                true => None,
                false => turns.acquire_owned().await.ok(),
            };
            let read = spawn_blocking(move || source.read(at, want));
            Ok((read.await.map_err(io::Error::other).flatten()?, turn))
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
pub(crate) struct Sending {
    source: Arc<Source>,
    at: u64,
    left: u64,
    /// What is read from `at`.
    reading: Option<Reading>,
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
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => {
                let part = part_size();
                let want = usize::try_from(self.left).map_or(part, |left| left.min(part));
                if let Some(read) = self.source.read_cached(self.at, want) {
                    self.went_on(read.len());
                    return Poll::Ready(Ok(read));
                }
                self.files.read(&self.source, self.at, want)
            }
        };
        let Poll::Ready(read) = reading.as_mut().poll(cx) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        let (read, turn) = read?;
        self.went_on(read.len());
        drop(turn);
        Poll::Ready(Ok(read))
    }

    /// So many bytes more are on their way.
    fn went_on(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.at += bytes;
        self.left -= bytes;
        if self.left > 0 {
            self.place = self.files.used(self.place, &self.source);
        } else {
            self.source.close();
        }
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("source", &self.source)
            .field("at", &self.at)
            .field("left", &self.left)
            .finish_non_exhaustive()
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
