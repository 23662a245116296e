//! Standard output and standard error: pipes to a supervisor that may go away.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{dup2_stderr, dup2_stdout};
use prefork_proto::message::OutputStream;
use tokio::time::{Instant, sleep};

/// What a pipe that is not full takes without making anyone wait, `PIPE_BUF`
/// (pipe(7)).
const ATOMIC: usize = 4096;

/// The readers of a process that ends go one after the other: the channel may be
/// seen to end a little before the pipes do.
const ENDING: Duration = Duration::from_secs(1);

/// How often to look whether they have.
const LOOK: Duration = Duration::from_millis(10);

/// Whether stdout and stderr are /dev/null because their reader has gone. Like
/// the descriptors themselves, these belong to the process.
static STDOUT_LOST: AtomicBool = AtomicBool::new(false);
static STDERR_LOST: AtomicBool = AtomicBool::new(false);

/// Writes one line for people to stderr, or drops it where writing would
/// block: the serving loop must not wait for a supervisor.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let mut line = line.to_string();
    if line.len() >= ATOMIC {
        let end = (0..ATOMIC).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
    }
    line.push('\n');
    let stderr = io::stderr();
    if events(&stderr).is_some_and(|events| events.contains(PollFlags::POLLOUT)) {
        // One write, so that lines of several threads don't mix. Where stderr
        // is gone there is no one to tell.
        let _ = stderr.lock().write_all(line.as_bytes());
    }
}

/// Puts /dev/null in the place of outputs whose reader has gone with the
/// supervisor: `println!` and `eprintln!` panic where they can't write.
pub(crate) async fn let_go_of_unread_output() {
    let end = Instant::now() + ENDING;
    while Instant::now() < end {
        // Where /dev/null can't be opened, the next look may have more luck.
        let _ = replace_unread();
        sleep(LOOK).await;
    }
}

fn replace_unread() -> io::Result<()> {
    if is_unread(&io::stdout()) {
        dup2_stdout(nothing()?)?;
        STDOUT_LOST.store(true, Ordering::Relaxed);
    }
    if is_unread(&io::stderr()) {
        dup2_stderr(nothing()?)?;
        STDERR_LOST.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Prints to the next supervisor's pipe from now on, if the reader of the last
/// one has gone. An output that leads elsewhere stays as the application set it.
pub(crate) fn print_to(stream: OutputStream, pipe: OwnedFd) -> io::Result<()> {
    match stream {
        OutputStream::Stdout if is_lost(&io::stdout(), &STDOUT_LOST) => dup2_stdout(pipe)?,
        OutputStream::Stderr if is_lost(&io::stderr(), &STDERR_LOST) => dup2_stderr(pipe)?,
        OutputStream::Stdout | OutputStream::Stderr => {}
    }
    Ok(())
}

/// Whether an output has lost its reader; it is about to have another.
fn is_lost(output: &impl AsFd, lost: &AtomicBool) -> bool {
    lost.swap(false, Ordering::Relaxed) || is_unread(output)
}

fn nothing() -> io::Result<File> {
    File::options().write(true).open("/dev/null")
}

fn is_unread(output: &impl AsFd) -> bool {
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
    events(output).is_some_and(|events| events.intersects(gone))
}

/// What poll(2) says of an output now.
fn events(output: &impl AsFd) -> Option<PollFlags> {
    let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut ready, PollTimeout::ZERO) {
        Ok(1) => ready[0].revents(),
        _ => None,
    }
}
