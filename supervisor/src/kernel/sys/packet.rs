//! A packet of a SEQPACKET socket, with the descriptor that it may bring.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Waits for the next one; its length and its descriptor.
pub(crate) fn receive_packet(
    socket: &OwnedFd,
    into: &mut [u8],
) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    loop {
        let mut packet = [IoSliceMut::new(into)];
        match recvmsg::<()>(socket.as_raw_fd(), &mut packet, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(message) => {
                let number = message.cmsgs()?.find_map(|control| match control {
                    ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                    _ => None,
                });
                // SAFETY: the kernel has just made this descriptor; nobody else knows it.
                let fd = number.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
                return Ok((message.bytes, fd));
            }
        }
    }
}
