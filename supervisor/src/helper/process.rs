//! Processes of the supervisor's own program that do something beside the loop: what they
//! are to do comes by stdin, and what they say by stdout.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::Pid;
use serde::Serialize;
use tokio::net::unix::pipe;

use crate::kernel::sys;
use crate::upgrade;

/// Starts such a process, in this directory or in the supervisor's. Whoever reaps
/// strangers reaps it.
pub(crate) fn start(
    argument: &str,
    task: &impl Serialize,
    directory: Option<&Path>,
) -> io::Result<(OwnedFd, pipe::Receiver)> {
    let task = upgrade::memory(&serde_json::to_vec(task)?)?;
    let (said, saying) = io::pipe()?;
    let said = pipe::Receiver::from_owned_fd(said.into())?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("prefork")
        .arg(argument)
        .stdin(Stdio::from(File::from(task)))
        .stdout(Stdio::from(saying))
        .stderr(Stdio::null())
        // The terminal's Ctrl-C is for the supervisor.
        .process_group(0);
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    let started = command.spawn()?;
    let pid = Pid::from_raw(i32::try_from(started.id()).unwrap_or(i32::MAX));
    Ok((sys::pidfd_open(pid)?, said))
}
