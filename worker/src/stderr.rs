//! Lines for people, on stderr.

use std::fmt;
use std::io::Write;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Writes one line, or drops it where writing would block: stderr is a pipe
/// to the supervisor, and the serving loop must not wait for a supervisor.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let stderr = std::io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let writable = matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1))
        && ready[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLOUT));
    if writable {
        // One write, so that lines of several threads don't mix. Where stderr
        // is gone there is no one to tell.
        let _ = stderr.lock().write_all(format!("{line}\n").as_bytes());
    }
}
