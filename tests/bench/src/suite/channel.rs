//! The channel against a bare socketpair, and the socket types compared.

mod types;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use prefork_proto::channel::{self, Receive, SupervisorEnd};
use prefork_proto::message::{ListenerOffer, ToSupervisor, ToWorker};

use crate::bench::Bench;
use crate::figures::Spread;
use crate::process::Process;
use crate::report::{Bound, Cell, Report, Table, Target};
use crate::role::{Role, Socket, command};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Messages that are on their way at a time where rates are measured.
const WINDOW: usize = 64;

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut report = Report::default();
    let during = bench.pick(Duration::from_millis(500), Duration::from_millis(50));
    let (mut bare, mut ours, mut rate, mut descriptors) = (vec![], vec![], vec![], vec![]);
    for round in 0..bench.pick(7, 2) {
        bench.doing(format!("round {round}"));
        bare.push(bare_round_trip(SockType::Stream, during)?);
        let mut link = Link::new(Role::EchoChannel)?;
        ours.push(link.round_trip_us(during)?);
        rate.push(link.messages_per_second(during)?);
        descriptors.push(descriptors_per_second(during)?);
    }
    let mut table = Table::new("The channel", &["what", "figure"]);
    let cell = |values: &[f64], digits| Cell::Spread(Spread::of(values.iter().copied()), digits);
    table.row([
        "bare echo of 20 bytes, round trip µs".into(),
        cell(&bare, 2),
    ]);
    table.row(["`ping` and `reply`, round trip µs".into(), cell(&ours, 2)]);
    table.row([
        "`ping` and `reply`, 64 on their way, per second".into(),
        cell(&rate, 0),
    ]);
    table.row([
        "descriptors passed per second".into(),
        cell(&descriptors, 0),
    ]);
    report.tables.push(table);
    report.tables.push(types::table(bench, during)?);
    report.targets.push(Target {
        what: "a channel round trip against a bare socketpair echo",
        bound: Bound::AtMost(2.0),
        measured: Spread::of_ratios(&ours, &bare),
    });
    report.note(
        "SOCK_STREAM, because any language reads lines from it, no message has to fit into one \
         call, and the end of a peer shows; SOCK_DGRAM hides it, and SOCK_SEQPACKET saves the \
         framing but wants recvmsg and a buffer of the largest message.",
    );
    Ok(report)
}

/// Microseconds of a round trip over a bare socketpair of this type.
fn bare_round_trip(kind: SockType, during: Duration) -> Result<f64> {
    let (ours, _peer) = echo_peer(kind)?;
    let line = b"{\"type\":\"ping\",\"id\":1}\n";
    let mut buffer = [0; 256];
    let mut count = 0_u32;
    let begun = Instant::now();
    while begun.elapsed() < during {
        ours.send(line)?;
        let mut length = 0;
        while length < line.len() {
            let more = ours.receive(&mut buffer[length..])?;
            ensure!(more > 0, "the echo has ended");
            length += more;
        }
        ensure!(&buffer[..length] == line, "the echo says something else");
        count += 1;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(count))
}

fn echo_peer(kind: SockType) -> Result<(Socket, Process)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
    let peer = Process::start(command(Role::EchoBytes, theirs)?)?;
    Ok((Socket(ours), peer))
}

/// A channel with a process at its other end.
struct Link {
    channel: SupervisorEnd,
    _peer: Process,
    next: u64,
}

impl Link {
    fn new(role: Role) -> Result<Self> {
        let (channel, theirs) = channel::pair()?;
        let peer = Process::start(command(role, theirs)?)?;
        Ok(Self {
            channel,
            _peer: peer,
            next: 0,
        })
    }

    fn ask(&mut self) -> Result<()> {
        self.next += 1;
        self.channel.queue(&ToWorker::Ping { id: self.next })?;
        Ok(())
    }

    /// Waits for a reply; its id and its data.
    fn reply(&mut self) -> Result<(u64, serde_json::Value)> {
        loop {
            match self.channel.receive()? {
                Receive::Message(received) => match received.message {
                    ToSupervisor::Reply(reply) => return Ok((reply.id, reply.data)),
                    other => bail!("unexpected: {other:?}"),
                },
                Receive::Blocked => {
                    self.channel.flush()?;
                    let queued = self.channel.queued_bytes() > 0;
                    ensure!(self.channel.wait(queued, PATIENCE)?, "no reply in time");
                }
                other => bail!("unexpected: {other:?}"),
            }
        }
    }

    fn round_trip_us(&mut self, during: Duration) -> Result<f64> {
        let mut count = 0_u32;
        let begun = Instant::now();
        while begun.elapsed() < during {
            self.ask()?;
            self.channel.flush()?;
            ensure!(self.reply()?.0 == self.next, "another reply");
            count += 1;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(count))
    }

    fn messages_per_second(&mut self, during: Duration) -> Result<f64> {
        let mut count = 0_u32;
        let begun = Instant::now();
        while begun.elapsed() < during {
            for _ in 0..WINDOW {
                self.ask()?;
            }
            self.channel.flush()?;
            for _ in 0..WINDOW {
                self.reply()?;
                count += 1;
            }
        }
        Ok(f64::from(count) / begun.elapsed().as_secs_f64())
    }
}

/// Passes descriptors a window at a time, and has them counted.
fn descriptors_per_second(during: Duration) -> Result<f64> {
    let mut link = Link::new(Role::CountDescriptors)?;
    let passed = OwnedFd::from(std::fs::File::open("/dev/null")?);
    let offer = ToWorker::Listener(ListenerOffer {
        name: "127.0.0.1:8080".to_owned(),
        address: "127.0.0.1:8080".to_owned(),
        tls: false,
        proxy_protocol: false,
        fds: 1,
    });
    let mut count = 0_u64;
    let begun = Instant::now();
    while begun.elapsed() < during {
        for _ in 0..WINDOW {
            link.channel.queue_with_fd(&offer, passed.try_clone()?)?;
            count += 1;
        }
        link.ask()?;
        let (_, arrived) = link.reply()?;
        let arrived = arrived.as_u64().context("the peer counts")?;
        ensure!(arrived == count, "{arrived} of {count} descriptors arrived");
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
