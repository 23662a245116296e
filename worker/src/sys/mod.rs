//! The only place with unsafe code.
#![allow(unsafe_code)]

mod program;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, Signal, signal};
use prefork_proto::channel::WorkerEnd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(crate) use program::{Image, claim, end_by, inode, spawn_program};

/// What the monotonic clock shows, in nanoseconds (clock_gettime(2)).
#[inline]
pub(crate) fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes to the one struct that it is given, and this clock is
    // there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Registers the channel with the runtime, which tells when it can be read.
pub(crate) fn watch(channel: WorkerEnd) -> io::Result<AsyncFd<WorkerEnd>> {
    // SAFETY: `Channel::as_raw_fd` is the descriptor of an `OwnedFd` that the
    // channel keeps until it is dropped, and which `Channel` has no call to
    // replace; the link hands out no `&mut` to it with which one could.
    Ok(unsafe { AsyncFd::register_with_interest(channel, Interest::READABLE) }?)
}

/// Registers a descriptor with the runtime, which tells when it has something:
/// a listening socket a connection, a timer its end.
pub(crate) fn watch_readable(watched: BorrowedFd<'_>) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    // SAFETY: a `BorrowedFd` is open for as long as it lives and never changes
    // its number.
    Ok(unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }?)
}

/// The same of a descriptor that is kept.
pub(crate) fn watch_owned(watched: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives and never changes its number;
    // who holds the `AsyncFd` takes no `&mut` to it.
    Ok(unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }?)
}

/// A second descriptor, close-on-exec, of one that is open.
///
/// # Safety
/// The number is not negative, and nobody closes what it stands for meanwhile.
///
/// # Errors
/// EMFILE, as fcntl(2) says; EBADF where it is not open.
pub(crate) unsafe fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    debug_assert!(fd >= 0, "-1 is no descriptor");
    // SAFETY: the caller keeps `fd` open for the length of this call.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}

/// Makes a write to a pipe or socket without a reader fail instead of ending
/// the process.
///
/// # Errors
/// As signal(2) says.
pub(crate) fn ignore_broken_pipes() -> nix::Result<()> {
    // SAFETY: nothing of ours runs in the signal's place.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }?;
    Ok(())
}

/// Whether this process is to be killed when its parent ends.
///
/// # Errors
/// As PR_SET_PDEATHSIG(2const) says.
pub(crate) fn end_with_parent(so: bool) -> io::Result<()> {
    Ok(set_pdeathsig(so.then_some(Signal::SIGKILL))?)
}

/// Bytes that a socket has taken and its peer has not: SIOCOUTQ of tcp(7) and
/// unix(7); 0 where that can't be told.
pub(crate) fn waits_to_be_sent(socket: RawFd) -> u64 {
    let mut waits: libc::c_int = 0;
    // SAFETY: the kernel writes one int, to which this is a pointer; on what is
    // no open socket it fails.
    let result = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut waits) };
    match result {
        0 => u64::try_from(waits).unwrap_or(0),
        _ => 0,
    }
}

/// Bytes that have come on a socket and were not read: FIONREAD; 0 where that
/// can't be told.
pub(crate) fn waits_to_be_read(socket: RawFd) -> u64 {
    let mut waits: libc::c_int = 0;
    // SAFETY: the kernel writes one int, to which this is a pointer; on what is
    // no open socket it fails.
    let result = unsafe { libc::ioctl(socket, libc::FIONREAD, &raw mut waits) };
    match result {
        0 => u64::try_from(waits).unwrap_or(0),
        _ => 0,
    }
}

/// Has a socket drop what its peer has not taken when it is closed, and reset its
/// connection (SO_LINGER with no time, socket(7)).
pub(crate) fn reset_when_closed(socket: RawFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the kernel only reads, during the call, the one struct that it is given; on
    // what is no open socket it fails.
    let _ = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
}

/// Has the allocator give what it keeps and does not use back to the system.
pub(crate) fn give_memory_back() {
    // SAFETY: it takes the allocator's own locks; what is in use stays as it is.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::malloc_trim(0) };
}
