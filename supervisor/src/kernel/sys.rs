//! The only unsafe code of this crate: fork and exec, pidfds, reaping, and
//! what the kernel tells of a socket.

#![allow(unsafe_code)]

mod credentials;
mod left;
mod packet;
mod probes;
mod shared_word;
pub(crate) mod signals;
pub(crate) mod terminal;

use std::ffi::{CStr, CString};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sched::CpuSet;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal};
use nix::unistd::{ForkResult, Pid};
use prefork_proto::adapter::PROGRAM_FD;
use prefork_proto::alone::is_alone;
use prefork_proto::channel::SupervisorEnd;
use prefork_proto::message::INHERITED_ENV;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel::procfs;
use crate::kernel::procfs::kin::{self, MARK_ENV};

pub(crate) use credentials::{Start, Terms, drop_capabilities, least_nice};
pub(crate) use left::{claim, note_left};
pub(crate) use packet::receive_packet;
pub(crate) use probes::{Probed, probe};
pub(crate) use shared_word::SharedWord;

/// More than NGROUPS_MAX (65536, limits.h) is nothing the kernel can say.
const MOST_GROUPS: usize = 65_536;

/// The number that a worker's channel has in the worker.
pub(crate) const CHANNEL_FD: RawFd = 3;

/// The first number of what a worker is born with beside all that.
pub(crate) const INHERITED_FD: RawFd = PROGRAM_FD + 1;

/// The last step of becoming a worker.
const EXEC: &str = "exec";

/// What a child is born with, apart from what it executes.
pub(crate) struct Birth<'a> {
    /// Becomes descriptor 0.
    pub(crate) stdin: BorrowedFd<'a>,
    /// Becomes descriptor 1.
    pub(crate) stdout: BorrowedFd<'a>,
    /// Becomes descriptor 2.
    pub(crate) stderr: BorrowedFd<'a>,
    /// Becomes descriptor [`CHANNEL_FD`].
    pub(crate) channel: BorrowedFd<'a>,
    /// Become the descriptors from [`INHERITED_FD`] on.
    pub(crate) inherited: &'a [BorrowedFd<'a>],
    /// Soft RLIMIT_NOFILE, unless the terms say otherwise; the hard limit stays.
    pub(crate) nofile: u64,
    /// Whom it runs as and with what.
    pub(crate) terms: &'a Terms,
    /// Where it starts; where the supervisor is without it.
    pub(crate) start: Option<Start<'a>>,
    /// Where it may run.
    pub(crate) cpus: Option<CpuSet>,
    /// Whether its descendants are to be known by their environment.
    pub(crate) mark: bool,
    /// Becomes descriptor [`PROGRAM_FD`], for an adapter that is to execute it.
    pub(crate) program: Option<BorrowedFd<'a>>,
}

/// What a child executes.
pub(crate) struct Image<'a> {
    /// The pinned executable; takes precedence over `path`.
    pub(crate) pinned: Option<BorrowedFd<'a>>,
    /// The path, for scripts, and for messages.
    pub(crate) path: &'a CStr,
    /// The argument vector.
    pub(crate) argv: &'a [CString],
    /// The environment, `NAME=value` each.
    pub(crate) envp: &'a [CString],
}

/// Forks a child that becomes `image`. That this is the process's only thread is what
/// lets the child allocate, since no lock can be held; where it is not, EDEADLK.
///
/// A child that can't get as far as its program says why on its stderr and
/// exits with 127.
pub(crate) fn spawn(birth: &Birth<'_>, image: &Image<'_>) -> nix::Result<Pid> {
    if !is_alone().unwrap_or(false) {
        return Err(nix::Error::EDEADLK);
    }
    // A signal that comes before the child has its own dispositions waits for
    // them, or the handlers of this process would take it.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: this is the only thread, so the child sees a consistent heap. The child
    // never returns from `become_worker`.
    let child = match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Child) => become_worker(birth, image),
        Ok(ForkResult::Parent { child }) => Ok(child),
        Err(errno) => Err(errno),
    };
    // It fails only for a mask that is none.
    let _ = before.thread_set_mask();
    child
}

fn become_worker(birth: &Birth<'_>, image: &Image<'_>) -> ! {
    let Err((step, errno)) = prepare(birth, image);
    let advice = match errno {
        _ if step != EXEC => "",
        nix::Error::ENOENT => "; a script's interpreter, or a program's loader, is missing",
        nix::Error::ENOEXEC => {
            "; it is no program for this machine, or a script that does not begin with `#!`"
        }
        nix::Error::ETXTBSY => {
            "; somebody has it open for writing: put a new program beside the old one and \
             rename it over that, as install(1) and mv(1) do, and never write into the file"
        }
        _ => "",
    };
    let message = format!(
        "prefork: cannot start {}: {step}: {}{advice}\n",
        image.path.to_string_lossy(),
        errno.desc()
    );
    // Descriptor 2 is the worker's stderr by now, or still the supervisor's if
    // not even that could be arranged: both end in the log.
    // SAFETY: descriptor 2 is open (the Rust runtime guarantees it at start).
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let _ = nix::unistd::write(stderr, message.as_bytes());
    // SAFETY: `_exit` runs no destructors and no atexit handlers, which belong
    // to the parent.
    unsafe { libc::_exit(127) }
}

/// Lets the supervisor and its descendants trace the worker (prctl(2), `PR_SET_PTRACER`)
/// where Yama lets only ancestors: who looks where a worker hangs is none.
fn be_looked_at_by_parent() {
    let parent = nix::unistd::getppid().as_raw();
    // SAFETY: takes numbers only. It fails where there is no Yama, which forbids nothing then.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, parent, 0, 0, 0) };
}

/// Turns the forked child into the worker; returns only what went wrong.
fn prepare(
    birth: &Birth<'_>,
    image: &Image<'_>,
) -> Result<std::convert::Infallible, (&'static str, nix::Error)> {
    let step = |name: &'static str| move |errno: nix::Error| (name, errno);

    // A session of its own: the terminal's Ctrl-C reaches the supervisor only.
    nix::unistd::setsid().map_err(step("setsid"))?;
    reset_signals().map_err(step("resetting signals"))?;
    be_looked_at_by_parent();

    // The pinned program could sit where the channel has to go.
    let first_free = INHERITED_FD + birth.inherited.len() as RawFd;
    let dup_high = |fd| dup_from(fd, first_free);
    let inherited: Vec<OwnedFd> = birth
        .inherited
        .iter()
        .map(|fd| dup_high(*fd))
        .collect::<Result<_, _>>()
        .map_err(step("keeping what it is to inherit"))?;
    let pinned = image.pinned.map(dup_high).transpose();
    let pinned = pinned.map_err(step("keeping the pinned program"))?;
    let directory = birth.start.map(|start| dup_high(start.directory));
    let directory = directory.transpose();
    let directory = directory.map_err(step("keeping its directory"))?;

    let program = birth.program.map(dup_high).transpose();
    let program = program.map_err(step("keeping its program"))?;

    place(birth.stdin, 0).map_err(step("stdin"))?;
    place(birth.stdout, 1).map_err(step("stdout"))?;
    place(birth.stderr, 2).map_err(step("stderr"))?;
    place(birth.channel, CHANNEL_FD).map_err(step("channel"))?;
    close_on_exec_from(CHANNEL_FD + 1).map_err(step("close_range"))?;
    if let Some(program) = &program {
        place(program.as_fd(), PROGRAM_FD).map_err(step("program"))?;
    }
    for (number, fd) in (INHERITED_FD..).zip(&inherited) {
        place(fd.as_fd(), number).map_err(step("what it inherits"))?;
    }

    limit_descriptors(birth.nofile).map_err(step("RLIMIT_NOFILE"))?;
    // While `/proc` is certainly ours to read.
    let environment = environment(birth, image.envp);
    let start = birth
        .start
        .zip(directory.as_ref())
        .map(|(start, kept)| Start {
            directory: kept.as_fd(),
            ..start
        });
    birth.terms.take_on(birth.cpus.as_ref(), start.as_ref())?;

    let image = Image {
        pinned: pinned.as_ref().map(AsFd::as_fd),
        envp: environment.as_deref().unwrap_or(image.envp),
        ..*image
    };
    execute(&image).map_err(step(EXEC))
}

/// The environment with what is this process's alone; none where nothing is.
fn environment(birth: &Birth<'_>, envp: &[CString]) -> Option<Vec<CString>> {
    let marked = birth.mark.then(|| marked(envp)).flatten();
    let count = birth.inherited.len();
    if count == 0 {
        return marked;
    }
    let mut envp = marked.unwrap_or_else(|| envp.to_vec());
    let last = INHERITED_FD as usize + count - 1;
    envp.extend(CString::new(format!("{INHERITED_ENV}={INHERITED_FD}-{last}")).ok());
    Some(envp)
}

/// The environment with this process's mark in it; none where there is no `/proc`.
fn marked(envp: &[CString]) -> Option<Vec<CString>> {
    let us = Pid::this();
    let start_ticks = procfs::stat(us).ok()?.start_ticks;
    let is_mark = |variable: &&CString| {
        let rest = variable.to_bytes().strip_prefix(MARK_ENV.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"="))
    };
    let before = envp.iter().find(is_mark).map(|it| it.as_c_str());
    let variable = kin::marked(before, &kin::mark(us.as_raw(), start_ticks));
    let others = envp.iter().filter(|it| !is_mark(it)).cloned();
    Some(others.chain(CString::new(variable).ok()).collect())
}

/// Exec keeps ignored signals and the mask; a worker starts with neither. What
/// has come for it meanwhile has its effect then.
fn reset_signals() -> nix::Result<()> {
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // SAFETY: the default action is no handler, so nothing can run here.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

fn limit_descriptors(soft: u64) -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)
}

fn dup_from(fd: BorrowedFd<'_>, first: RawFd) -> nix::Result<OwnedFd> {
    let fd = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(first))?;
    // SAFETY: fcntl has just made this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `fd` available as `number` across exec.
fn place(fd: BorrowedFd<'_>, number: RawFd) -> nix::Result<()> {
    if fd.as_raw_fd() == number {
        // dup2 onto itself would leave close-on-exec set.
        nix::fcntl::fcntl(
            fd,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )?;
        return Ok(());
    }
    // SAFETY: both are plain numbers to the kernel. This process is about to
    // exec and drops no owner of the descriptor that `number` may have been.
    nix::Error::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec, whoever opened it.
pub(crate) fn close_on_exec_from(first: RawFd) -> nix::Result<()> {
    // SAFETY: sets flags only; no descriptor is closed here.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    nix::Error::result(result).map(drop)
}

/// Lets these descriptors survive exec.
pub(crate) fn keep_on_exec(fds: &[RawFd]) -> nix::Result<()> {
    for fd in fds {
        // SAFETY: sets a flag only, and takes plain numbers.
        nix::Error::result(unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) })?;
    }
    Ok(())
}

/// Closes every descriptor from `first` on.
///
/// # Safety
/// Nobody in this program owns any of them.
pub(crate) unsafe fn close_from(first: RawFd) -> nix::Result<()> {
    // SAFETY: nobody owns what is closed here, by this function's contract.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    nix::Error::result(result).map(drop)
}

/// Becomes `image`. Returns only where that fails.
pub(crate) fn execute(image: &Image<'_>) -> nix::Result<std::convert::Infallible> {
    match image.pinned {
        Some(fd) => nix::unistd::execveat(
            fd,
            c"",
            image.argv,
            image.envp,
            nix::fcntl::AtFlags::AT_EMPTY_PATH,
        ),
        None => nix::unistd::execve(image.path, image.argv, image.envp),
    }
}

/// What a process was started with instead of stdin, stdout and stderr, at numbers of their
/// own and close-on-exec. To whoever looks at the process it prints to none of them.
pub(crate) fn take_standard_descriptors() -> io::Result<[OwnedFd; 3]> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    let take = |number: RawFd| -> nix::Result<OwnedFd> {
        // SAFETY: the Rust runtime has opened them at start where they were not.
        let taken = dup_from(unsafe { BorrowedFd::borrow_raw(number) }, INHERITED_FD)?;
        // SAFETY: both are plain numbers to the kernel, and `null` is open.
        nix::Error::result(unsafe { libc::dup2(null.as_raw_fd(), number) })?;
        Ok(taken)
    };
    Ok([take(0)?, take(1)?, take(2)?])
}

/// A descriptor for a process. Of a child that is not reaped yet the number
/// can't have been given to another; of any other process the caller has to
/// look again afterwards which one it is.
pub(crate) fn pidfd_open(child: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: takes numbers, returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    let fd = nix::Error::result(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_| nix::Error::EBADF)?;
    // SAFETY: the kernel has just made this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A duplicate of another process's descriptor, close-on-exec. Needs the right
/// to trace it (pidfd_getfd(2)).
pub(crate) fn pidfd_getfd(pidfd: impl AsFd, number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: takes numbers, returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0) };
    let fd = nix::Error::result(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_| nix::Error::EBADF)?;
    // SAFETY: the kernel has just made this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to exactly the process that the pidfd stands for.
pub(crate) fn pidfd_kill(pidfd: impl AsFd, signal: Signal) -> nix::Result<()> {
    // SAFETY: a null siginfo asks for what kill(2) would send.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    nix::Error::result(result).map(drop)
}

/// How a child ended, and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reaped {
    /// Its exit code, where it exited.
    pub(crate) code: Option<i32>,
    /// The signal, where one ended it.
    pub(crate) signal: Option<i32>,
    /// The most resident memory it had, in bytes.
    pub(crate) peak_memory_bytes: u64,
}

impl Reaped {
    /// From a status as wait(2) has it; what the process used is not in it.
    pub(crate) fn from_status(status: i32) -> Self {
        Self {
            code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
            signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
            peak_memory_bytes: 0,
        }
    }
}

/// How the process behind the pidfd ended, whoever reaped it: its status as
/// wait(2) has it (`PIDFD_GET_INFO`, include/uapi/linux/pidfd.h, Linux 6.15).
/// `None` until it has been reaped.
///
/// # Errors
/// ENOTTY or EINVAL from kernels that don't know the question.
pub(crate) fn pidfd_exit_status(pidfd: impl AsFd) -> nix::Result<Option<i32>> {
    /// `struct pidfd_info` in its first version: 64 bytes.
    #[repr(C)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        status: i32,
    }
    const EXIT: u64 = 1 << 3;
    const _: () = assert!(size_of::<Info>() == 64);
    let mut info = Info {
        mask: EXIT,
        cgroup: 0,
        ids: [0; 11],
        status: 0,
    };
    // As _IOWR has it: both directions, the size, the device's letter, a number.
    const REQUEST: libc::Ioctl =
        3 << 30 | (size_of::<Info>() as libc::Ioctl) << 16 | 0xff << 8 | 11;
    // SAFETY: the size is part of the request, and the kernel writes no more
    // than that to a live value of plain numbers.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), REQUEST, &raw mut info) };
    nix::Error::result(result)?;
    Ok((info.mask & EXIT != 0).then_some(info.status))
}

/// Reaps the child behind the pidfd. `None` while it still runs.
pub(crate) fn reap(pidfd: impl AsFd) -> nix::Result<Option<Reaped>> {
    // SAFETY: both are plain data for which all-zero is valid.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // waitid(2)'s fifth argument exists only in the system call.
    // SAFETY: both pointers are to live, writable, properly sized values.
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_fd().as_raw_fd(),
            &raw mut info,
            libc::WEXITED | libc::WNOHANG,
            &raw mut usage,
        )
    };
    nix::Error::result(result)?;
    // SAFETY: waitid has filled the SIGCHLD form, or left it zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let exited = info.si_code == libc::CLD_EXITED;
    Ok(Some(Reaped {
        code: exited.then_some(status),
        signal: (!exited).then_some(status),
        peak_memory_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }))
}

/// Depth and limit of a listening TCP socket's accept queue. For a listener,
/// tcp(7)'s `TCP_INFO` reports them as `tcpi_unacked` and `tcpi_sacked`.
pub(crate) fn accept_queue(listener: impl AsFd) -> nix::Result<(u64, u64)> {
    // SAFETY: plain data for which all-zero is valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to a live value of that size.
    let result = unsafe {
        libc::getsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    nix::Error::result(result)?;
    Ok((info.tcpi_unacked.into(), info.tcpi_sacked.into()))
}

/// The descriptors that the service manager passed, by name; the environment
/// says nothing of them afterwards. To be called before there is a thread.
pub(crate) fn take_listen_fds() -> io::Result<Vec<(String, OwnedFd)>> {
    // SAFETY: the process has one thread, so nobody reads the environment.
    let passed = unsafe { sd_notify::listen_fds_with_names_and_unset_env() }?;
    // SAFETY: they are open, or marking them close-on-exec would have failed,
    // and were meant for this process; the environment that names them is
    // gone, so nobody else takes them.
    Ok(passed
        .map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) }))
        .collect())
}

/// The supplementary groups that the peer of a unix socket had when it
/// connected (`SO_PEERGROUPS`, Linux 4.13).
pub(crate) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = (groups.len() * size_of::<libc::gid_t>()) as libc::socklen_t;
        // SAFETY: `groups` is writable for `bytes` bytes, and the kernel writes
        // at most that many; `bytes` lives through the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let needed = bytes as usize / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE comes with the size that is needed.
        if error.raw_os_error() != Some(libc::ERANGE)
            || needed <= groups.len()
            || needed > MOST_GROUPS
        {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

/// A descriptor for the process that connected to a unix socket, which stands for
/// that one even when its number is another's by now (`SO_PEERPIDFD`, Linux 6.5).
///
/// # Errors
/// ENOPROTOOPT from kernels without it, ESRCH where the process has been reaped.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    /// `asm-generic/socket.h`; libc has no name for it.
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut fd: RawFd = -1;
    let mut length = size_of::<RawFd>() as libc::socklen_t;
    // SAFETY: the kernel writes one number to a live value of that size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    nix::Error::result(result)?;
    // SAFETY: the kernel has just made this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has the event loop tell when a descriptor can be read, for instance when a
/// pidfd's process has ended.
pub(crate) fn watch_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open for as long as it lives and never changes its number.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Waits until there is something to read, or an error to see. `AsyncFd::readable`
/// does so as well, but takes a place in a list and leaves it each time: much for a
/// task that waits for several descriptors at once.
pub(crate) async fn readable<T: AsRawFd>(fd: &AsyncFd<T>) {
    // An error shows in the call that follows.
    poll_fn(|cx| fd.poll_read_ready(cx).map(drop)).await;
}

/// Has the event loop tell when a channel can be read. When it can be written it
/// does not tell: that would wake the loop each time a worker reads.
pub(crate) fn watch_channel(channel: SupervisorEnd) -> io::Result<AsyncFd<SupervisorEnd>> {
    // SAFETY: a channel owns its socket, keeps it open for as long as it lives
    // and never changes it for another.
    Ok(unsafe { AsyncFd::register_with_interest(channel, Interest::READABLE) }?)
}

/// Waits until nobody reads stdout any more: a pipe says so without being
/// written to (poll(2), POLLERR). A file or a terminal has a reader for ever.
pub(crate) async fn stdout_is_unread() {
    // SAFETY: as above; the value is the handle of a descriptor that is open
    // as long as the process lives, and dropping it closes nothing.
    let registered = unsafe { AsyncFd::register_with_interest(std::io::stdout(), Interest::ERROR) };
    match registered {
        Ok(stdout) => drop(stdout.ready(Interest::ERROR).await),
        // A regular file can't be waited for (epoll_ctl(2), EPERM).
        Err(_) => std::future::pending().await,
    }
}

/// Standard input, to be waited for beside everything else.
pub(crate) fn stdin_to_wait_for() -> io::Result<AsyncFd<std::io::Stdin>> {
    // SAFETY: as above: the descriptor is open as long as the process lives.
    unsafe { AsyncFd::register_with_interest(std::io::stdin(), Interest::READABLE) }
        .map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_pidfd_tells_how_its_process_ended_once_it_has_been_reaped() {
        let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_raw(child.id() as i32)).unwrap();
        let before = pidfd_exit_status(&pidfd);
        child.wait().unwrap();
        match before {
            Ok(told) => assert_eq!(told, None),
            Err(errno) => return eprintln!("SKIPPED: a pidfd's exit status: {errno}"),
        }
        let ended = pidfd_exit_status(&pidfd).unwrap().map(Reaped::from_status);
        let ended = ended.unwrap();
        assert_eq!((ended.code, ended.signal), (Some(7), None));
        let killed = Reaped::from_status(libc::SIGKILL);
        assert_eq!((killed.code, killed.signal), (None, Some(9)));
    }
}
