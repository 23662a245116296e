//! How a worker comes by its end of the channel.

use std::env;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockType, UnixAddr, getsockname, getsockopt, sockopt};

use super::WorkerEnd;
use crate::error::{ChannelError, EnvironmentProblem};
use crate::message::{CHANNEL_FD_ENV, INHERITED_ENV};
use crate::sys;

/// Whether this process has taken its channel. The variable itself stays: an
/// environment cannot be changed safely once there may be other threads.
static TAKEN: AtomicBool = AtomicBool::new(false);

impl WorkerEnd {
    /// Takes the channel that this process was started with, and makes it
    /// close-on-exec. `None` if no supervisor started it: the program runs alone.
    ///
    /// # Errors
    /// [`ChannelError::Environment`] if `PREFORK_CHANNEL_FD` names something
    /// else than an open unix stream socket; [`ChannelError::AlreadyTaken`] the
    /// second time.
    pub fn from_env() -> Result<Option<Self>, ChannelError> {
        let Some(value) = env::var_os(CHANNEL_FD_ENV) else {
            return Ok(None);
        };
        if TAKEN.load(Ordering::Acquire) {
            return Err(ChannelError::AlreadyTaken);
        }
        let value = value.to_string_lossy();
        let fd = inherited(&value).map_err(|problem| ChannelError::Environment {
            value: value.into_owned(),
            problem,
        })?;
        let others = handed_down().map_err(|problem| ChannelError::Environment {
            value: fd.to_string(),
            problem,
        })?;
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Err(ChannelError::AlreadyTaken);
        }
        // SAFETY: they are open, and nobody else has come this far.
        #[expect(unsafe_code, reason = "whom they belong to is known here alone")]
        let adopt = |fd| unsafe { sys::adopt(fd) };
        let mut channel = Self::new(adopt(fd));
        channel.inherited = others.map(adopt).collect();
        Ok(Some(channel))
    }
}

/// The numbers that this process was born with besides, made close-on-exec.
fn handed_down() -> Result<RangeInclusive<RawFd>, EnvironmentProblem> {
    let Some(named) = env::var_os(INHERITED_ENV) else {
        return Ok(RangeInclusive::new(0, -1));
    };
    let named = named.to_str().and_then(|named| named.split_once('-'));
    let number = |text: &str| text.parse().ok().filter(|fd| *fd > libc::STDERR_FILENO);
    let range = named.and_then(|(first, last)| Some(number(first)?..=number(last)?));
    let range = range.ok_or(EnvironmentProblem::NotInherited)?;
    for fd in range.clone() {
        let close = |fd: BorrowedFd<'_>| fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        look_at(fd, close).map_err(|_| EnvironmentProblem::NotInherited)?;
    }
    Ok(range)
}

/// Looks at what the supervisor has left at this number.
fn look_at<T>(fd: RawFd, look: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    // SAFETY: numbers of the environment are above 2, and what was left there has no owner
    // who could close it before this program has taken its channel.
    #[expect(unsafe_code, reason = "what the environment names is known here alone")]
    unsafe {
        sys::with_inherited(fd, look)
    }
}

/// The number of a descriptor that is fit to be a channel.
fn inherited(value: &str) -> Result<RawFd, EnvironmentProblem> {
    let number = value
        .parse()
        .ok()
        .filter(|number| *number > libc::STDERR_FILENO);
    let fd: RawFd = number.ok_or(EnvironmentProblem::NotANumber)?;
    look_at(fd, examine)?;
    Ok(fd)
}

fn examine(fd: BorrowedFd<'_>) -> Result<(), EnvironmentProblem> {
    fcntl(fd, FcntlArg::F_GETFD).map_err(|_| EnvironmentProblem::NotOpen)?;
    let unix = getsockname::<UnixAddr>(fd.as_raw_fd()).is_ok();
    let stream = getsockopt(&fd, sockopt::SockType) == Ok(SockType::Stream);
    if !(unix && stream) {
        return Err(EnvironmentProblem::NotAUnixStream);
    }
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|_| EnvironmentProblem::NotCloseOnExec)?;
    Ok(())
}
