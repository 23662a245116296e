//! The socket of the service manager, which is never waited for.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use sd_notify::NotifyState;

#[derive(Debug)]
pub(super) struct Link {
    socket: UnixDatagram,
    address: UnixAddr,
}

impl Link {
    /// A path, or the name of an abstract socket after an `@`.
    pub(super) fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
            path => UnixAddr::new(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    pub(super) fn send(&self, message: &str) -> io::Result<()> {
        self.send_all(message, &[])
    }

    /// Sends a duplicate of a descriptor along.
    pub(super) fn send_with(&self, message: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        let fds = [fd.as_raw_fd()];
        self.send_all(message, &[ControlMessage::ScmRights(&fds)])
    }

    fn send_all(&self, message: &str, beside: &[ControlMessage<'_>]) -> io::Result<()> {
        let bytes = [IoSlice::new(message.as_bytes())];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg(
            self.socket.as_raw_fd(),
            &bytes,
            beside,
            flags,
            Some(&self.address),
        )?;
        Ok(())
    }
}

/// A message's text: a line for each of these.
pub(super) fn message(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}
