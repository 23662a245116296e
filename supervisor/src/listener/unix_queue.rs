//! The accept queue of a unix listener: sock_diag(7), `UNIX_DIAG`. TCP has
//! getsockopt for it, unix sockets only this.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use nix::sys::stat::fstat;

/// `SOCK_DIAG_BY_FAMILY`, linux/sock_diag.h.
const BY_FAMILY: u16 = 20;

/// `NLM_F_REQUEST`, linux/netlink.h.
const REQUEST: u16 = 1;

/// `UDIAG_SHOW_RQLEN`, linux/unix_diag.h.
const SHOW_QUEUE: u32 = 0x10;

/// `UNIX_DIAG_RQLEN`, linux/unix_diag.h.
const QUEUE: u16 = 4;

/// The length of `struct nlmsghdr` and of `struct unix_diag_msg`.
const HEADER: usize = 16;

/// How many connections wait on a unix listener, and how many may.
///
/// # Errors
///
/// `ENOENT` and others where the kernel has no `unix_diag`; want of descriptors.
pub(super) fn accept_queue(listener: &impl AsFd) -> io::Result<(u64, u64)> {
    let inode = u32::try_from(fstat(listener)?.st_ino).map_err(io::Error::other)?;
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkSockDiag,
    )?;
    send(netlink.as_raw_fd(), &question(inode), MsgFlags::empty())?;
    let mut answer = [0; 512];
    // The kernel has answered when `send` returns.
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    let answer = answer.get(..length).unwrap_or(&answer);
    read(answer, inode).ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
}

/// `struct nlmsghdr` and `struct unix_diag_req` for this one socket.
fn question(inode: u32) -> Vec<u8> {
    let mut body = vec![AddressFamily::Unix as u8, 0, 0, 0];
    // Whatever its state, by its inode, and without its cookie.
    for word in [u32::MAX, inode, SHOW_QUEUE, u32::MAX, u32::MAX] {
        body.extend(word.to_ne_bytes());
    }
    let length = u32::try_from(HEADER + body.len()).expect("it is 40");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // The sequence number and the sender, which the kernel fills in.
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// The queue's depth and limit in the kernel's answer; none in any other
/// message, an error for instance.
fn read(message: &[u8], inode: u32) -> Option<(u64, u64)> {
    let is_answer = half(message, 4)? == BY_FAMILY && word(message, HEADER + 4)? == inode;
    let mut attributes = message.get(2 * HEADER..).filter(|_| is_answer)?;
    loop {
        let length = usize::from(half(attributes, 0)?);
        if half(attributes, 2)? == QUEUE {
            return Some((word(attributes, 4)?.into(), word(attributes, 8)?.into()));
        }
        // One without length would be read for ever.
        attributes = attributes.get(length.next_multiple_of(4).max(4)..)?;
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn each_connection_that_waits_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let other = UnixListener::bind(directory.path().join("other.sock")).unwrap();
        if let Err(error) = accept_queue(&listener) {
            eprintln!("SKIPPED: this kernel does not tell a unix listener's queue ({error})");
            return;
        }
        let mut waiting = Vec::new();
        for depth in 0..5 {
            let (found, limit) = accept_queue(&listener).unwrap();
            assert_eq!(found, depth);
            assert!(limit >= 5, "{limit}");
            waiting.push(UnixStream::connect(&path).unwrap());
        }
        drop(listener.accept().unwrap());
        assert_eq!(accept_queue(&listener).unwrap().0, 4);
        assert_eq!(accept_queue(&other).unwrap().0, 0);
    }

    #[test]
    fn what_is_no_answer_is_not_read_as_one() {
        let mut answer = question(7);
        assert_eq!(read(&answer, 7), None, "no attribute");
        answer.resize(2 * HEADER, 0);
        answer[HEADER + 4..HEADER + 8].copy_from_slice(&7_u32.to_ne_bytes());
        for attribute in [&[0_u8; 4][..], &[1, 0], &[0xFF; 4]] {
            let message = [&answer[..], attribute].concat();
            assert_eq!(read(&message, 7), None);
        }
        let mut queue = 12_u16.to_ne_bytes().to_vec();
        queue.extend(QUEUE.to_ne_bytes());
        queue.extend(3_u32.to_ne_bytes());
        queue.extend(128_u32.to_ne_bytes());
        let message = [&answer[..], &queue].concat();
        assert_eq!(read(&message, 7), Some((3, 128)));
        assert_eq!(read(&message, 8), None, "another socket's");
        assert_eq!(read(&message[..message.len() - 1], 7), None, "cut short");
    }
}
