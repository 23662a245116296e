//! Signals with who sent them. A handler notes each in memory and wakes the
//! loop by a byte in a pipe: signals of one kind that wait are one, as they are to
//! the kernel, and none is lost to others.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// More than there are signals with a name.
const MOST: usize = 32;

/// Something waits in a cell.
const PRESENT: u64 = 1 << 63;

/// The kernel sent it, and not a process by kill(2).
const OF_KERNEL: u64 = 1 << 62;

/// What waits to be heard, by the signal's number.
static CELLS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// The pipe's writing end, which is never closed; -1 until there is one.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// The reading end that is duplicated for each listener.
static WOKEN: AtomicI32 = AtomicI32::new(-1);

/// The process whose signals these are: a child that has not become its program
/// yet has the same handlers, and the same pipe.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// A signal that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caught {
    /// Which.
    pub(crate) signal: Signal,
    /// The process that sent it by kill(2) or its like; none where the kernel did,
    /// as it does for a terminal.
    pub(crate) sender: Option<i32>,
}

extern "C" fn note(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // Only what signal-safety(7) allows: system calls and atomics.
    let before = Errno::last_raw();
    let is_ours = nix::unistd::getpid().as_raw() == OWNER.load(Ordering::Relaxed);
    let cell = usize::try_from(signal).ok().and_then(|at| CELLS.get(at));
    if let (true, Some(cell)) = (is_ours, cell) {
        // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo, and of the
        // codes that are not positive all have the sender's process id.
        let sender = unsafe { ((*info).si_code <= 0).then(|| (*info).si_pid()) };
        match sender {
            Some(pid) => cell.store(PRESENT | u64::from(pid.unsigned_abs()), Ordering::SeqCst),
            // What somebody asks for goes before what the kernel tells.
            None => {
                let empty = (0, PRESENT | OF_KERNEL);
                let _ = cell.compare_exchange(empty.0, empty.1, Ordering::SeqCst, Ordering::SeqCst);
            }
        }
        // A full pipe wakes the loop as well.
        // SAFETY: one byte of a live buffer; the descriptor is never closed.
        unsafe { libc::write(WAKE.load(Ordering::SeqCst), [0_u8].as_ptr().cast(), 1) };
    }
    Errno::set_raw(before);
}

/// Takes what has come of this signal.
pub(crate) fn take(signal: Signal) -> Option<Caught> {
    let cell = CELLS.get(signal as usize)?;
    let held = cell.swap(0, Ordering::SeqCst);
    (held & PRESENT != 0).then(|| Caught {
        signal,
        sender: (held & OF_KERNEL == 0).then_some((held & u64::from(u32::MAX)) as i32),
    })
}

/// Notes these signals from now on; gives what becomes readable when one has come.
pub(crate) fn listen(signals: impl IntoIterator<Item = Signal>) -> io::Result<AsyncFd<OwnedFd>> {
    OWNER.store(nix::unistd::getpid().as_raw(), Ordering::SeqCst);
    if WAKE.load(Ordering::SeqCst) < 0 {
        let (woken, wake) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        WOKEN.store(woken.into_raw_fd(), Ordering::SeqCst);
        WAKE.store(wake.into_raw_fd(), Ordering::SeqCst);
    }
    let action = SigAction::new(
        SigHandler::SigAction(note),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in signals {
        // SAFETY: the handler does only what a handler may.
        unsafe { sigaction(signal, &action) }?;
    }
    // SAFETY: it was made above, and is never closed.
    let woken = unsafe { std::os::fd::BorrowedFd::borrow_raw(WOKEN.load(Ordering::SeqCst)) };
    crate::kernel::sys::watch_fd(woken.try_clone_to_owned()?)
}

/// Waits until a signal has come.
pub(crate) async fn woken(listening: &AsyncFd<OwnedFd>) {
    crate::kernel::sys::readable(listening).await;
    let mut bytes = [0; 64];
    let read = |fd: &OwnedFd| nix::unistd::read(fd, &mut bytes).map_err(io::Error::from);
    let mut read = read;
    while listening
        .try_io(Interest::READABLE, &mut read)
        .is_ok_and(|got| got > 0)
    {}
}

/// Whether this process was started with the signal ignored.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    // SAFETY: plain data for which all-zero is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action nothing changes; the old one is written to a
    // live value.
    let result = unsafe { libc::sigaction(signal as i32, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Makes a write beyond RLIMIT_FSIZE an error (EFBIG) instead of the end of this
/// process. It is handled and not ignored, since what is executed would inherit that.
pub(crate) fn outlive_file_limit() -> nix::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGXFSZ, &action) }.map(drop)
}

/// What is said of a configuration that is long in coming.
const LATE: &str = "prefork: reading the configuration takes longer than a second: a directory service that \
    knows its users, or a file system that it lies on, does not answer; waiting for it\n";

/// As long as there is one, it is about to be said.
#[derive(Debug)]
pub(crate) struct SaidIfLate(());

/// Says on stderr what is waited for, if the configuration is not read within a second.
/// There is no loop yet, and no thread beside this one: the kernel's clock has to do.
pub(crate) fn say_if_late() -> nix::Result<SaidIfLate> {
    extern "C" fn say(_: libc::c_int) {
        // Only what signal-safety(7) allows.
        let before = Errno::last_raw();
        // SAFETY: so many bytes are there, and for ever.
        unsafe { libc::write(libc::STDERR_FILENO, LATE.as_ptr().cast(), LATE.len()) };
        Errno::set_raw(before);
    }
    let action = SigAction::new(
        SigHandler::Handler(say),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: the handler does only what a handler may.
    unsafe { sigaction(Signal::SIGALRM, &action) }?;
    nix::unistd::alarm::set(1);
    Ok(SaidIfLate(()))
}

impl Drop for SaidIfLate {
    fn drop(&mut self) {
        nix::unistd::alarm::cancel();
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler is installed. One that is there does no harm.
        let _ = unsafe { sigaction(Signal::SIGALRM, &default) };
    }
}
