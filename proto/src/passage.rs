//! The way of open connections from a worker that leaves to those that stay.
//!
//! A passage is one socket of which all workers of a listener have a duplicate, as they
//! have of the listener: an unnamed unix datagram socket that is connected to itself. What
//! one of them [sends](send) into it the next one that is idle [receives](receive): a
//! connection, who its client is, and what of it was read and not used. The supervisor
//! makes it, hands it out with `passage`, keeps a duplicate and has nothing else to do with
//! what goes through; so a connection on its way is not lost while anybody holds one.
//!
//! The kernel's bound on what a socket holds is the bound on connections under way. The
//! bytes of a datagram are described in this crate's `README.md`.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect,
    getsockname, sendmsg, setsockopt, socket, sockopt,
};

use crate::sys;

/// The layout's version, a datagram's first byte.
pub const VERSION: u8 = 1;

/// Bytes of a datagram before what was read of its connection.
pub const HEADER: usize = 32;

/// As many bytes at the most may have been read of a connection and not used.
pub const MOST_READ: usize = 16 << 10;

/// What the kernel may hold of a passage, in bytes as it counts them: some two hundred
/// connections under way, which is less than any sensible RLIMIT_NOFILE.
const ROOM: usize = 64 << 10;

const HAS_SPOKEN: u8 = 1;
const BY_PROXY: u8 = 2;

/// Why an idle connection of a worker that leaves is closed and not handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It speaks TLS, whose keys are this process's.
    Tls,
    /// It speaks HTTP/2.
    Http2,
    /// Where the body of its last request ends is not known for sure.
    Body,
    /// No other worker takes connections of its listener.
    NoReceiver,
    /// The kernel has refused to hand it on.
    Kernel,
}

impl Kept {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Tls,
        Self::Http2,
        Self::Body,
        Self::NoReceiver,
        Self::Kernel,
    ];

    /// Its name, for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Body => "body",
            Self::NoReceiver => "no_receiver",
            Self::Kernel => "kernel",
        }
    }
}

/// What goes with a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Who its client is; none for one of a unix socket.
    pub client: Option<SocketAddr>,
    /// Whether that was said by a header of the PROXY protocol.
    pub by_proxy: bool,
    /// Whether its client has spoken HTTP/1 on it: then nothing else is spoken any more.
    pub has_spoken: bool,
}

/// A connection that has come through a passage.
#[derive(Debug)]
pub struct Received {
    /// What is known of it.
    pub passed: Passed,
    /// The connection.
    pub connection: OwnedFd,
    /// What was read of it and not used.
    pub read: Vec<u8>,
}

/// Makes a passage.
///
/// # Errors
/// As socket(2), bind(2) and connect(2) say.
pub fn create() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let passage = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    setsockopt(&passage, sockopt::SndBuf, &ROOM)?;
    // The kernel chooses a name, by which nobody but the socket itself can send to it once
    // it is connected (`unix_may_send`, net/unix/af_unix.c).
    bind(passage.as_raw_fd(), &UnixAddr::new_unnamed())?;
    let name: UnixAddr = getsockname(passage.as_raw_fd())?;
    connect(passage.as_raw_fd(), &name)?;
    // What came before it was.
    while sys::receive(passage.as_fd(), &mut [0; HEADER]).is_ok() {}
    Ok(passage)
}

/// Whether connections still go through a passage: any who has a duplicate may have closed
/// it for all, or have put a filter before it that drops what is sent.
#[must_use]
pub fn is_open(passage: BorrowedFd<'_>) -> bool {
    !is_closed(passage) && matches!(sys::filter_length(passage), Ok(0))
}

/// Whether somebody has closed it for all (shutdown(2)): nothing comes out of it any more.
#[must_use]
pub fn is_closed(passage: BorrowedFd<'_>) -> bool {
    // The kernel says of its own accord only what ends a socket.
    let mut looked_at = [PollFd::new(
        passage,
        PollFlags::from_bits_retain(libc::POLLRDHUP),
    )];
    poll(&mut looked_at, PollTimeout::ZERO).is_ok_and(|found| found > 0)
}

/// Sends a connection into a passage. It is the sender's to close in any case.
///
/// # Errors
/// EAGAIN and ETOOMANYREFS where there is no room for now; EMSGSIZE where more than
/// [`MOST_READ`] was read; others as sendmsg(2) says.
pub fn send(
    passage: BorrowedFd<'_>,
    passed: &Passed,
    connection: BorrowedFd<'_>,
    read: &[u8],
) -> io::Result<()> {
    if read.len() > MOST_READ {
        return Err(Errno::EMSGSIZE.into());
    }
    let header = passed.encode();
    let parts = [IoSlice::new(&header), IoSlice::new(read)];
    sendmsg::<()>(
        passage.as_raw_fd(),
        &parts,
        &[ControlMessage::ScmRights(&[connection.as_raw_fd()])],
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Takes the connection that has waited longest out of a passage.
///
/// # Errors
/// EAGAIN where none waits; InvalidData where what was there is none; others as
/// recvmsg(2) says.
pub fn receive(passage: BorrowedFd<'_>) -> io::Result<Received> {
    // A descriptor for which there is no place is closed by the kernel, and its connection
    // with it: better it waits for who has one.
    drop(passage.try_clone_to_owned()?);
    let mut datagram = [0; HEADER + MOST_READ];
    let received = sys::receive(passage, &mut datagram)?;
    let mut fds = received.fds.into_iter();
    let (header, read) = datagram[..received.bytes]
        .split_first_chunk()
        .ok_or(io::ErrorKind::InvalidData)?;
    match (Passed::decode(header), fds.next(), fds.next()) {
        (Some(passed), Some(connection), None) => Ok(Received {
            passed,
            connection,
            read: read.to_vec(),
        }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Passed {
    fn encode(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = VERSION;
        header[1] |= if self.has_spoken { HAS_SPOKEN } else { 0 };
        header[1] |= if self.by_proxy { BY_PROXY } else { 0 };
        if let Some(client) = self.client {
            header[4..6].copy_from_slice(&client.port().to_be_bytes());
            match client {
                SocketAddr::V4(v4) => {
                    header[2] = 4;
                    header[8..12].copy_from_slice(&v4.ip().octets());
                }
                SocketAddr::V6(v6) => {
                    header[2] = 6;
                    header[8..24].copy_from_slice(&v6.ip().octets());
                    header[24..28].copy_from_slice(&v6.scope_id().to_be_bytes());
                }
            }
        }
        header
    }

    fn decode(header: &[u8; HEADER]) -> Option<Self> {
        if header[0] != VERSION {
            return None;
        }
        let part = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
        let port = u16::from_be_bytes([header[4], header[5]]);
        let octets = &header[8..24];
        let client = match header[2] {
            0 => None,
            4 => {
                let octets: [u8; 4] = octets[..4].try_into().ok()?;
                Some(SocketAddrV4::new(Ipv4Addr::from(octets), port).into())
            }
            6 => {
                let octets: [u8; 16] = octets.try_into().ok()?;
                Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, part(24)).into())
            }
            _ => return None,
        };
        Some(Self {
            client,
            has_spoken: header[1] & HAS_SPOKEN != 0,
            by_proxy: header[1] & BY_PROXY != 0,
        })
    }

    /// The client's address where a proxy has said it.
    #[must_use]
    pub fn said_by_proxy(&self) -> Option<IpAddr> {
        self.client
            .filter(|_| self.by_proxy)
            .map(|client| client.ip())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use nix::sys::socket::{Shutdown, shutdown};

    use super::*;

    #[test]
    fn a_connection_goes_through_with_its_client_and_what_was_read() {
        let passage = create().unwrap();
        let clients = [
            None,
            Some("192.0.2.7:4711".parse().unwrap()),
            Some("[2001:db8::7]:80".parse().unwrap()),
            Some(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 0, 3).into()),
        ];
        for client in clients {
            let (mut near, far) = UnixStream::pair().unwrap();
            let passed = Passed {
                client,
                by_proxy: client.is_some(),
                has_spoken: client.is_none(),
            };
            send(passage.as_fd(), &passed, far.as_fd(), b"GET /").unwrap();
            drop(far);
            let received = receive(passage.as_fd()).unwrap();
            assert_eq!(received.passed, passed);
            assert_eq!(received.read, b"GET /");
            let mut connection = UnixStream::from(received.connection);
            connection.write_all(b"here").unwrap();
            let mut answer = [0; 4];
            near.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"here");
        }
        let nothing = receive(passage.as_fd()).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_under_way_is_bounded_and_waits() {
        let passage = create().unwrap();
        let (_near, far) = UnixStream::pair().unwrap();
        let passed = Passed::default();
        let mut sent = 0;
        let full = loop {
            match send(passage.as_fd(), &passed, far.as_fd(), b"") {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 1000, "there is no bound");
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        for _ in 0..sent {
            receive(passage.as_fd()).unwrap();
        }
        send(passage.as_fd(), &passed, far.as_fd(), b"").unwrap();
    }

    #[test]
    fn what_is_no_connection_is_refused_and_the_next_one_comes() {
        let passage = create().unwrap();
        let (_near, far) = UnixStream::pair().unwrap();
        for nonsense in [&b""[..], b"short", &[9; HEADER], &[0; HEADER]] {
            let fd = passage.as_raw_fd();
            nix::sys::socket::send(fd, nonsense, MsgFlags::empty()).unwrap();
        }
        let without = Passed::default().encode();
        nix::sys::socket::send(passage.as_raw_fd(), &without, MsgFlags::empty()).unwrap();
        send(passage.as_fd(), &Passed::default(), far.as_fd(), b"").unwrap();
        for _ in 0..5 {
            let error = receive(passage.as_fd()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        receive(passage.as_fd()).unwrap();
        let long = vec![0; MOST_READ + 1];
        let error = send(passage.as_fd(), &Passed::default(), far.as_fd(), &long).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EMSGSIZE as i32));
    }

    #[test]
    fn whoever_has_it_may_close_it_and_that_is_seen() {
        let passage = create().unwrap();
        assert!(is_open(passage.as_fd()));
        let drops_all = libc::sock_filter {
            code: (libc::BPF_RET | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k: 0,
        };
        sys::attach_filter(passage.as_fd(), &[drops_all]).unwrap();
        assert!(!is_open(passage.as_fd()) && !is_closed(passage.as_fd()));
        let passage = create().unwrap();
        shutdown(passage.as_raw_fd(), Shutdown::Both).unwrap();
        assert!(!is_open(passage.as_fd()) && is_closed(passage.as_fd()));
        let (_near, far) = UnixStream::pair().unwrap();
        send(passage.as_fd(), &Passed::default(), far.as_fd(), b"").unwrap_err();
    }

    #[test]
    fn nobody_else_can_send_into_it() {
        let passage = create().unwrap();
        let name: UnixAddr = getsockname(passage.as_raw_fd()).unwrap();
        let stranger = UnixDatagram::unbound().unwrap();
        let refused = connect(stranger.as_raw_fd(), &name);
        assert_eq!(refused, Err(Errno::EPERM));
    }
}
