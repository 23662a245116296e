//! Starts the adapter's program, and ends as it has ended.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use nix::fcntl::{AtFlags, FcntlArg, fcntl};
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, execve, execveat, fork, getppid};
use prefork_proto::alone::is_alone;

/// The first descriptor that the program inherits beside its output.
const FIRST_FD: RawFd = 3;

/// What is executed.
pub(crate) struct Image<'a> {
    /// The executable; takes precedence over `path`.
    pub(crate) pinned: Option<BorrowedFd<'a>>,
    /// Its path.
    pub(crate) path: &'a CStr,
    /// The argument vector.
    pub(crate) argv: &'a [CString],
    /// The environment; LISTEN_PID is added to it.
    pub(crate) envp: Vec<CString>,
    /// What it inherits, from descriptor 3 on.
    pub(crate) fds: &'a [BorrowedFd<'a>],
}

/// Takes over a descriptor that the supervisor has passed.
///
/// # Safety
/// It is open, and has no other owner.
pub(crate) unsafe fn claim(number: RawFd) -> OwnedFd {
    // SAFETY: by this function's contract.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// The inode of an open file.
///
/// # Errors
/// As fstat(2) says.
pub(crate) fn inode(fd: &OwnedFd) -> io::Result<u64> {
    Ok(File::from(fd.try_clone()?).metadata()?.ino())
}

/// Starts a child that ends with this process and becomes `image`. One that can't says
/// why on stderr and exits with 127.
///
/// # Errors
/// As fork(2) says; EDEADLK where another thread runs, whose locks the child would have.
pub(crate) fn spawn_program(image: Image<'_>) -> nix::Result<Pid> {
    let parent = Pid::this();
    if !is_alone().unwrap_or(false) {
        return Err(nix::Error::EDEADLK);
    }
    // SAFETY: this is the only thread, so that the child sees a consistent heap. The child
    // never returns from here.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let path = image.path.to_string_lossy().into_owned();
            let Err(errno) = become_program(image, parent);
            crate::output::say(format_args!(
                "prefork: cannot start {path}: {}",
                errno.desc()
            ));
            // SAFETY: `_exit` runs no handlers of the parent's.
            unsafe { libc::_exit(127) }
        }
    }
}

fn become_program(
    mut image: Image<'_>,
    parent: Pid,
) -> Result<std::convert::Infallible, nix::Error> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        // It had ended before.
        return Err(nix::Error::ESRCH);
    }
    // SAFETY: the default action is no handler, so nothing can run here.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    let above = FIRST_FD + RawFd::try_from(image.fds.len()).map_err(|_| nix::Error::EMFILE)?;
    // They could sit where others have to go.
    let high = |fd: &BorrowedFd<'_>| {
        let high = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(above))?;
        // SAFETY: fcntl has just made this descriptor; nobody else knows it.
        Ok::<_, nix::Error>(unsafe { claim(high) })
    };
    let pinned = image.pinned.as_ref().map(high).transpose()?;
    let fds = image.fds.iter().map(high).collect::<Result<Vec<_>, _>>()?;
    for (number, fd) in (FIRST_FD..).zip(&fds) {
        // SAFETY: both are plain numbers to the kernel, and this process is about to
        // exec and drops no owner of the descriptor that `number` may have been.
        nix::Error::result(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    }
    // SAFETY: sets flags only; no descriptor is closed here.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            above,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    nix::Error::result(marked)?;
    let own = CString::new(format!("LISTEN_PID={}", Pid::this()));
    image.envp.extend(own.ok());
    match &pinned {
        Some(fd) => execveat(fd, c"", image.argv, &image.envp, AtFlags::AT_EMPTY_PATH),
        None => execve(image.path, image.argv, &image.envp),
    }
}

/// Ends this process by a signal, as its program was ended.
pub(crate) fn end_by(number: i32) -> ! {
    // The program has left a core dump, if one was wanted.
    let _ = set_dumpable(false);
    if let Ok(wanted) = Signal::try_from(number) {
        // SAFETY: the default action is no handler, so nothing can run here; SIGKILL
        // has no other.
        let _ = unsafe { signal(wanted, SigHandler::SigDfl) };
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
        let _ = nix::sys::signal::kill(Pid::this(), wanted);
    }
    // One that does not end a process by default can't have ended the program: what the
    // shell says of it.
    std::process::exit(128 + number)
}
