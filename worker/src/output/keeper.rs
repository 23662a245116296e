//! The thread that makes room in the output pipes while no supervisor reads them.
//!
//! What is printed between two supervisors stays in the pipes, and the next one
//! logs it. A pipe that is full would make `println!` wait, on the serving thread
//! and maybe before that has noticed that the supervisor is gone; so this is a
//! thread of its own, which sleeps for as long as a supervisor is there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::fstat;
use nix::unistd::read;
use prefork_proto::message::OutputStream;

use super::events;

/// How often to look whether a pipe is full, in milliseconds, while nobody reads.
const LOOK_MS: u16 = 10;

/// What a pipe is made to hold before anything of it is dropped. More needs a
/// right (`pipe-max-size`, pipe(7)); where too many pages are taken already it
/// stays as it is.
const LARGE: i32 = 1 << 20;

/// How much is dropped at once, the line that this ends in included.
const DROP: usize = 32 << 10;

/// The longest line of which nothing is left over, in bytes.
const LINE: usize = 8 << 10;

/// The thread's stack, in bytes.
const STACK: usize = 64 << 10;

/// The reading end of what this process prints to.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) stream: OutputStream,
    pub(crate) pipe: OwnedFd,
}

/// Keeps the reading ends, for the life of the process.
#[derive(Debug)]
pub(crate) struct Keeper {
    ends: Vec<End>,
    /// Wakes the thread to look what is new.
    news: EventFd,
    reader: Mutex<Option<Reader>>,
    /// Bytes that were dropped and not told of yet.
    dropped: AtomicU64,
}

/// Who reads the pipes.
#[derive(Debug)]
enum Reader {
    /// A supervisor, as long as this channel is not hung up.
    Linked(OwnedFd),
    /// Nobody so far. A supervisor has been asked, and reads as soon as it has
    /// said anything on this channel.
    Asked(OwnedFd),
    /// Nobody.
    Gone,
}

impl Keeper {
    /// Starts the thread, which ends with the process, if there is anything to keep.
    /// `channel` leads to the supervisor that reads now.
    ///
    /// # Errors
    /// There is no room for the thread or a descriptor.
    pub(crate) fn start(
        ends: Vec<End>,
        channel: BorrowedFd<'_>,
    ) -> io::Result<Option<&'static Self>> {
        if ends.is_empty() {
            return Ok(None);
        }
        for end in &ends {
            // Reading must not wait either, should somebody else have read first.
            let flags = OFlag::from_bits_retain(fcntl(&end.pipe, FcntlArg::F_GETFL)?);
            fcntl(&end.pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        let keeper: &'static Self = Box::leak(Box::new(Self {
            ends,
            news: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            reader: Mutex::default(),
            dropped: AtomicU64::new(0),
        }));
        let reader = Reader::Linked(channel.try_clone_to_owned()?);
        std::thread::Builder::new()
            .name("output".to_owned())
            .stack_size(STACK)
            .spawn(move || keeper.watch(reader))?;
        Ok(Some(keeper))
    }

    /// What goes to the next supervisor: a duplicate of each end.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<End>> {
        let duplicate = |end: &End| {
            Ok(End {
                stream: end.stream,
                pipe: end.pipe.try_clone()?,
            })
        };
        self.ends.iter().map(duplicate).collect()
    }

    /// The supervisor on this channel is asked to read from now on.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn ask(&self, channel: BorrowedFd<'_>) -> io::Result<()> {
        self.tell(Reader::Asked(channel.try_clone_to_owned()?));
        Ok(())
    }

    /// Nobody reads any more; the channel is let go of, so that its other end
    /// learns of that.
    pub(crate) fn let_go(&self) {
        self.tell(Reader::Gone);
    }

    /// How many bytes have been dropped since the last call.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    fn tell(&self, reader: Reader) {
        // Nothing is left half done under the lock.
        let mut news = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        *news = Some(reader);
        // Fails only where it has been told so often already that it is awake.
        let _ = self.news.write(1);
    }

    fn news(&self) -> Option<Reader> {
        let _ = self.news.read();
        let mut news = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        news.take()
    }

    fn watch(&self, mut reader: Reader) {
        let mut room = Room::default();
        loop {
            let events = self.wait(&reader);
            if let Some(new) = self.news() {
                reader = new;
                continue;
            }
            let gone = events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
            reader = match reader {
                Reader::Linked(_) | Reader::Asked(_) if gone => Reader::Gone,
                Reader::Asked(channel) if events.contains(PollFlags::POLLIN) => {
                    Reader::Linked(channel)
                }
                same => same,
            };
            match &reader {
                Reader::Linked(_) => room = Room::default(),
                Reader::Asked(_) | Reader::Gone => self.make_room(&mut room),
            }
        }
    }

    /// Waits for news, or for something to happen on the channel; or for the time
    /// to look at the pipes, where nobody else does.
    fn wait(&self, reader: &Reader) -> PollFlags {
        let (channel, wanted, patience) = match reader {
            // A hang-up is told of without being asked for (poll(2)).
            Reader::Linked(channel) => (Some(channel), PollFlags::empty(), PollTimeout::NONE),
            Reader::Asked(channel) => (Some(channel), PollFlags::POLLIN, LOOK_MS.into()),
            Reader::Gone => (None, PollFlags::empty(), LOOK_MS.into()),
        };
        let mut ready = vec![PollFd::new(self.news.as_fd(), PollFlags::POLLIN)];
        ready.extend(channel.map(|channel| PollFd::new(channel.as_fd(), wanted)));
        match poll(&mut ready, patience) {
            Ok(1..) => ready
                .get(1)
                .and_then(PollFd::revents)
                .unwrap_or(PollFlags::empty()),
            // A signal, or nothing: the caller looks again.
            _ => PollFlags::empty(),
        }
    }

    fn make_room(&self, room: &mut Room) {
        for end in &self.ends {
            let is_full = match end.stream {
                OutputStream::Stdout => is_full(&io::stdout(), end),
                OutputStream::Stderr => is_full(&io::stderr(), end),
            };
            if is_full {
                let dropped = room.make(end);
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
    }
}

/// The way to room in pipes that are full.
#[derive(Debug, Default)]
struct Room {
    /// Those that are as large as they get.
    grown: Vec<OutputStream>,
    buffer: Vec<u8>,
}

impl Room {
    /// Makes the pipe larger the first time, and drops its oldest lines from then
    /// on; how many bytes.
    fn make(&mut self, end: &End) -> u64 {
        if !self.grown.contains(&end.stream) {
            self.grown.push(end.stream);
            if fcntl(&end.pipe, FcntlArg::F_SETPIPE_SZ(LARGE)).is_ok() {
                return 0;
            }
        }
        self.buffer.resize(DROP, 0);
        let mut dropped = 0;
        while dropped < DROP {
            match read_some(&end.pipe, &mut self.buffer[dropped..]) {
                0 => return dropped as u64,
                some => dropped += some,
            }
        }
        // What follows is to begin with a line.
        let mut last = [self.buffer[DROP - 1]];
        while last != *b"\n" && dropped < DROP + LINE && read_some(&end.pipe, &mut last) == 1 {
            dropped += 1;
        }
        dropped as u64
    }
}

/// Whether an output is still the pipe of this end, and a write to it would wait.
fn is_full(output: &impl AsFd, end: &End) -> bool {
    let same = || Ok::<_, Errno>(fstat(output)?.st_ino == fstat(&end.pipe)?.st_ino);
    events(output) == Some(PollFlags::empty()) && same().unwrap_or(false)
}

/// One read; 0 where there is nothing.
fn read_some(pipe: &OwnedFd, buffer: &mut [u8]) -> usize {
    loop {
        match read(pipe, buffer) {
            Err(Errno::EINTR) => {}
            other => return other.unwrap_or(0),
        }
    }
}
