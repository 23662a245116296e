//! The only place with unsafe code.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Has all threads but the first allocate from one arena. Each that glibc makes keeps
/// its unused end, up to 2 MiB after a body of 1 MiB, and no `malloc_trim` gives that
/// back: with an arena for each thread that reads files, a peak would leave tens of MiB.
pub(crate) fn share_arenas() {
    // SAFETY: it sets a number of the allocator's own.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// Has the kernel ask this program, in the form of classic BPF, about each system call
/// that this thread and those that it starts make from now on (seccomp(2)).
///
/// # Errors
/// EACCES where the thread could still gain rights, EINVAL from kernels without filters
/// and for a program that is none.
pub(crate) fn filter_system_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` and what it points to live through the call, and the kernel
    // copies them and writes to neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    nix::Error::result(result)?;
    Ok(())
}

/// How many descriptors this process may have.
pub(crate) fn most_descriptors() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one `rlimit`, to which this is a pointer.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => limit.rlim_cur,
        _ => 0,
    }
}

/// Reads at most `want` bytes at `at`, as far as the kernel has them in memory;
/// none at the file's end.
///
/// # Errors
/// EAGAIN where a disk would have to be waited for, EOPNOTSUPP where the file
/// system can't tell; else as preadv2(2) says.
pub(crate) fn read_cached(file: &File, at: u64, want: usize) -> io::Result<Vec<u8>> {
    let at = libc::off_t::try_from(at).map_err(io::Error::other)?;
    let mut bytes: Vec<u8> = Vec::with_capacity(want);
    let part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: want,
    };
    // SAFETY: the descriptor is open as long as `file` is borrowed, and `part`
    // is memory of that length that nobody else uses for the length of this call.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &part, 1, at, libc::RWF_NOWAIT) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written this many bytes, of the `want` at most.
    unsafe { bytes.set_len(read) };
    Ok(bytes)
}
