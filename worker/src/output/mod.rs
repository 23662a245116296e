//! Standard output and standard error: pipes to a supervisor that may go away.
//!
//! A worker holds the reading ends of its own pipes, so that no write fails when
//! the supervisor goes; the `keeper` sees to it that none waits for ever either.

mod keeper;
pub(crate) mod rate_limit;

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub(crate) use keeper::{End, Keeper};

/// What a pipe that is not full takes without making anyone wait, `PIPE_BUF`
/// (pipe(7)).
const ATOMIC: usize = 4096;

/// Writes one line for people to stderr, or drops it where writing would block: the
/// serving loop must not wait for a supervisor, and `eprintln!` does. Of a longer line
/// the first 4,096 bytes are written.
///
/// ```
/// prefork_worker::say(format_args!("the cache is cold: {} entries", 0));
/// ```
pub fn say(line: fmt::Arguments<'_>) {
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

/// What poll(2) says of an output now: nothing where a write would wait.
fn events(output: &impl AsFd) -> Option<PollFlags> {
    let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
    poll(&mut ready, PollTimeout::ZERO).ok()?;
    ready[0].revents()
}
