//! Whether the kernel, or a filter before it (seccomp(2)), takes a system call.

use std::fs::File;
use std::io::{self, Read};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, pipe2, write};

/// An errno as the child writes it.
const WORD: usize = size_of::<i32>();

/// What became of a system call that asked for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probed {
    /// It came back with this; 0 where it did nothing without complaint.
    Answered(i32),
    /// A filter ended the process for it.
    Killed,
}

/// Makes each of these system calls with arguments that name nothing: -1 for the first
/// and 0 for the others. A child makes them, which a filter may end.
pub(crate) fn probe(calls: &[libc::c_long]) -> io::Result<Vec<Probed>> {
    let mut probed = Vec::with_capacity(calls.len());
    while probed.len() < calls.len() {
        let (answered, end) = ask(&calls[probed.len()..])?;
        probed.extend(answered);
        match end {
            _ if probed.len() == calls.len() => {}
            WaitStatus::Signaled(_, Signal::SIGSYS, _) => probed.push(Probed::Killed),
            end => return Err(io::Error::other(format!("the child that asks: {end:?}"))),
        }
    }
    Ok(probed)
}

/// Has a child make these calls; what it got as far as it came, and how it ended.
fn ask(calls: &[libc::c_long]) -> io::Result<(Vec<Probed>, WaitStatus)> {
    let (answers, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the child makes system calls only, and never returns from here.
    let child = match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            // A filter's SIGSYS would leave a core dump.
            let _ = nix::sys::prctl::set_dumpable(false);
            for call in calls {
                let _ = write(&theirs, &make(*call).to_ne_bytes());
            }
            // SAFETY: `_exit` runs nothing of the parent's.
            unsafe { libc::_exit(0) }
        }
    };
    drop(theirs);
    let mut bytes = Vec::new();
    let read = File::from(answers).read_to_end(&mut bytes);
    let end = reaped(child)?;
    read?;
    let words = bytes.chunks_exact(WORD).map(|word| {
        let word = word.try_into().expect("chunks of this length");
        Probed::Answered(i32::from_ne_bytes(word))
    });
    Ok((words.collect(), end))
}

fn make(call: libc::c_long) -> i32 {
    // SAFETY: no descriptor, process or address is -1, and 0 is no address either: the
    // kernel has nothing to do anything to but this process, which is about to exit.
    let result = unsafe { libc::syscall(call, -1_isize, 0_usize, 0_usize, 0_usize, 0_usize, 0) };
    if result == -1 { Errno::last_raw() } else { 0 }
}

fn reaped(child: Pid) -> nix::Result<WaitStatus> {
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            end => return end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_the_kernel_has_complains_of_its_arguments() {
        let calls = [libc::SYS_pidfd_send_signal, 1 << 20, libc::SYS_close];
        let probed = probe(&calls).unwrap();
        let wanted = [libc::EBADF, libc::ENOSYS, libc::EBADF].map(Probed::Answered);
        assert_eq!(probed, wanted);
        assert_eq!(probe(&[]).unwrap(), []);
    }
}
