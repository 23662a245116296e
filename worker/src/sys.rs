//! The only place with unsafe code.
#![allow(unsafe_code)]

use std::io;

use prefork_proto::channel::WorkerEnd;
use tokio::io::unix::AsyncFd;

/// Registers the channel with the runtime, which tells when it can be read or written.
pub(crate) fn watch(channel: WorkerEnd) -> io::Result<AsyncFd<WorkerEnd>> {
    // SAFETY: `Channel::as_raw_fd` is the descriptor of an `OwnedFd` that the
    // channel keeps until it is dropped, and which `Channel` has no call to
    // replace; the link hands out no `&mut` to it with which one could.
    Ok(unsafe { AsyncFd::register(channel) }?)
}
