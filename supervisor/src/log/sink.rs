//! Where the log's lines go, each whole: to stderr, stdout or a file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use super::format::Lines;
use crate::kernel::trusted_path::{Directories, Place, Trusted};

/// POSIX promises that a pipe which polls writable takes this much at once.
const PIPE_BUF: usize = 4096;

/// How much of its own the supervisor keeps in memory until there is room.
const MOST_KEPT: usize = 256 * 1024;

/// How long a line may wait for a slow reader, in milliseconds.
const PATIENCE_MS: u16 = 20;

/// Where lines are written, and what is known of the last one.
#[derive(Debug)]
pub(super) struct Sink {
    target: Target,
    /// How it is said that lines were lost.
    lines: Lines,
    is_terminal: bool,
    /// The last line found no room: the next one doesn't wait.
    stuck: bool,
    /// Half of a line is there: the next one begins a new line.
    torn: bool,
    lost: u64,
    /// The supervisor's own lines that found no room, the oldest first, and how long they
    /// are in all. Until they are written no other line is.
    kept: VecDeque<Vec<u8>>,
    kept_bytes: usize,
}

/// Whose a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The supervisor's own. It waits where there is no room: what a worker prints
    /// without end is not to hide what is said of that.
    Own,
    /// A worker's.
    Worker,
}

#[derive(Debug)]
pub(super) enum Target {
    Stdout,
    Stderr,
    File { path: PathBuf, file: File },
}

impl Target {
    /// The file, or stderr where there is none.
    pub(super) fn of(file: Option<&Path>) -> io::Result<Self> {
        Ok(match file {
            // Not opened by name: a pipe may belong to another user, and a
            // socket can't be.
            Some(path) if path == Path::new("/dev/stdout") => Self::Stdout,
            None => Self::Stderr,
            Some(path) if path == Path::new("/dev/stderr") => Self::Stderr,
            Some(path) => Self::File {
                path: path.to_owned(),
                file: open(path)?,
            },
        })
    }
}

impl Sink {
    pub(super) fn new(target: Target, lines: Lines) -> Self {
        let is_terminal = match &target {
            Target::Stdout => io::stdout().is_terminal(),
            Target::Stderr => io::stderr().is_terminal(),
            Target::File { file, .. } => file.is_terminal(),
        };
        Self {
            target,
            lines,
            is_terminal,
            stuck: false,
            torn: false,
            lost: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    /// Opens a file again, after a rotation has renamed it.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Target::File { path, file } = &mut self.target {
            *file = open(path)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Writes a line, keeps it for later, or counts it as lost.
    pub(super) fn write_line(&mut self, line: &[u8], origin: Origin) {
        self.catch_up();
        if self.kept.is_empty() && self.write_after_lost(line) {
            return;
        }
        if origin == Origin::Own && self.kept_bytes + line.len() <= MOST_KEPT {
            self.kept_bytes += line.len();
            self.kept.push_back(line.to_owned());
        } else {
            self.lost += 1;
        }
    }

    /// Writes what was kept, as far as there is room.
    pub(super) fn catch_up(&mut self) {
        while let Some(line) = self.kept.pop_front() {
            if !self.try_write(&line) {
                self.kept.push_front(line);
                return;
            }
            self.kept_bytes -= line.len();
        }
    }

    /// Writes a line, and before it how many were lost.
    fn write_after_lost(&mut self, line: &[u8]) -> bool {
        if self.lost > 0 {
            let note = self.lines.lost(self.lost);
            if !self.try_write(note.as_bytes()) {
                return false;
            }
            self.lost = 0;
        }
        self.try_write(line)
    }

    fn try_write(&mut self, line: &[u8]) -> bool {
        // A terminal that takes nothing from the background (`stty tostop`) would
        // stop the whole process group, or have it try for ever.
        let calm = self.is_terminal.then(Calm::begin);
        let written = self.write_whole(line);
        drop(calm);
        written
    }

    fn write_whole(&mut self, line: &[u8]) -> bool {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let fd = match &self.target {
            Target::Stdout => stdout.as_fd(),
            Target::Stderr => stderr.as_fd(),
            // A regular file always polls writable.
            Target::File { file, .. } => file.as_fd(),
        };
        let patience = if self.stuck { 0 } else { PATIENCE_MS };
        if self.torn {
            self.torn = write(fd, b"\n", patience).written == 0;
            if self.torn {
                return false;
            }
        }
        let end = write(fd, line, patience);
        self.stuck = end.stuck;
        if end.written == line.len() {
            return true;
        }
        if end.written > 0 {
            self.torn = match &self.target {
                Target::File { file, .. } => cut_off(file, end.written as u64).is_err(),
                Target::Stdout | Target::Stderr => true,
            };
        }
        false
    }
}

/// Keeps SIGTTOU waiting; a write to the terminal then just succeeds
/// (credentials(7), "tostop" in termios(3)).
struct Calm(Option<SigSet>);

impl Calm {
    fn begin() -> Self {
        let signal = SigSet::from(Signal::SIGTTOU);
        Self(signal.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

impl Drop for Calm {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // It can only fail for a mask that is none.
            let _ = before.thread_set_mask();
        }
    }
}

/// How a write ended.
struct End {
    written: usize,
    /// There was no room.
    stuck: bool,
}

fn write(fd: BorrowedFd<'_>, line: &[u8], patience_ms: u16) -> End {
    let mut written = 0;
    while written < line.len() {
        if !writable(fd, patience_ms) {
            return End {
                written,
                stuck: true,
            };
        }
        let end = line.len().min(written + PIPE_BUF);
        match nix::unistd::write(fd, &line[written..end]) {
            Ok(more @ 1..) => written += more,
            Err(Errno::EINTR) => {}
            Ok(0) | Err(_) => break,
        }
    }
    End {
        written,
        stuck: false,
    }
}

/// Takes away the last bytes that were written, unless somebody has written after them.
fn cut_off(mut file: &File, half: u64) -> io::Result<()> {
    let metadata = file.metadata()?;
    let end = file.stream_position()?;
    if !metadata.is_file() || metadata.len() != end || end < half {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    file.set_len(end - half)?;
    file.seek(SeekFrom::Start(end - half)).map(drop)
}

fn writable(fd: BorrowedFd<'_>, patience_ms: u16) -> bool {
    let mut poll = [PollFd::new(fd, PollFlags::POLLOUT)];
    nix::poll::poll(&mut poll, PollTimeout::from(patience_ms)).is_ok_and(|ready| ready > 0)
}

fn open(path: &Path) -> io::Result<File> {
    // A named pipe without a reader would be waited for (fifo(7)), and a full one too.
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NONBLOCK;
    Place::of(path, Trusted::here(), Directories::Anybodys)
        .and_then(|place| place.open(flags | OFlag::O_NOCTTY, 0o666))
        .map_err(|distrust| {
            let error = io::Error::from(distrust);
            let advice = match error.raw_os_error() {
                Some(libc::ENXIO) => "; nobody reads from this pipe: start its reader first",
                _ => "",
            };
            let said = format!("{}: {error}{advice}", path.display());
            io::Error::new(error.kind(), said)
        })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;

    use nix::sys::stat::Mode;

    use super::super::format::Format;
    use super::*;

    /// A log that is a named pipe, and its reader, which reads nothing by itself.
    fn named_pipe(path: PathBuf) -> (Sink, File) {
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains("nobody reads from this pipe"), "{error}");
        let reader = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let file = open(&path).unwrap();
        let lines = Lines {
            format: Format::Text,
            for_journal: false,
            color: false,
        };
        (Sink::new(Target::File { path, file }, lines), reader)
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let (mut sink, mut reader) = named_pipe(directory.path().join("log"));
        for number in 0..5000 {
            sink.write_line(format!("{number:0100}\n").as_bytes(), Origin::Own);
        }
        assert!(sink.kept_bytes <= MOST_KEPT && sink.lost > 0);
        let mut text = Vec::new();
        while !sink.kept.is_empty() {
            let _ = reader.read_to_end(&mut text);
            sink.catch_up();
        }
        let _ = reader.read_to_end(&mut text);
        let text = String::from_utf8(text).unwrap();
        let written = text.lines().map(|line| line.parse::<u64>().unwrap());
        assert!(
            written.eq(0..5000 - sink.lost),
            "one is missing, or not in its place"
        );
    }

    #[test]
    fn a_pipe_for_a_log_is_never_waited_for_and_keeps_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let (mut sink, mut reader) = named_pipe(directory.path().join("log"));
        let line = [vec![b'x'; 3 * PIPE_BUF], b"\n".to_vec()].concat();
        for _ in 0..100 {
            sink.write_line(&line, Origin::Worker);
        }
        assert!(sink.lost > 0);
        let told = sink.lost;
        sink.write_line(b"what is said of it\n", Origin::Own);
        sink.write_line(&line, Origin::Worker);
        assert_eq!(sink.lost, told + 1);
        // It comes to itself: what comes now begins a line of its own.
        let mut text = Vec::new();
        let _ = reader.read_to_end(&mut text);
        sink.write_line(b"again\n", Origin::Worker);
        let _ = reader.read_to_end(&mut text);
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("\nwhat is said of it\nprefork: "),
            "{}",
            &text[text.len() - 200..]
        );
        assert!(text.ends_with("slow\nagain\n"));
    }
}
