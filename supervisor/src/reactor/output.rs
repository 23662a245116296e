//! What a worker writes to stdout and stderr: into the log line by line, and
//! the last of stderr kept for the death certificate.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use prefork_proto::channel::parts::Octets;
use tokio::net::unix::pipe;

use crate::sys;
use crate::upgrade::HandedOutput;

/// How much of stderr a death certificate keeps.
const TAIL: usize = 8 * 1024;

/// A longer line is logged in pieces.
const LINE: usize = 8 * 1024;

/// How much is read at once, so that a chatty worker takes its turn.
const CHUNK: usize = 8 * 1024;

/// One of a worker's two output pipes.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: pipe::Receiver,
    line: Vec<u8>,
    tail: VecDeque<u8>,
}

impl Output {
    /// Reads from this end of a pipe.
    pub(crate) fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pipe: pipe::Receiver::from_owned_fd(pipe)?,
            line: Vec::new(),
            tail: VecDeque::new(),
        })
    }

    /// What the next program has to know of it.
    pub(crate) fn hand_over(&self) -> HandedOutput {
        HandedOutput {
            pipe: self.pipe.as_raw_fd(),
            line: Octets(self.line.clone()),
            tail: Octets(self.tail.iter().copied().collect()),
        }
    }

    /// Goes on with a pipe that the program before this one read from.
    pub(crate) fn go_on(handed: HandedOutput) -> io::Result<Self> {
        Ok(Self {
            line: handed.line.0,
            tail: handed.tail.0.into(),
            ..Self::new(sys::claim(handed.pipe))?
        })
    }

    /// Waits until there is something to read.
    pub(crate) async fn readable(&self) {
        // An error shows in the read that follows.
        let _ = self.pipe.readable().await;
    }

    /// Reads once and hands every complete line to `log`. `false` at the end.
    pub(crate) fn read(&mut self, log: impl FnMut(&str)) -> Progress {
        let mut chunk = [0; CHUNK];
        match self.pipe.try_read(&mut chunk) {
            Ok(0) => Progress::Ended,
            Ok(length) => {
                self.take(&chunk[..length], log);
                Progress::Read
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Progress::Blocked,
            Err(_) => Progress::Ended,
        }
    }

    fn take(&mut self, bytes: &[u8], mut log: impl FnMut(&str)) {
        self.tail.extend(bytes);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);

        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() >= LINE {
                self.finish_line(&mut log);
            }
        }
    }

    /// Logs what came after the last newline.
    pub(crate) fn finish_line(&mut self, mut log: impl FnMut(&str)) {
        if !self.line.is_empty() {
            log(String::from_utf8_lossy(&self.line).trim_end_matches(['\n', '\r']));
            self.line.clear();
        }
    }

    /// The last of what was written.
    pub(crate) fn tail(&self) -> String {
        let (front, back) = self.tail.as_slices();
        String::from_utf8_lossy(&[front, back].concat()).into_owned()
    }
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Something was read.
    Read,
    /// There is nothing now.
    Blocked,
    /// There will be nothing more.
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output() -> Output {
        let (reader, _writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        Output::new(reader).unwrap()
    }

    #[tokio::test]
    async fn lines_are_whole_however_the_bytes_come() {
        let mut output = output();
        let mut lines = Vec::new();
        for piece in ["one\ntw", "o\r\n", "thr", "ee"] {
            output.take(piece.as_bytes(), |line| lines.push(line.to_owned()));
        }
        output.finish_line(|line| lines.push(line.to_owned()));
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!(output.tail(), "one\ntwo\r\nthree");
    }

    #[tokio::test]
    async fn neither_a_long_line_nor_a_long_life_makes_it_grow() {
        let mut output = output();
        let mut logged = 0;
        for _ in 0..100 {
            output.take(&[b'x'; 5000], |line| logged += line.len());
        }
        assert!(output.line.len() < LINE + CHUNK);
        assert!(logged >= 490_000, "{logged}");
        assert_eq!(output.tail().len(), TAIL);
    }
}
