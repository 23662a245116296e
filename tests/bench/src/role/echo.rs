//! The other end of a socketpair: one that sends back, one that answers.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use prefork_proto::channel::{Receive, WorkerEnd};
use prefork_proto::message::{Reply, ToSupervisor, ToWorker};
use serde_json::{Value, json};

/// A blocking unix socket of any type.
#[derive(Debug)]
pub(crate) struct Socket(pub(crate) OwnedFd);

impl Socket {
    /// Receives into `buffer`; 0 at the end.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        recv(self.0.as_raw_fd(), buffer, MsgFlags::empty())
    }

    /// Sends all of it.
    pub(crate) fn send(&self, mut bytes: &[u8]) -> nix::Result<()> {
        while !bytes.is_empty() {
            let sent = send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }
}

/// Sends back whatever comes, as it is, until the other side has gone.
pub(super) fn bytes(socket: OwnedFd) -> Result<()> {
    let socket = Socket(socket);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match socket.receive(&mut buffer) {
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(()),
            Ok(length) => socket.send(&buffer[..length])?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Answers every `ping`, until the other side has gone.
pub(super) fn channel(socket: OwnedFd) -> Result<()> {
    let mut channel = WorkerEnd::new(socket);
    loop {
        match channel.receive()? {
            Receive::Message(received) => match received.message {
                ToWorker::Ping { id } => answer(&mut channel, id, Value::Null)?,
                other => bail!("unexpected: {other:?}"),
            },
            Receive::Unknown { kind, .. } => bail!("unexpected: {kind}"),
            Receive::Blocked => {
                channel.flush()?;
                channel.wait(false, Duration::from_secs(1))?;
            }
            Receive::Closed => return Ok(()),
        }
    }
}

/// Takes listeners and closes them; answers a `ping` with their number.
pub(super) fn descriptors(socket: OwnedFd) -> Result<()> {
    let mut channel = WorkerEnd::new(socket);
    let mut count = 0_u64;
    loop {
        match channel.receive()? {
            Receive::Message(received) => match received.message {
                ToWorker::Ping { id } => answer(&mut channel, id, json!(count))?,
                _ => count += u64::from(received.fd.is_some()),
            },
            Receive::Unknown { kind, .. } => bail!("unexpected: {kind}"),
            Receive::Blocked => {
                channel.flush()?;
                channel.wait(false, Duration::from_secs(1))?;
            }
            Receive::Closed => return Ok(()),
        }
    }
}

fn answer(channel: &mut WorkerEnd, id: u64, data: Value) -> Result<()> {
    channel.queue(&ToSupervisor::Reply(Reply::done(id, data)))?;
    channel.flush()?;
    Ok(())
}
