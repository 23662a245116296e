//! The other side of a channel, played by hand: raw bytes and descriptors.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use prefork_proto::channel::{Channel, ChannelError, Receive, Received};
use prefork_proto::message::Message;

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A raw socket and a channel that is connected to it.
pub(crate) fn connected<Out: Message, In: Message>() -> (UnixStream, Channel<Out, In>) {
    let (peer, other) = UnixStream::pair().expect("a socket pair");
    (peer, Channel::new(OwnedFd::from(other)))
}

/// Sends all of `bytes` in one call, with copies of `fds`.
pub(crate) fn send_with(peer: &UnixStream, bytes: &[u8], fds: &[&File]) -> Result<(), Errno> {
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let sent = sendmsg::<()>(
        peer.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        flags,
        None,
    )?;
    assert_eq!(sent, bytes.len(), "the socket took a part only");
    Ok(())
}

/// A file that can be told from every other by its content.
pub(crate) fn marked(mark: u64) -> File {
    let mut file = File::from(memfd_create("mark", MFdFlags::MFD_CLOEXEC).expect("a memfd"));
    file.write_all(&mark.to_be_bytes()).expect("to write");
    file
}

/// What a received [`marked`] descriptor was marked with.
pub(crate) fn mark_of(fd: OwnedFd) -> u64 {
    let mut mark = [0; 8];
    File::from(fd)
        .read_exact_at(&mut mark, 0)
        .expect("a marked file");
    u64::from_be_bytes(mark)
}

/// The next message, waited for.
pub(crate) fn next<Out: Message, In: Message>(channel: &mut Channel<Out, In>) -> Received<In> {
    match settled(channel).expect("a message") {
        Receive::Message(received) => received,
        Receive::Unknown { kind, .. } => panic!("`{kind}` is unknown"),
        Receive::Blocked => panic!("nothing came in {DEADLINE:?}"),
        Receive::Closed => panic!("the channel is closed"),
    }
}

/// What `receive` says once it no longer says `Blocked`.
pub(crate) fn settled<Out: Message, In: Message>(
    channel: &mut Channel<Out, In>,
) -> Result<Receive<In>, ChannelError> {
    let begun = Instant::now();
    loop {
        let received = channel.receive()?;
        if !matches!(received, Receive::Blocked) || !channel.wait(false, DEADLINE)? {
            return Ok(received);
        }
        assert!(begun.elapsed() < DEADLINE, "it never settles");
    }
}

/// All that the channel's side has sent so far, by plain reads.
pub(crate) fn read_available(peer: &mut UnixStream) -> Vec<u8> {
    peer.set_nonblocking(true).expect("to be non-blocking");
    let mut all = Vec::new();
    match peer.read_to_end(&mut all) {
        Ok(_) => all,
        Err(error) if error.kind() == ErrorKind::WouldBlock => all,
        Err(error) => panic!("cannot read: {error}"),
    }
}
