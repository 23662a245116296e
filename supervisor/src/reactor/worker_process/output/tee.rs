//! What is in a pipe, seen without taking it out (tee(2)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, read};

/// A pipe that others are copied to, and a place for what is taken out of them.
/// It is empty between two looks, so one is enough.
#[derive(Debug)]
pub(super) struct Peek {
    copy: OwnedFd,
    into: OwnedFd,
    nowhere: File,
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many bytes; 0 where all writers have gone.
    pub(super) length: usize,
    /// Whether that was all: there was room for more.
    pub(super) is_all: bool,
}

impl Peek {
    /// An empty one.
    ///
    /// # Errors
    /// No descriptor is left for it.
    pub(super) fn new() -> io::Result<Self> {
        let (copy, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let nowhere = File::options().write(true).open("/dev/null")?;
        Ok(Self {
            copy,
            into,
            nowhere,
        })
    }

    /// What the next read would give. It does not wait, whatever others have made
    /// of the pipe's flags.
    ///
    /// # Errors
    /// `WouldBlock` where there is nothing now.
    pub(super) fn look(&self, pipe: BorrowedFd<'_>, chunk: &mut [u8]) -> io::Result<Seen> {
        let copied = tee(
            pipe,
            &self.into,
            chunk.len(),
            SpliceFFlags::SPLICE_F_NONBLOCK,
        )?;
        let is_all = copied < chunk.len() && self.has_room();
        let mut length = 0;
        // One read gives all of it, but for a pipe of packets.
        while length < copied {
            match read(&self.copy, &mut chunk[length..copied]) {
                Err(Errno::EINTR) => {}
                Ok(0) => break,
                other => length += other?,
            }
        }
        Ok(Seen { length, is_all })
    }

    /// Takes this much out, as far as it is there.
    pub(super) fn take(&self, pipe: BorrowedFd<'_>, mut length: usize) {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        while length > 0 {
            match splice(pipe, None, &self.nowhere, None, length, flags) {
                Err(Errno::EINTR) => {}
                // Somebody else has taken it.
                Ok(0) | Err(_) => return,
                Ok(taken) => length -= taken,
            }
        }
    }

    fn has_room(&self) -> bool {
        let mut ready = [PollFd::new(self.into.as_fd(), PollFlags::POLLOUT)];
        poll(&mut ready, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}
