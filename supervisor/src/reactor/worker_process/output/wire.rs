//! What the supervisor and the process that reads pipes for it say to each other:
//! one packet for a question, at most with the pipe, and one for its answer.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::kernel::sys;

/// The most that is looked at in one turn, in bytes.
pub(super) const MOST: usize = 16 * 1024;

/// What an answer begins with, in bytes.
const HEAD: usize = 8;

/// The length of a question.
const QUESTION: usize = 16;

/// What to do with a pipe: the one that comes with the question, and without one that
/// which came last. First something is taken out, and then what there is is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Question {
    /// Its number.
    pub(super) number: u32,
    /// How many bytes to take out.
    pub(super) take: u32,
    /// Whether to look.
    pub(super) look: bool,
    /// Whether to give back what the pipe has room for beyond what is usual.
    pub(super) shrink: bool,
    /// Whether to let go of the pipe instead.
    pub(super) release: bool,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// So much is there, or all that was looked at.
    Bytes,
    /// Nothing now, or nobody looked.
    Nothing,
    /// Nothing, and there never will be.
    End,
}

/// What was done and seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// The question's number.
    pub(super) number: u32,
    pub(super) found: Found,
    /// Whether that is all that there is.
    pub(super) is_all: bool,
    /// Whether somebody could still write before it was looked at.
    pub(super) has_writer: bool,
}

impl Question {
    /// Sends it, without waiting for room.
    pub(super) fn send(
        self,
        socket: BorrowedFd<'_>,
        pipe: Option<BorrowedFd<'_>>,
    ) -> nix::Result<()> {
        let flags = u32::from(self.look)
            | u32::from(self.shrink) << 1
            | u32::from(self.release) << 2
            | u32::from(pipe.is_some()) << 3;
        let words = [self.number, self.take, flags, 0];
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        let fds = pipe.map(|pipe| [pipe.as_raw_fd()]);
        let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let packet = [IoSlice::new(&bytes)];
        let control = rights.as_slice();
        sendmsg::<()>(socket.as_raw_fd(), &packet, control, flags, None).map(drop)
    }

    /// Waits for the next one. `None` where there will be no more.
    pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<(Self, Option<OwnedFd>)>> {
        let mut bytes = [0; QUESTION];
        let (length, fd) = sys::receive_packet(socket, &mut bytes)?;
        let words: Vec<u32> = bytes[..length]
            .chunks_exact(4)
            .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        let [number, take, flags, _] = words[..] else {
            return Ok(None);
        };
        if (flags & 8 != 0) != fd.is_some() {
            return Err(io::Error::other("the pipe is missing"));
        }
        let question = Self {
            number,
            take,
            look: flags & 1 != 0,
            shrink: flags & 2 != 0,
            release: flags & 4 != 0,
        };
        Ok(Some((question, fd)))
    }
}

impl Answer {
    /// Sends it with what was seen.
    pub(super) fn send(self, socket: &OwnedFd, seen: &[u8]) -> io::Result<()> {
        let found = match self.found {
            Found::Bytes => 0,
            Found::Nothing => 1,
            Found::End => 2,
        };
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&self.number.to_ne_bytes());
        head[4..7].copy_from_slice(&[found, self.is_all.into(), self.has_writer.into()]);
        let packet = [IoSlice::new(&head), IoSlice::new(seen)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg::<()>(socket.as_raw_fd(), &packet, &[], flags, None) {
                Err(Errno::EINTR) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// Takes one from the socket, with what was seen. `None` where the other side is gone.
    pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<(Self, Vec<u8>)>> {
        let mut packet = [0; HEAD + MOST];
        let flags = MsgFlags::MSG_DONTWAIT;
        let length = nix::sys::socket::recv(socket.as_fd().as_raw_fd(), &mut packet, flags)?;
        let Some((head, seen)) = packet[..length].split_at_checked(HEAD) else {
            return Ok(None);
        };
        let found = match head[4] {
            0 => Found::Bytes,
            1 => Found::Nothing,
            _ => Found::End,
        };
        let answer = Self {
            number: u32::from_ne_bytes([head[0], head[1], head[2], head[3]]),
            found,
            is_all: head[5] != 0,
            has_writer: head[6] != 0,
        };
        Ok(Some((answer, seen.to_vec())))
    }
}
