//! What may be done to a listening socket that several processes hold. Each
//! closes its own descriptor; `shutdown` would end it for everyone.

use std::io;
use std::os::fd::AsFd;

use crate::sys;

/// Lets no new handshake begin on a TCP listener, while those that have begun
/// can end and what waits in the queue can be accepted. A client that comes now
/// tries again a second later, and by then is refused, or finds another
/// listener of the port; it is never reset.
///
/// The socket filter sees TCP headers (socket(7), `SO_ATTACH_FILTER`).
///
/// # Errors
/// ENOMEM, or EPERM where the filter is locked.
pub fn refuse_handshakes(listener: impl AsFd) -> io::Result<()> {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // The flags are in byte 13 of the header; SYN is 2.
    let filter = [
        instruction(LOAD_BYTE, 0, 0, 13),
        instruction(JUMP_IF_SET, 0, 1, 2),
        instruction(RETURN, 0, 0, 0),
        instruction(RETURN, 0, 0, u32::MAX),
    ];
    sys::attach_filter(listener.as_fd(), &filter)
}
