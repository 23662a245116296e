//! Parts of a response that are a range of a file, which the kernel sends without
//! their passing through this process (sendfile(2)).
//!
//! hyper writes what a body gives it, in the order in which it was given. So a body
//! gives out bytes that *stand in* for those of the file: as many as them, and at an
//! address where nothing else lies. hyper counts and frames them like any others. By
//! that address the stream knows them once it is their turn, and has the kernel send
//! the file in their place. How much is left of a range shows in where its stand-in
//! begins, and is compared at every write: what does not fit ends the connection, so
//! that neither a stand-in nor another file's bytes ever reach a client.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::sys;

/// The longest part, in bytes: what is counted as sent when it is given out.
const MOST: usize = 256 << 10;

/// The kernel is asked at such distances whether it has a range in memory: as far as it
/// usually reads ahead of whoever reads a file.
const LOOK: usize = 128 << 10;

/// What is read at a time so that the kernel has it in memory.
const PIECE: usize = 64 << 10;

/// Whoever can be asked for the descriptor of an open file.
pub(crate) type Lent = Arc<dyn AsFd + Send + Sync>;

/// Where stand-ins lie. Nobody writes or reads it, so it takes addresses and no memory.
static STAND_INS: OnceLock<&'static [u8]> = OnceLock::new();

fn stand_ins() -> &'static [u8] {
    STAND_INS.get_or_init(|| Vec::leak(vec![0; MOST]))
}

/// Whether these bytes stand in for a file's.
#[inline]
pub(crate) fn stands_in(bytes: &[u8]) -> bool {
    STAND_INS
        .get()
        .is_some_and(|all| all.as_ptr_range().contains(&bytes.as_ptr()) && !bytes.is_empty())
}

thread_local! {
    /// Whether the part that is asked for may be a file's.
    static MAY_BE: Cell<bool> = const { Cell::new(false) };
    /// The range that it is.
    static ANNOUNCED: RefCell<Option<FileRange>> = const { RefCell::new(None) };
}

/// Has the next part of a response's body be a range of an open file, which the kernel
/// sends by itself, and gives what stands in for it: at most as many bytes as are asked
/// for. None where that can't be, under TLS and with HTTP/2: then the body reads the
/// file as it otherwise would.
///
/// It is for a body that is asked for its next part, and means something inside its
/// `poll_frame`: what it gives is to be given out at once, whole and as it is. Where
/// something else is given out the response breaks off. `file` is kept until the client
/// has taken the part. If the file has become shorter by then, the connection breaks off.
pub fn file_part<F>(file: Arc<F>, at: u64, length: u64) -> Option<Bytes>
where
    F: AsFd + Send + Sync + 'static,
{
    if length == 0 || !MAY_BE.replace(false) {
        return None;
    }
    let length = usize::try_from(length).map_or(MOST, |length| length.min(MOST));
    ANNOUNCED.set(Some(FileRange {
        file,
        at,
        left: length,
        reading: None,
    }));
    Some(Bytes::from_static(&stand_ins()[MOST - length..]))
}

/// A body is asked for its next part, which may be a file's or not.
#[inline]
pub(crate) fn ask(may_be_file: bool) {
    MAY_BE.set(may_be_file);
}

/// The range that was announced since.
#[inline]
pub(crate) fn announced(could_be_file: bool) -> Option<FileRange> {
    // Who took it has left `false` behind.
    if !could_be_file || MAY_BE.replace(false) {
        return None;
    }
    ANNOUNCED.take()
}

/// A range of a file that is to be sent.
pub(crate) struct FileRange {
    file: Lent,
    at: u64,
    left: usize,
    /// Who has the kernel read it into memory.
    reading: Option<JoinHandle<()>>,
}

impl FileRange {
    /// Whether these bytes stand in for all that is left of it.
    pub(crate) fn has_stand_in(&self, bytes: &impl Buf) -> bool {
        let chunk = bytes.chunk();
        bytes.remaining() == self.left
            && chunk.len() == self.left
            && std::ptr::eq(chunk.as_ptr(), &raw const stand_ins()[MOST - self.left])
    }

    /// Sends more of it; at most what stands in for it. `send` is to send so many
    /// bytes of the file from there.
    ///
    /// # Errors
    /// The bytes stand in for something else, or the file has become shorter; those of `send`.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stand_in: &[u8],
        send: impl FnOnce(&mut Context<'_>, BorrowedFd<'_>, u64, usize) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if !self.has_stand_in(&stand_in) {
            return Poll::Ready(Err(misplaced()));
        }
        ready!(self.poll_memory(cx));
        let sent = ready!(send(cx, self.file.as_fd(), self.at, self.left))?;
        if sent == 0 {
            return Poll::Ready(Err(shortened()));
        }
        self.at += sent as u64;
        self.left -= sent;
        Poll::Ready(Ok(sent))
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.left == 0
    }

    /// Waits until the kernel has it in memory: whoever sends from a disk waits for it,
    /// and with it all other clients.
    fn poll_memory(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(reading) = &mut self.reading {
            // What could not be read can't be sent either, and that tells why.
            let _ = ready!(Pin::new(reading).poll(cx));
            self.reading = None;
            return Poll::Ready(());
        }
        if self.is_in_memory() {
            return Poll::Ready(());
        }
        let (file, at, left) = (Arc::clone(&self.file), self.at, self.left);
        self.reading = Some(spawn_blocking(move || read(&*file, at, left)));
        self.poll_memory(cx)
    }

    fn is_in_memory(&self) -> bool {
        let end = self.at + self.left as u64;
        let mut looks = (self.at..end).step_by(LOOK).chain([end - 1]);
        looks.all(|at| sys::is_in_memory(self.file.as_fd(), at))
    }
}

impl fmt::Debug for FileRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRange")
            .field("at", &self.at)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// Has the kernel read a range of a file into memory.
fn read(file: &(dyn AsFd + Send + Sync), mut at: u64, mut left: usize) {
    let mut piece = vec![0; PIECE.min(left)];
    while left > 0 {
        let want = left.min(piece.len());
        match sys::read_at(file.as_fd(), &mut piece[..want], at) {
            Ok(read @ 1..) => (at, left) = (at + read as u64, left - read),
            Ok(0) | Err(_) => return,
        }
    }
}

/// What is to be written stands in for something else.
pub(crate) fn misplaced() -> io::Error {
    io::Error::other("what stands in for a file is not where its body has given it out")
}

/// The length was promised, so the client has to learn that it has not everything.
fn shortened() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file became shorter while it was sent",
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::task::Waker;

    use super::*;

    fn announce(content: &[u8], at: u64, length: u64) -> (Bytes, FileRange) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        ask(true);
        let stand_in = file_part(Arc::new(file), at, length).unwrap();
        (stand_in, announced(true).unwrap())
    }

    fn send(range: &mut FileRange, stand_in: &[u8], most: usize) -> io::Result<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        let sent = range.poll_send(&mut cx, stand_in, |_, file, at, left| {
            let mut bytes = vec![0; left.min(most)];
            Poll::Ready(sys::read_at(file, &mut bytes, at))
        });
        match sent {
            Poll::Ready(sent) => sent,
            Poll::Pending => panic!("it is in memory"),
        }
    }

    #[test]
    fn nothing_is_announced_where_no_file_can_be_sent() {
        let file = Arc::new(File::open("/dev/null").unwrap());
        assert!(file_part(Arc::clone(&file), 0, 1).is_none(), "nobody asks");
        ask(false);
        assert!(file_part(Arc::clone(&file), 0, 1).is_none());
        ask(true);
        assert!(announced(true).is_none(), "a part of another kind");
        ask(true);
        assert!(file_part(Arc::clone(&file), 0, 1).is_some());
        assert!(file_part(file, 0, 1).is_none(), "one part at a time");
        assert!(announced(true).is_some());
    }

    #[test]
    fn a_range_goes_on_where_its_stand_in_does() {
        let (mut stand_in, mut range) = announce(&[7; 1000], 100, 900);
        assert!(stands_in(&stand_in));
        assert_eq!(send(&mut range, &stand_in, 400).unwrap(), 400);
        stand_in.advance(400);
        assert_eq!(send(&mut range, &stand_in, 400).unwrap(), 400);
        stand_in.advance(400);
        assert_eq!(send(&mut range, &stand_in, 400).unwrap(), 100);
        assert!(range.is_sent());
    }

    #[test]
    fn what_stands_in_for_another_range_sends_nothing() {
        let (long, mut range) = announce(&[7; 1000], 0, 1000);
        let (short, _) = announce(&[8; 1000], 0, 999);
        // Of another range; cut; from its middle; no stand-in at all.
        let own = vec![7; 1000];
        for bytes in [&short[..], &long[..999], &long[1..], &own[..]] {
            assert!(send(&mut range, bytes, 1000).is_err());
        }
        assert_eq!(send(&mut range, &long, 1000).unwrap(), 1000);
        assert!(!stands_in(&own) && !stands_in(&long[1000..]));
    }

    #[test]
    fn the_end_of_a_shorter_file_is_an_error() {
        let (mut stand_in, mut range) = announce(&[7; 10], 0, 20);
        assert_eq!(send(&mut range, &stand_in, 20).unwrap(), 10);
        stand_in.advance(10);
        let error = send(&mut range, &stand_in, 20).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
