//! What the program says by sd_notify(3).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::cmsg_space;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt};
use tokio::io::unix::AsyncFd;

use crate::sys;

/// The longest message that is read.
const MOST_BYTES: usize = 4096;

/// Processes between a sender and the adapter at most.
const DEPTH: usize = 64;

/// The longest text that it may say of itself.
const MOST_STATUS: usize = 256;

/// One message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// `READY=1`.
    pub(super) ready: bool,
    /// `WATCHDOG=1`.
    pub(super) watchdog: bool,
    /// `STATUS=`.
    pub(super) status: Option<String>,
}

/// The socket on which it says that.
pub(super) struct Notify {
    socket: AsyncFd<OwnedFd>,
}

impl Notify {
    /// Binds the socket.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, PassCred, &true)?;
        Ok(Self {
            socket: sys::watch_owned(socket.into())?,
        })
    }

    /// The next message of a process of the program's tree. Safe to cancel.
    pub(super) async fn hear(&self) -> Said {
        loop {
            // It fails only with the runtime.
            let Ok(mut ready) = self.socket.readable().await else {
                return std::future::pending().await;
            };
            match ready.try_io(|socket| receive(socket.get_ref())) {
                Ok(Ok((text, sender))) if sender.is_some_and(is_below) => return parse(&text),
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// A message and the process that sent it, by the kernel's word.
fn receive(socket: &OwnedFd) -> io::Result<(Vec<u8>, Option<i32>)> {
    let mut bytes = vec![0; MOST_BYTES];
    // No room for descriptors: the kernel closes those that come.
    let mut space = cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let sender = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmCredentials(who) => Some(who.pid()),
        _ => None,
    });
    let length = received.bytes;
    bytes.truncate(length);
    Ok((bytes, sender))
}

/// Whether a process descends from this one. One that has ended meanwhile does not.
fn is_below(mut pid: i32) -> bool {
    let ours = i32::try_from(std::process::id()).unwrap_or(0);
    for _ in 0..DEPTH {
        match super::probe::parent(pid) {
            Some(parent) if parent == ours => return true,
            Some(parent) if parent > 1 => pid = parent,
            _ => return false,
        }
    }
    false
}

fn parse(text: &[u8]) -> Said {
    let text = String::from_utf8_lossy(text);
    let mut said = Said::default();
    for line in text.lines() {
        match line.split_once('=') {
            Some(("READY", "1")) => said.ready = true,
            Some(("WATCHDOG", "1")) => said.watchdog = true,
            Some(("STATUS", status)) => {
                said.status = Some(status.chars().take(MOST_STATUS).collect());
            }
            _ => {}
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_taken_line_by_line() {
        let said = parse(b"STATUS=warm\nREADY=1\nMAINPID=1\n");
        assert_eq!(said.status.as_deref(), Some("warm"));
        assert!(said.ready && !said.watchdog);
        assert_eq!(parse(b"READY=0\nWATCHDOG=trigger\n\xff"), Said::default());
    }

    #[test]
    fn only_descendants_are_below() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(is_below(child.id() as i32));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_below(child.id() as i32), "it has ended");
        assert!(
            !is_below(std::process::id() as i32),
            "it is no child of itself"
        );
        assert!(!is_below(1));
    }
}
