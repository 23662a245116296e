//! What a worker writes to stdout and stderr: into the log line by line, and
//! the last of stderr kept for the death certificate.
//!
//! A line is taken out of the pipe when it is in the log: what a supervisor has not
//! logged that is killed is still there for the next one. One line at most is
//! logged twice by that.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prefork_proto::channel::parts::Octets;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::allowance::{Allowance, Flood};
use super::peek::Peek;
use super::process::at;
use crate::sys;
use crate::upgrade::HandedOutput;

/// How much of stderr a death certificate keeps.
const TAIL: usize = 8 * 1024;

/// What is logged of one line, in bytes; the rest of a longer one is left out. This much
/// is looked at in one turn, so that a chatty worker takes its own.
const LINE: usize = 16 * 1024;

/// What stands at the end of an entry that is not the whole line.
const CUT: &str = " [cut: a line is logged up to 16 KiB]";

/// What a pipe holds that nobody has changed, in bytes (pipe(7)).
const CAPACITY: i32 = 64 * 1024;

/// Before more is read of what is not logged anyway.
const FLOOD_PAUSE: Duration = Duration::from_millis(10);

/// One of a worker's two output pipes.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: AsyncFd<OwnedFd>,
    peek: Rc<Peek>,
    /// The worker may have made it larger.
    is_large: bool,
    /// The beginning of a line that has been taken out.
    line: Vec<u8>,
    /// What comes until the next newline is of a line that was too long.
    cut: bool,
    tail: VecDeque<u8>,
    allowance: Allowance,
    /// Not reading until then.
    paused: Option<Instant>,
}

impl Output {
    /// Reads from this end of a pipe.
    pub(crate) fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            peek: Peek::shared()?,
            pipe: sys::watch_fd(pipe)?,
            is_large: false,
            line: Vec::new(),
            cut: false,
            tail: VecDeque::new(),
            allowance: Allowance::new(Instant::now()),
            paused: None,
        })
    }

    /// Reads from what a worker says is the end of a pipe.
    pub(crate) fn taken_over(pipe: OwnedFd) -> io::Result<Self> {
        let pipe = File::from(pipe);
        if !pipe.metadata()?.file_type().is_fifo() {
            return Err(io::Error::other("it brought something that is no pipe"));
        }
        Ok(Self {
            is_large: true,
            ..Self::new(pipe.into())?
        })
    }

    /// What the next program has to know of it.
    pub(crate) fn hand_over(&self) -> HandedOutput {
        HandedOutput {
            pipe: self.pipe.as_raw_fd(),
            line: Octets(self.line.clone()),
            tail: Octets(self.tail.iter().copied().collect()),
            cut: self.cut,
        }
    }

    /// Goes on with a pipe that the program before this one read from.
    pub(crate) fn go_on(handed: HandedOutput) -> io::Result<Self> {
        Ok(Self {
            line: handed.line.0,
            tail: handed.tail.0.into(),
            cut: handed.cut,
            ..Self::new(sys::claim(handed.pipe))?
        })
    }

    /// The end that is read from.
    pub(crate) fn pipe(&self) -> &OwnedFd {
        self.pipe.get_ref()
    }

    /// Waits until there is something to read.
    pub(crate) async fn readable(&self) {
        if self.paused.is_some_and(|until| until > Instant::now()) {
            at(self.paused).await;
        }
        sys::readable(&self.pipe).await;
    }

    /// What has come of the bound on what is logged since the last call: whether there
    /// is something to say, and how many bytes were dropped.
    pub(crate) fn flood(&mut self) -> (Option<Flood>, u64) {
        let dropped = std::mem::take(&mut self.allowance.uncounted);
        (self.allowance.news(Instant::now()), dropped)
    }

    /// Hands what complete lines there are to `log`, a turn's worth.
    pub(crate) fn read(&mut self, mut log: impl FnMut(&str)) -> Progress {
        let mut chunk = [0; LINE];
        let peek = Rc::clone(&self.peek);
        let cut = self.cut;
        let looked = self.pipe.try_io(Interest::READABLE, |pipe| {
            let seen = peek.look(pipe.as_fd(), &mut chunk)?;
            let has_line = chunk[..seen.length].contains(&b'\n');
            // The rest of the line comes with what wakes the loop again.
            let goes_on = !has_line && seen.length > 0 && has_writer(pipe);
            if goes_on && seen.is_all && !cut {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok((seen.length, goes_on))
        });
        match looked {
            Ok((0, _)) => Progress::Ended,
            Ok((length, goes_on)) => {
                let mut rest = &chunk[..length];
                let mut has_line = false;
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let (line, after) = rest.split_at(end + 1);
                    self.take(line, &mut log);
                    rest = after;
                    has_line = true;
                }
                match (has_line, goes_on) {
                    // It is seen again, with what is still to come.
                    (true, _) => {}
                    (false, true) => self.begin(rest, &mut log),
                    (false, false) => self.take(rest, &mut log),
                }
                Progress::Read
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.shrink();
                Progress::Blocked
            }
            Err(_) => Progress::Ended,
        }
    }

    /// Logs what is left, a turn's worth, whether or not it is a line.
    pub(crate) fn finish(&mut self, mut log: impl FnMut(&str)) {
        let mut chunk = [0; LINE];
        match self.peek.look(self.pipe.as_fd(), &mut chunk) {
            Ok(seen) if seen.length > 0 => self.take(&chunk[..seen.length], &mut log),
            _ if !self.line.is_empty() => self.take(b"", &mut log),
            _ => {}
        }
    }

    /// Logs a line, or its end, and then takes it out of the pipe.
    fn take(&mut self, line: &[u8], log: &mut impl FnMut(&str)) {
        self.remember(line);
        if std::mem::take(&mut self.cut) {
            // Its beginning is logged.
            self.allowance.left_out(line.len());
        } else if self.line.is_empty() {
            self.write(line.len(), text(line).as_ref(), log);
        } else {
            self.line.extend_from_slice(line);
            let line = std::mem::take(&mut self.line);
            self.write(line.len(), text(&line).as_ref(), log);
        }
        self.peek.take(self.pipe.as_fd(), line.len());
    }

    /// Takes the beginning of a line, or what is in the middle of it, out of the pipe,
    /// and logs it once it is as long as an entry may be.
    fn begin(&mut self, part: &[u8], log: &mut impl FnMut(&str)) {
        self.remember(part);
        if self.cut {
            self.allowance.left_out(part.len());
        } else {
            self.line.extend_from_slice(part);
            if self.line.len() >= LINE {
                let line = std::mem::take(&mut self.line);
                self.allowance.left_out(line.len() - LINE);
                let entry = format!("{}{CUT}", text(whole(&line[..LINE])));
                self.write(entry.len(), &entry, log);
                self.cut = true;
            }
        }
        self.peek.take(self.pipe.as_fd(), part.len());
    }

    /// Logs an entry that was so long, unless there have been too many.
    fn write(&mut self, length: usize, entry: &str, log: &mut impl FnMut(&str)) {
        let now = Instant::now();
        if self.allowance.take(length, now) {
            log(entry);
        } else {
            self.allowance.dropped(length, now);
            self.paused = Some(now + FLOOD_PAUSE);
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
    }

    /// Gives back the memory that a worker took in need; all pipes of a user
    /// count together.
    fn shrink(&mut self) {
        if std::mem::take(&mut self.is_large) {
            // Where more is in it already it stays large.
            let _ = fcntl(&self.pipe, FcntlArg::F_SETPIPE_SZ(CAPACITY));
        }
    }

    /// The last of what was written.
    pub(crate) fn tail(&self) -> String {
        let (front, back) = self.tail.as_slices();
        let bytes = [front, back].concat();
        // The first character may have lost its beginning.
        let is_middle = |byte: &u8| *byte & 0xc0 == 0x80;
        let lost = bytes
            .iter()
            .take(3)
            .take_while(|byte| is_middle(byte))
            .count();
        String::from_utf8_lossy(&bytes[lost..]).into_owned()
    }
}

/// The bytes without a character at their end that is not there as a whole.
fn whole(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        // Not an invalid one: a valid one that goes on.
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        // Before the end there may be bytes that are no text.
        Err(_) => {
            let start = bytes.iter().rposition(|byte| *byte & 0xc0 != 0x80);
            let start = start.filter(|start| bytes.len() - start < 4).unwrap_or(0);
            match std::str::from_utf8(&bytes[start..]) {
                Err(error) if error.error_len().is_none() => &bytes[..start],
                _ => bytes,
            }
        }
        Ok(_) => bytes,
    }
}

fn text(line: &[u8]) -> std::borrow::Cow<'_, str> {
    let end = line.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'));
    String::from_utf8_lossy(&line[..end.map_or(0, |end| end + 1)])
}

/// Whether anybody can still write to the pipe.
fn has_writer(pipe: &OwnedFd) -> bool {
    let mut ready = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    let known = poll(&mut ready, PollTimeout::ZERO).is_ok();
    let events = ready[0].revents().filter(|_| known);
    !events.is_some_and(|events| events.contains(PollFlags::POLLHUP))
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
    use std::io::Write;

    use super::*;

    fn output() -> (Output, File) {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        (Output::new(reader).unwrap(), writer.into())
    }

    /// Reads all that can be read now.
    async fn read(output: &mut Output) -> (Vec<String>, Progress) {
        let mut lines = Vec::new();
        output.readable().await;
        loop {
            match output.read(|line| lines.push(line.to_owned())) {
                Progress::Read => {}
                end => return (lines, end),
            }
        }
    }

    #[tokio::test]
    async fn lines_are_whole_however_the_bytes_come() {
        let (mut output, mut pipe) = output();
        let mut lines = Vec::new();
        for piece in ["one\ntw", "o\r\n", "thr", "ee"] {
            pipe.write_all(piece.as_bytes()).unwrap();
            let (read, end) = read(&mut output).await;
            assert_eq!(end, Progress::Blocked);
            lines.extend(read);
        }
        assert_eq!(lines, ["one", "two"]);
        drop(pipe);
        assert_eq!(
            read(&mut output).await,
            (vec!["three".to_owned()], Progress::Ended)
        );
        assert_eq!(output.tail(), "one\ntwo\r\nthree");
    }

    #[tokio::test]
    async fn what_is_not_logged_is_left_in_the_pipe() {
        let (mut output, mut pipe) = output();
        pipe.write_all(b"one\ntwo\nthr").unwrap();
        let again = output.pipe().try_clone().unwrap();
        output.readable().await;
        let logging = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            output.read(|line| assert_eq!(line, "one", "this is where it dies"));
        }));
        assert!(logging.is_err());
        drop(output);
        let mut next = Output::taken_over(again).unwrap();
        assert_eq!(
            read(&mut next).await,
            (vec!["two".to_owned()], Progress::Blocked)
        );
        next.finish(|line| assert_eq!(line, "thr"));
        assert_eq!(next.tail(), "two\nthr");
    }

    #[tokio::test]
    async fn neither_a_long_line_nor_a_long_life_makes_it_grow() {
        let (mut output, mut pipe) = output();
        let mut lines = Vec::new();
        for _ in 0..100 {
            pipe.write_all(&[b'x'; 5000]).unwrap();
            lines.extend(read(&mut output).await.0);
        }
        assert!(output.line.is_empty());
        assert_eq!(output.tail().len(), TAIL);
        assert_eq!(output.flood(), (None, 500_000 - LINE as u64));
        pipe.write_all(b"\nnext\n").unwrap();
        lines.extend(read(&mut output).await.0);
        let beginning = "x".repeat(LINE);
        assert_eq!(lines, [format!("{beginning}{CUT}"), "next".to_owned()]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_one_entry_that_is_cut_at_a_character() {
        for shift in 0..4 {
            let (mut output, mut pipe) = output();
            let long = format!("{}{}", "x".repeat(shift), "世🦀é".repeat(3_000));
            pipe.write_all(format!("{long}\nnext\n").as_bytes())
                .unwrap();
            let (lines, _) = read(&mut output).await;
            let [cut, next] = &lines[..] else {
                panic!("{} entries", lines.len());
            };
            let kept = cut.strip_suffix(CUT).unwrap();
            assert!(
                long.starts_with(kept) && kept.len() > LINE - 4,
                "{}",
                kept.len()
            );
            assert_eq!(next, "next");
            assert!(!output.tail().contains('\u{fffd}'));
        }
        assert_eq!(whole(b"a\xff\xe4\xb8"), b"a\xff");
        assert_eq!(whole(b"\xff\xff"), b"\xff\xff");
    }

    #[tokio::test]
    async fn a_line_that_is_just_short_enough_is_whole() {
        let (mut output, mut pipe) = output();
        let line = "x".repeat(LINE - 1);
        pipe.write_all(format!("{line}\n").as_bytes()).unwrap();
        assert_eq!(read(&mut output).await.0, [line]);
    }

    #[tokio::test]
    async fn pieces_that_are_not_joined_in_the_pipe_hold_nothing_up() {
        let (mut output, mut pipe) = output();
        let packets = nix::fcntl::OFlag::O_DIRECT;
        fcntl(&pipe, FcntlArg::F_SETFL(packets)).unwrap();
        let capacity = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
        let mut logged = 0;
        for _ in 0..capacity / 4096 {
            pipe.write_all(b"x").unwrap();
        }
        output.readable().await;
        while output.read(|line| logged += line.len()) == Progress::Read {}
        output.finish(|line| logged += line.len());
        assert_eq!(logged, usize::try_from(capacity / 4096).unwrap());
    }

    #[tokio::test]
    async fn only_a_pipe_is_taken_over() {
        let file = File::open("/dev/zero").unwrap();
        let error = Output::taken_over(file.into()).unwrap_err();
        assert!(error.to_string().contains("no pipe"), "{error}");
    }
}
