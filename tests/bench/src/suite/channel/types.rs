//! The three types of unix sockets: what each gives and costs.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::{Socket, WINDOW, bare_round_trip, echo_peer};
use crate::bench::Bench;
use crate::figures::Spread;
use crate::report::{Cell, Table};

const MESSAGE: usize = 200;

pub(super) fn table(bench: &Bench, during: Duration) -> Result<Table> {
    let mut table = Table::new(
        "Types of sockets, bare, echoed by another process",
        &[
            "type",
            "round trip µs",
            "echoes of 200 bytes per second",
            "largest message in one call",
            "two sends are received as",
            "the end of the peer shows",
        ],
    );
    for (name, kind) in [
        ("SOCK_STREAM", SockType::Stream),
        ("SOCK_SEQPACKET", SockType::SeqPacket),
        ("SOCK_DGRAM", SockType::Datagram),
    ] {
        bench.doing(name);
        let (mut trips, mut rates) = (vec![], vec![]);
        for _ in 0..bench.pick(5, 2) {
            trips.push(bare_round_trip(kind, during)?);
            rates.push(echoes_per_second(kind, during)?);
        }
        table.row([
            name.into(),
            Cell::Spread(Spread::of(trips), 2),
            Cell::Spread(Spread::of(rates), 0),
            largest(kind)?.into(),
            received_as(kind)?.into(),
            if shows_end(kind)? { "yes" } else { "no" }.into(),
        ]);
    }
    Ok(table)
}

fn pair(kind: SockType) -> Result<(Socket, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((Socket(ours), theirs))
}

/// With as many on their way as the smallest of the socket queues takes.
fn echoes_per_second(kind: SockType, during: Duration) -> Result<f64> {
    // A datagram socket's queue takes ten (net.unix.max_dgram_qlen).
    let window = if kind == SockType::Datagram {
        8
    } else {
        WINDOW
    };
    let (ours, _peer) = echo_peer(kind)?;
    let message = [b'x'; MESSAGE];
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    let begun = Instant::now();
    while begun.elapsed() < during {
        for _ in 0..window {
            ours.send(&message)?;
        }
        let mut back = 0;
        while back < window * MESSAGE {
            let length = ours.receive(&mut buffer)?;
            ensure!(length > 0, "the echo has ended");
            back += length;
        }
        bytes += back;
    }
    Ok((bytes / MESSAGE) as f64 / begun.elapsed().as_secs_f64())
}

/// Bytes that one call sends whole into an empty queue.
fn largest(kind: SockType) -> Result<String> {
    if kind == SockType::Stream {
        return Ok("any, in parts".to_owned());
    }
    let (mut fits, mut fails) = (1, 16 << 20);
    while fails - fits > 1 {
        let middle = usize::midpoint(fits, fails);
        let (ours, _theirs) = pair(kind)?;
        match ours.send(&vec![0; middle]) {
            Ok(()) => fits = middle,
            Err(_) => fails = middle,
        }
    }
    Ok(format!("{fits} bytes"))
}

fn received_as(kind: SockType) -> Result<&'static str> {
    let (ours, theirs) = pair(kind)?;
    ours.send(b"one")?;
    ours.send(b"two")?;
    let length = Socket(theirs).receive(&mut [0; 16])?;
    Ok(if length == 3 { "two" } else { "one" })
}

/// Whether a receiver learns that the other side is closed.
fn shows_end(kind: SockType) -> Result<bool> {
    let (ours, theirs) = pair(kind)?;
    drop(theirs);
    let mut polled = [PollFd::new(ours.0.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut polled, PollTimeout::from(100_u16))? > 0)
}
