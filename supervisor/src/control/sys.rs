//! The one system call of the control socket that no crate wraps.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// More than NGROUPS_MAX (65536, limits.h) is nothing the kernel can say.
const MOST_GROUPS: usize = 65_536;

/// The supplementary groups that the peer of a unix socket had when it
/// connected (`SO_PEERGROUPS`, Linux 4.13).
pub(super) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = (groups.len() * size_of::<libc::gid_t>()) as libc::socklen_t;
        // SAFETY: `groups` is writable for `bytes` bytes, and the kernel writes
        // at most that many; `bytes` lives through the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let needed = bytes as usize / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE comes with the size that is needed.
        if error.raw_os_error() != Some(libc::ERANGE)
            || needed <= groups.len()
            || needed > MOST_GROUPS
        {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}
