//! The least that replaces a killed process: kill, reap, socketpair, fork,
//! exec, and a read of what the successor says.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::hello::HELLO;
use super::{Role, start};

/// Kills and replaces a child this many times; prints the nanoseconds each
/// time took, from the kill to what the successor says.
pub(super) fn raise(times: usize) -> Result<()> {
    // A process has a parent that is small and has one thread.
    let (mut child, mut _socket) = bear()?;
    for _ in 0..times {
        let begun = Instant::now();
        child.kill()?;
        child.wait()?;
        (child, _socket) = bear()?;
        println!("{}", begun.elapsed().as_nanos());
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn bear() -> Result<(Child, UnixStream)> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let child = start(Role::Hello, theirs.into())?;
    let mut said = vec![0; HELLO.len()];
    ours.read_exact(&mut said)?;
    ensure!(said == HELLO, "the child says something else");
    Ok((child, ours))
}
