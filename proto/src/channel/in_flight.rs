//! The kernel's bound on descriptors that are on their way between processes.

use std::io::IoSlice;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};

/// Whether one descriptor more of this user may be on its way. The kernel counts, for
/// each user, those that lie unread in unix sockets, whoever sent them, and takes no
/// more of one that has as many as the sender may have open, unless that has
/// CAP_SYS_RESOURCE or CAP_SYS_ADMIN (`too_many_unix_fds`, net/core/scm.c).
///
/// Where it can't be tried, the answer is yes: what follows says why it fails.
pub fn has_room_in_flight() -> bool {
    let flags = SockFlag::SOCK_CLOEXEC;
    let Ok((one, other)) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags) else {
        return true;
    };
    // Whatever is sent is closed unread with the socket that it waits in.
    let tried = sendmsg::<()>(
        one.as_raw_fd(),
        &[IoSlice::new(b"?")],
        &[ControlMessage::ScmRights(&[one.as_raw_fd()])],
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        None,
    );
    drop(other);
    tried != Err(Errno::ETOOMANYREFS)
}
