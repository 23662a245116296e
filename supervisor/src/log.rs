//! The supervisor's log: to stderr, stdout or a file that can be opened again, at a
//! level that can be changed while it runs.
//!
//! Writing must never block the event loop: a reader that has stopped costs
//! log lines, counted and told of later, and nothing else.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::trust::{Directories, Place, Trusted};

/// POSIX promises that a pipe which polls writable takes this much at once.
const PIPE_BUF: usize = 4096;

/// How long a line may wait for a slow reader, in milliseconds.
const PATIENCE_MS: u16 = 20;

/// The log of a running supervisor.
#[derive(Debug, Clone)]
pub struct Log {
    sink: Sink,
    level: reload::Handle<LevelFilter, Registry>,
}

impl Log {
    /// Starts logging: to the file, or to stderr where there is none.
    pub fn start(file: Option<&Path>) -> io::Result<Self> {
        let target = match file {
            // Not opened by name: a pipe may belong to another user, and a
            // socket can't be.
            Some(path) if path == Path::new("/dev/stdout") => Target::Stdout,
            None => Target::Stderr,
            Some(path) if path == Path::new("/dev/stderr") => Target::Stderr,
            Some(path) => Target::File {
                path: path.to_owned(),
                file: open(path)?,
            },
        };
        let is_terminal = match target {
            Target::Stdout => io::stdout().is_terminal(),
            Target::Stderr => io::stderr().is_terminal(),
            Target::File { .. } => false,
        };
        let color =
            is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let sink = Sink(Arc::new(Mutex::new(State {
            target,
            stuck: false,
            lost: 0,
        })));
        let (filter, level) = reload::Layer::new(LevelFilter::INFO);
        let format = tracing_subscriber::fmt::layer()
            .with_ansi(color)
            .with_target(false)
            .with_writer(sink.clone());
        tracing_subscriber::registry()
            .with(filter)
            .with(format)
            .try_init()
            .map_err(io::Error::other)?;
        Ok(Self { sink, level })
    }

    /// Changes what is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
        if !LEVELS.contains(&level) {
            return Err(format!(
                "unknown log level {level:?}; one of {}",
                LEVELS.join(", ")
            ));
        }
        let filter: LevelFilter = level.parse().map_err(|_| format!("bad level {level:?}"))?;
        self.level.reload(filter).map_err(|error| error.to_string())
    }

    /// What is logged, as [`Self::set_level`] takes it.
    pub fn level(&self) -> String {
        let level = self.level.with_current(ToString::to_string);
        level.unwrap_or_else(|_| LevelFilter::INFO.to_string())
    }

    /// Opens the log file again, after a rotation has renamed it. Stdout and stderr stay.
    pub fn reopen(&self) -> io::Result<()> {
        let mut state = self.sink.lock();
        if let Target::File { path, file } = &mut state.target {
            *file = open(path)?;
        }
        Ok(())
    }
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

#[derive(Debug, Clone)]
struct Sink(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    target: Target,
    /// The last line found no room: the next one doesn't wait.
    stuck: bool,
    lost: u64,
}

#[derive(Debug)]
enum Target {
    Stdout,
    Stderr,
    File { path: PathBuf, file: File },
}

impl Sink {
    fn lock(&self) -> MutexGuard<'_, State> {
        // One thread only; a panic inside leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write_line(&mut self, line: &[u8]) {
        if self.lost > 0 {
            let note = format!(
                "prefork: {} log lines were lost: the log's reader is too slow\n",
                self.lost
            );
            if !self.try_write(note.as_bytes()) {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if !self.try_write(line) {
            self.lost += 1;
        }
    }

    fn try_write(&mut self, line: &[u8]) -> bool {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let mut file: &File;
        let (fd, out): (BorrowedFd<'_>, &mut dyn Write) = match &mut self.target {
            Target::Stdout => (stdout.as_fd(), &mut stdout.lock()),
            Target::Stderr => (stderr.as_fd(), &mut stderr.lock()),
            // A regular file always polls writable.
            Target::File { file: open, .. } => {
                file = &*open;
                (file.as_fd(), &mut file)
            }
        };
        let patience = if self.stuck { 0 } else { PATIENCE_MS };
        for chunk in line.chunks(PIPE_BUF) {
            self.stuck = !writable(fd, patience);
            if self.stuck || out.write_all(chunk).is_err() {
                return false;
            }
        }
        true
    }
}

fn writable(fd: BorrowedFd<'_>, patience_ms: u16) -> bool {
    let mut poll = [PollFd::new(fd, PollFlags::POLLOUT)];
    nix::poll::poll(&mut poll, PollTimeout::from(patience_ms)).is_ok_and(|ready| ready > 0)
}

/// One formatted line on its way to the sink.
struct Line(Sink);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().write_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn a_pipe_for_a_log_is_never_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains("nobody reads from this pipe"), "{error}");

        // One that reads nothing is there.
        let _reader = File::options().read(true).write(true).open(&path).unwrap();
        let file = open(&path).unwrap();
        let mut state = State {
            target: Target::File { path, file },
            stuck: false,
            lost: 0,
        };
        for _ in 0..100 {
            state.write_line(&[b'x'; PIPE_BUF]);
        }
        assert!(state.lost > 0);
    }
}
