//! What a worker writes to stdout and stderr: into the log line by line, and
//! the last of stderr kept for the death certificate.
//!
//! - `reader` is the process that touches the pipes, which `readers` starts and asks in
//!   the words of `wire`; it looks by `tee` before it takes anything out.
//!
//! A line is taken out of the pipe when it is in the log: what a supervisor has not
//! logged that is killed is still there for the next one. One line at most is
//! logged twice by that.

mod reader;
mod readers;
mod tee;
mod wire;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use prefork_proto::channel::parts::Octets;
use tokio::io::Interest;
use tokio::sync::oneshot;

use crate::kernel::sys;
use crate::log::{Voice, length_of_block};
use crate::reactor::worker_process::log_allowance::{Allowance, Flood};
use crate::reactor::worker_process::task::at;
use crate::upgrade::HandedOutput;

pub use reader::{READ_OUTPUT_ARGUMENT, read_output_for_supervisor};
use readers::{Look, Outcome, Pipe, Task};

pub(crate) use readers::{Readers, Writer};
use wire::Found;

/// How much of stderr a death certificate keeps.
const TAIL: usize = 8 * 1024;

/// What is logged of one line, in bytes; the rest of a longer one is left out. This much
/// is looked at in one turn, so that a chatty worker takes its own.
const LINE: usize = wire::MOST;

/// What stands at the end of an entry that is not the whole line.
const CUT: &str = " [cut: a line is logged up to 16 KiB]";

/// Turns after the worker's end: a grandchild may hold the pipe and write for ever.
const LAST_READS: usize = 64;

/// Before more is read of what is not logged anyway.
const FLOOD_PAUSE: Duration = Duration::from_millis(10);

/// One of a worker's two output pipes.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: Rc<Pipe>,
    turn: Turn,
    /// The worker may have made it larger.
    is_large: bool,
    /// Nothing more will be written that is waited for.
    is_last: bool,
    /// The beginning of a line that has been taken out.
    line: Vec<u8>,
    /// What comes until the next newline is of a line that was too long.
    cut: bool,
    tail: VecDeque<u8>,
    voice: Voice,
    allowance: Allowance,
    /// Not reading until then.
    paused: Option<Instant>,
}

/// How far the reading has come.
#[derive(Debug)]
enum Turn {
    /// The pipe is looked at when the kernel says that something has come.
    Waiting,
    /// There may be more than was seen.
    Next,
    /// A reader is at it.
    Asked(oneshot::Receiver<Outcome>, Errand),
    /// It has been.
    Answered(Outcome, Errand),
}

/// What a reader is at.
#[derive(Debug, Clone, Copy, Default)]
struct Errand {
    /// It takes out what has been logged.
    takes: bool,
    /// It does not look, and there may be more.
    leaves_more: bool,
    /// It may have looked before the worker's end.
    is_early: bool,
}

impl Output {
    /// Reads from this end of a pipe.
    pub(crate) fn new(pipe: OwnedFd, writer: Writer) -> io::Result<Self> {
        Ok(Self {
            pipe: Rc::new(Pipe::new(pipe, writer)?),
            turn: Turn::Waiting,
            is_large: false,
            is_last: false,
            line: Vec::new(),
            cut: false,
            tail: VecDeque::new(),
            voice: Voice::default(),
            allowance: Allowance::new(Instant::now()),
            paused: None,
        })
    }

    /// Reads from what a worker says is the end of a pipe.
    pub(crate) fn taken_over(pipe: OwnedFd, writer: Writer) -> io::Result<Self> {
        let pipe = File::from(pipe);
        if !pipe.metadata()?.file_type().is_fifo() {
            return Err(io::Error::other("it brought something that is no pipe"));
        }
        Ok(Self {
            is_large: true,
            ..Self::new(pipe.into(), writer)?
        })
    }

    /// What the next program has to know of it. Nothing may be on its way out of the pipe.
    pub(crate) fn hand_over(&self) -> HandedOutput {
        HandedOutput {
            pipe: self.pipe().as_raw_fd(),
            line: Octets(self.line.clone()),
            tail: Octets(self.tail.iter().copied().collect()),
            cut: self.cut,
        }
    }

    /// Goes on with a pipe that the program before this one read from.
    pub(crate) fn go_on(handed: HandedOutput, writer: Writer) -> io::Result<Self> {
        Ok(Self {
            line: handed.line.0,
            tail: handed.tail.0.into(),
            cut: handed.cut,
            ..Self::new(sys::claim(handed.pipe), writer)?
        })
    }

    /// The end that is read from. Nothing may be done with it that takes the pipe's lock.
    pub(crate) fn pipe(&self) -> &OwnedFd {
        self.pipe.end().get_ref()
    }

    /// Waits until there is something to [`read`](Self::read), or to ask for.
    pub(crate) async fn readable(&mut self) {
        match &mut self.turn {
            Turn::Answered(..) => return,
            Turn::Asked(outcome, errand) => {
                // Nobody answers where the loop ends.
                let outcome = outcome.await.unwrap_or(Outcome::Lost);
                self.turn = Turn::Answered(outcome, *errand);
                return;
            }
            Turn::Waiting | Turn::Next => {}
        }
        if self.paused.is_some_and(|until| until > Instant::now()) {
            at(self.paused).await;
        }
        if matches!(self.turn, Turn::Waiting) {
            sys::readable(self.pipe.end()).await;
        }
    }

    /// Waits until what has been logged is taken out of the pipe, or that is hopeless.
    pub(crate) async fn settle(&mut self, within: Duration) -> bool {
        while matches!(self.turn, Turn::Asked(_, Errand { takes: true, .. })) {
            if tokio::time::timeout(within, self.readable()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// What has come of the bound on what is logged since the last call: whether there
    /// is something to say, and how many bytes were dropped.
    pub(crate) fn flood(&mut self) -> (Option<Flood>, u64) {
        let dropped = std::mem::take(&mut self.allowance.uncounted);
        (self.allowance.news(Instant::now()), dropped)
    }

    /// Hands what complete lines have been seen to `log`, a turn's worth, or has a reader
    /// look for them. To be called when it is [`readable`](Self::readable).
    pub(crate) fn read(&mut self, log: impl FnMut(&mut Voice, &str)) -> Progress {
        match std::mem::replace(&mut self.turn, Turn::Waiting) {
            Turn::Answered(Outcome::Seen(look), errand) => self.heed(look, errand, log),
            Turn::Answered(Outcome::Held, _) => Progress::Held,
            // It is seen again, and logged again if nobody has taken it out.
            Turn::Answered(Outcome::Lost, _) => self.look(),
            asked @ Turn::Asked(..) => {
                self.turn = asked;
                Progress::Asked
            }
            Turn::Waiting | Turn::Next => self.look(),
        }
    }

    fn look(&mut self) -> Progress {
        // Before it is looked at: what comes later is told anew.
        let told = |_: &OwnedFd| Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = self.pipe.end().try_io(Interest::READABLE, told);
        let task = Task {
            look: true,
            ..Task::default()
        };
        let outcome = Readers::shared().ask(&self.pipe, task);
        self.turn = Turn::Asked(outcome, Errand::default());
        Progress::Asked
    }

    /// Logs what was seen, and has it taken out.
    fn heed(
        &mut self,
        look: Look,
        errand: Errand,
        mut log: impl FnMut(&mut Voice, &str),
    ) -> Progress {
        match look.found {
            Found::Bytes => {}
            Found::Nothing if errand.leaves_more || errand.is_early => return self.go_on_looking(),
            Found::Nothing => {
                self.shrink(look);
                return Progress::Blocked;
            }
            Found::End => return Progress::Ended,
        }
        let (mut rest, lease) = (look.bytes.as_slice(), &look.lease);
        let has_line = rest.contains(&b'\n');
        let is_over = !look.has_writer || self.is_last && look.is_all && !errand.is_early;
        let goes_on = !has_line && !is_over;
        if goes_on && look.is_all && !self.cut {
            if errand.is_early {
                return self.go_on_looking();
            }
            // The rest of the line comes with what wakes the loop again.
            return Progress::Blocked;
        }
        let mut taken = 0;
        while let Some(length) = self.next_entry(rest) {
            let (line, after) = rest.split_at(length);
            self.take(line, &mut log);
            taken += line.len();
            lease.logged(taken);
            rest = after;
        }
        // After a line it is seen again, with what is still to come.
        if !has_line {
            if goes_on {
                self.begin(rest, &mut log);
            } else {
                self.take(rest, &mut log);
            }
            taken += rest.len();
            lease.logged(taken);
        }
        let is_more = !look.is_all || !look.has_writer || self.is_last;
        self.take_out(look, taken, is_more);
        Progress::Read
    }

    /// How long the next line is, together with what belongs to it and was seen with it.
    fn next_entry(&self, bytes: &[u8]) -> Option<usize> {
        if !self.cut {
            return length_of_block(bytes);
        }
        // What is left out ends with its line.
        Some(bytes.iter().position(|byte| *byte == b'\n')? + 1)
    }

    /// Has what is logged taken out, and looks again where there may be more.
    fn take_out(&mut self, look: Look, taken: usize, is_more: bool) {
        let now = Instant::now();
        let is_paused = self.paused.is_some_and(|until| until > now);
        // One that prints without end takes turns with the others.
        let looks = is_more && !is_paused && !Readers::shared().are_wanted();
        let task = Task {
            take: taken,
            look: looks,
            shrink: false,
        };
        let errand = Errand {
            takes: true,
            leaves_more: is_more && !looks,
            is_early: false,
        };
        self.turn = Turn::Asked(look.lease.go_on(&self.pipe, task), errand);
    }

    fn go_on_looking(&mut self) -> Progress {
        self.turn = Turn::Next;
        Progress::Read
    }

    /// The worker has ended: logs what there is now, whether or not it ends with a newline.
    pub(crate) async fn finish(&mut self, mut log: impl FnMut(&mut Voice, &str)) {
        self.is_last = true;
        if let Turn::Asked(_, errand) | Turn::Answered(_, errand) = &mut self.turn {
            errand.is_early = true;
        }
        for _ in 0..LAST_READS {
            match self.read(&mut log) {
                Progress::Read | Progress::Asked => self.readable().await,
                Progress::Blocked | Progress::Ended | Progress::Held => break,
            }
        }
        if !self.line.is_empty() {
            self.take(b"", &mut log);
        }
    }

    /// Logs a line, or its end.
    fn take(&mut self, line: &[u8], log: &mut impl FnMut(&mut Voice, &str)) {
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
    }

    /// Keeps the beginning of a line, or what is in the middle of it, and logs it once it
    /// is as long as an entry may be.
    fn begin(&mut self, part: &[u8], log: &mut impl FnMut(&mut Voice, &str)) {
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
    }

    /// Logs an entry that was so long, unless there have been too many.
    fn write(&mut self, length: usize, entry: &str, log: &mut impl FnMut(&mut Voice, &str)) {
        let now = Instant::now();
        if self.allowance.take(length, now) {
            log(&mut self.voice, entry);
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
    fn shrink(&mut self, look: Look) {
        if std::mem::take(&mut self.is_large) {
            let task = Task {
                shrink: true,
                ..Task::default()
            };
            let outcome = look.lease.go_on(&self.pipe, task);
            self.turn = Turn::Asked(outcome, Errand::default());
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

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Something was read.
    Read,
    /// A reader is at it.
    Asked,
    /// There is nothing now.
    Blocked,
    /// There will be nothing more.
    Ended,
    /// A writer holds the pipe, as too many others do theirs.
    Held,
}

#[cfg(test)]
mod tests;
