//! The least that a started process can do: say that it is there.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::Result;

/// What it says.
pub(super) const HELLO: &[u8] = b"{\"type\":\"hello\"}\n";

pub(super) fn say(socket: OwnedFd) -> Result<()> {
    let mut socket = UnixStream::from(socket);
    socket.write_all(HELLO)?;
    // Until the parent has gone or kills it.
    socket.read_to_end(&mut Vec::new())?;
    Ok(())
}
