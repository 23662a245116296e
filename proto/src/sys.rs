//! The system calls that need unsafe code.
#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;

/// Descriptors that one `recvmsg` can take. More than any line of protocol 1
/// announces, so that surplus ones are seen and closed by us; few, so that a
/// hostile peer cannot fill the table of descriptors with one message.
pub(crate) const FDS_PER_READ: usize = 4;

// SAFETY: CMSG_SPACE only computes a size.
const CONTROL_SIZE: usize =
    unsafe { libc::CMSG_SPACE(mem::size_of::<[RawFd; FDS_PER_READ]>() as u32) } as usize;

/// Control messages start with a `cmsghdr`, so the buffer has its alignment.
#[repr(C)]
union Control {
    _aligned: libc::cmsghdr,
    bytes: [u8; CONTROL_SIZE],
}

/// What one `recvmsg` brought.
pub(crate) struct Read {
    /// Bytes written to the buffer; 0 at the end of the stream.
    pub(crate) bytes: usize,
    /// Descriptors that came with them, close-on-exec.
    pub(crate) fds: Vec<OwnedFd>,
    /// Descriptors were lost: more came than fit, or the table was full.
    pub(crate) fds_lost: bool,
}

/// One non-blocking `recvmsg(2)`.
///
/// `nix`'s own wrapper answers `MSG_CTRUNC` with an error and forgets the
/// descriptors that did arrive; here each one is owned before anything else.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Read, Errno> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = Control {
        bytes: [0; CONTROL_SIZE],
    };
    // SAFETY: msghdr is plain data for which all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    // IoSliceMut is guaranteed to have the layout of iovec.
    header.msg_iov = parts.as_mut_ptr().cast::<libc::iovec>();
    // The types of these lengths differ between C libraries.
    header.msg_iovlen = parts.len() as _;
    header.msg_control = ptr::from_mut(&mut control).cast();
    header.msg_controllen = CONTROL_SIZE as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points at one buffer and one control buffer, both alive
    // and exclusively borrowed for the call, with their true sizes.
    let bytes = Errno::result(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) })?;
    Ok(Read {
        bytes: bytes as usize,
        fds: take_fds(&header),
        fds_lost: header.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// Owns every descriptor that the kernel put into this process with `header`.
fn take_fds(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the header was filled by a successful recvmsg and its control
    // buffer is still alive; the macros stay within `msg_controllen`. Each
    // descriptor in an SCM_RIGHTS message is new, open and owned by nobody else.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(found) = message.as_ref() {
            if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(message).cast::<RawFd>();
                let length: usize = found.cmsg_len as _;
                let count = (length - libc::CMSG_LEN(0) as usize) / mem::size_of::<RawFd>();
                for index in 0..count {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    fds
}

/// Looks at a descriptor that this process was born with. The caller has a
/// number and no owner; it must not be -1.
pub(crate) fn with_inherited<T>(fd: RawFd, look: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    // SAFETY: the borrow ends with this function. A number that is not open
    // gives EBADF from whatever looks at it.
    look(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Becomes the owner of a descriptor that this process was born with. The
/// caller has made sure that it is open, and that this happens once.
pub(crate) fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: open and without another owner, by this function's contract.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
