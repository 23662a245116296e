//! The only unsafe code of this crate: what a child does before it executes.

#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal};

/// Has the child end when the thread that starts it does: no server is left
/// behind even if the benchmark itself is killed. It also makes the standard
/// library fork, as a supervisor has to, where it could spawn. Signals that this
/// process blocks to wait for them are the child's again.
pub(crate) fn tie_to_parent(command: &mut Command) {
    // SAFETY: the closure makes two system calls and touches no memory that
    // another thread of the parent could have held locked.
    unsafe {
        command.pre_exec(|| {
            SigSet::empty().thread_set_mask()?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(std::io::Error::from)
        });
    }
}
