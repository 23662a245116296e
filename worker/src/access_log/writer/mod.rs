//! The queue of lines and the thread that writes them: the serving thread never
//! waits for a disk or a reader.

mod whole;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::oneshot;
use whole::Whole;

/// The most that waits to be written, in bytes; lines that come then are dropped.
const MOST: usize = 1 << 20;

/// How long lines are gathered before they are written, unless there are this
/// many bytes of them.
const GATHER: Duration = Duration::from_millis(20);
const ENOUGH: usize = 64 * 1024;

/// What a pipe takes whole, `PIPE_BUF` (pipe(7)).
const PIPE: usize = 4096;

/// How long to wait for a reader before looking whether it still matters.
const LOOK_MS: u16 = 100;

/// The thread's stack, in bytes.
const STACK: usize = 64 * 1024;

/// The way of lines to a file.
#[derive(Debug, Default)]
pub(super) struct Writer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: Vec<u8>,
    output: Option<Arc<Output>>,
    dropped: u64,
    /// Whether the thread is there.
    is_served: bool,
    /// Told when all that came before them is written.
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Output {
    file: File,
    /// The most that several writers may write at once without mixing lines.
    most: usize,
    /// How a regular file is kept to whole lines.
    whole: Option<Whole>,
}

impl Writer {
    /// Starts the thread, which ends with the process.
    fn start(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .stack_size(STACK)
            .spawn(move || shared.write_for_ever())?;
        Ok(())
    }

    /// Queues a line, or drops it where there is no room. The thread begins with
    /// the first one: by then the process has given up the rights that it does
    /// not need, and a thread that was there before would have kept them.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = self.0.lock();
        if !queue.is_served && self.start().is_err() {
            queue.dropped += 1;
            return;
        }
        queue.is_served = true;
        let before = queue.lines.len();
        let after = before + line.len();
        if after > MOST {
            queue.dropped += 1;
            return;
        }
        queue.lines.extend_from_slice(line);
        drop(queue);
        if before == 0 || (before < ENOUGH && after >= ENOUGH) {
            self.0.changed.notify_one();
        }
    }

    /// Writes to another file from now on. What comes back tells when the one
    /// before is done with and closed.
    pub(super) fn switch(&self, file: File) -> io::Result<oneshot::Receiver<()>> {
        let kind = file.metadata()?.file_type();
        // Appending to a file is one step however much it is.
        let most = if kind.is_file() { usize::MAX } else { PIPE };
        let whole = kind.is_file().then(Whole::default);
        self.0.lock().output = Some(Arc::new(Output { file, most, whole }));
        Ok(self.written())
    }

    /// Tells when all that was queued is written or lost.
    pub(super) fn written(&self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mut queue = self.0.lock();
        if queue.is_served {
            queue.waiting.push(tell);
            self.0.changed.notify_one();
        } else {
            // There was no line so far.
            let _ = tell.send(());
        }
        drop(queue);
        told
    }

    /// Lines that are lost.
    pub(super) fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing is left half done under it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_for_ever(&self) {
        loop {
            let (lines, output, waiting) = self.next();
            let lost = match output {
                Some(output) => self.write(&lines, &output),
                None => lines.len(),
            };
            self.lock().dropped += count(&lines[lines.len() - lost..]);
            for tell in waiting {
                // It may have given up.
                let _ = tell.send(());
            }
        }
    }

    /// Waits until something is to be done, and a little longer for more of it.
    fn next(&self) -> (Vec<u8>, Option<Arc<Output>>, Vec<oneshot::Sender<()>>) {
        let idle = |queue: &mut Queue| queue.lines.is_empty() && queue.waiting.is_empty();
        let little = |queue: &mut Queue| queue.lines.len() < ENOUGH && queue.waiting.is_empty();
        let queue = self.changed.wait_while(self.lock(), idle);
        let queue = queue.unwrap_or_else(PoisonError::into_inner);
        let gathered = self.changed.wait_timeout_while(queue, GATHER, little);
        let (mut queue, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut queue.lines);
        let waiting = std::mem::take(&mut queue.waiting);
        (lines, queue.output.clone(), waiting)
    }

    /// Writes whole lines; how many bytes at their end could not be written.
    fn write(&self, lines: &[u8], output: &Arc<Output>) -> usize {
        if let Some(whole) = &output.whole {
            return whole.append(&output.file, lines);
        }
        let mut left = lines;
        while !left.is_empty() {
            let part = whole_lines(left, output.most);
            match (&output.file).write(part) {
                Ok(0) => break,
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.waits_for(output) {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        left.len()
    }

    /// Waits for room in a pipe; false when another file has taken its place.
    fn waits_for(&self, output: &Arc<Output>) -> bool {
        let mut room = [PollFd::new(output.file.as_fd(), PollFlags::POLLOUT)];
        let _ = poll(&mut room, PollTimeout::from(LOOK_MS));
        let current = self.lock().output.clone();
        current.is_some_and(|current| Arc::ptr_eq(&current, output))
    }
}

/// As many whole lines as fit, and at least one.
fn whole_lines(lines: &[u8], most: usize) -> &[u8] {
    if lines.len() <= most {
        return lines;
    }
    let newline = |byte: &u8| *byte == b'\n';
    let fits = lines[..most].iter().rposition(newline);
    let end = fits.or_else(|| lines.iter().position(newline));
    end.map_or(lines, |end| &lines[..=end])
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use std::io::Read;

    #[test]
    fn parts_end_with_a_line() {
        assert_eq!(whole_lines(b"ab\ncd\nef\n", 100), b"ab\ncd\nef\n");
        assert_eq!(whole_lines(b"ab\ncd\nef\n", 8), b"ab\ncd\n");
        assert_eq!(whole_lines(b"ab\ncd\n", 3), b"ab\n");
        assert_eq!(whole_lines(b"abcdef\ngh\n", 3), b"abcdef\n");
    }

    #[test]
    fn a_reader_that_has_stopped_costs_lines_and_nothing_else() {
        let (mut reader, pipe) = io::pipe().unwrap();
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let writer = Writer::default();
        let pipe = std::os::fd::OwnedFd::from(pipe);
        drop(writer.switch(pipe.into()).unwrap());
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        let pushed = 4_000;
        for _ in 0..pushed {
            writer.push(&line);
        }
        let dropped = writer.dropped();
        assert!(dropped > 0, "4 MB don't fit");
        // Another file: nothing more is owed to the pipe.
        let file = tempfile::tempfile().unwrap();
        let told = writer.switch(file.try_clone().unwrap()).unwrap();
        told.blocking_recv().unwrap();
        writer.written().blocking_recv().unwrap();
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        let written = file.metadata().unwrap().len();
        let lines = (got.len() as u64).div_ceil(1000) + written / 1000 + writer.dropped();
        assert!((pushed - 1..=pushed + 1).contains(&lines), "{lines}");
        assert_eq!(written % 1000, 0);
    }
}
