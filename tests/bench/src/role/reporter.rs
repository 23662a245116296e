//! The least that hears many workers: an event loop that reads what a thousand
//! processes say once a second, and asks each whether it listens.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mio::{Events, Interest, Poll, Token};
use prefork_proto::message::{Health, Reply, ToSupervisor, ToWorker};
use serde::Serialize;
use serde_json::Value;

use super::{Role, start};

/// `heartbeat_interval`.
const INTERVAL: Duration = Duration::from_secs(1);

/// A supervisor asks after a third of `heartbeat_timeout`, so with every fourth
/// report.
const REPORTS_PER_PING: u64 = 4;

/// Reports, and answers, until the other side has gone.
pub(super) fn report(socket: OwnedFd) -> Result<()> {
    let mut socket = UnixStream::from(socket);
    let report = line(&ToSupervisor::Health(Health::default()))?;
    let answer = line(&ToSupervisor::Reply(Reply::done(1, Value::Null)))?;
    let mut buffer = [0; 4096];
    let mut next = Instant::now();
    loop {
        socket.write_all(&report)?;
        next += INTERVAL;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => socket.write_all(&answer)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Starts so many of them and reads what they say, for ever.
pub(super) fn hear(reporters: usize) -> Result<()> {
    let ping = line(&ToWorker::Ping { id: 1 })?;
    let mut poll = Poll::new()?;
    let mut sockets = Vec::new();
    for number in 0..reporters {
        let (ours, theirs) = UnixStream::pair()?;
        start(Role::Reporter, theirs.into())?;
        ours.set_nonblocking(true)?;
        let mut socket = mio::net::UnixStream::from_std(ours);
        poll.registry()
            .register(&mut socket, Token(number), Interest::READABLE)?;
        sockets.push((socket, 0_u64));
    }
    let mut events = Events::with_capacity(1024);
    let mut buffer = [0; 4096];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let (socket, heard) = &mut sockets[event.token().0];
            let length = socket.read(&mut buffer)?;
            ensure!(length > 0, "a reporter has ended");
            // Its answer to a ping is a message as well, and no report.
            *heard += 1;
            if *heard % (REPORTS_PER_PING + 1) == 0 {
                socket.write_all(&ping)?;
            }
        }
    }
}

fn line(message: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
