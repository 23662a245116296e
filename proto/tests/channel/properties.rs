//! Whatever the kernel and the peer make of the bytes.

use std::fs::File;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use prefork_proto::channel::{ChannelError, Receive, WorkerEnd};
use prefork_proto::message::{ListenerOffer, ToSupervisor, ToWorker};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use crate::peer::{connected, mark_of, marked, send_with, settled};

/// A message to send, and for one with a descriptor, which part of its line brings it.
#[derive(Debug, Clone)]
enum Plan {
    Ping(u64),
    Tell(String),
    Listener {
        name: String,
        part: prop::sample::Index,
    },
}

fn plan() -> impl Strategy<Value = Plan> {
    prop_oneof![
        any::<u64>().prop_map(Plan::Ping),
        (any::<String>(), 0..300usize).prop_map(|(text, times)| Plan::Tell(text.repeat(times))),
        (".{0,40}", any::<prop::sample::Index>())
            .prop_map(|(name, part)| Plan::Listener { name, part }),
    ]
}

impl Plan {
    fn message(&self) -> ToWorker {
        match self {
            Self::Ping(id) => ToWorker::Ping { id: *id },
            Self::Tell(text) => ToWorker::Tell {
                id: 1,
                command: "t".into(),
                // Kept below the limit whatever the escapes.
                args: Value::from(text.chars().take(8000).collect::<String>()),
            },
            Self::Listener { name, .. } => ToWorker::Listener(ListenerOffer {
                name: name.clone(),
                address: "unix:/a".into(),
                tls: false,
                proxy_protocol: false,
                fds: 1,
            }),
        }
    }
}

/// A piece of the stream that goes to the kernel in one call.
struct Piece {
    bytes: Vec<u8>,
    mark: Option<u64>,
}

/// Cuts the plans' lines at `cuts`, and where two descriptors would share a
/// piece, between their lines too: a call carries one at most.
fn pieces(plans: &[Plan], cuts: &[prop::sample::Index]) -> Vec<Piece> {
    let mut stream = Vec::new();
    let mut lines = Vec::new();
    for (mark, plan) in plans.iter().enumerate() {
        let start = stream.len();
        serde_json::to_writer(&mut stream, &plan.message()).unwrap();
        stream.push(b'\n');
        lines.push((start..stream.len(), plan, mark as u64));
    }
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len()) + 1).collect();
    // The kernel cuts a long call itself, and the descriptor goes with the first part.
    ends.extend(
        (1..)
            .map(|n| n * 16_000)
            .take_while(|end| *end < stream.len()),
    );
    ends.push(stream.len());
    let mut carriers: Vec<(usize, u64)> = Vec::new();
    for (line, plan, mark) in &lines {
        if let Plan::Listener { part, .. } = plan {
            if let Some((byte, _)) = carriers.last() {
                let newline = stream[*byte..].iter().position(|b| *b == b'\n').unwrap();
                ends.push(*byte + newline + 1);
            }
            carriers.push((line.start + part.index(line.len()), *mark));
        }
    }
    ends.sort_unstable();
    ends.dedup();
    let mut start = 0;
    let mut pieces = Vec::new();
    for end in ends {
        let carried = carriers
            .iter()
            .find(|(byte, _)| (start..end).contains(byte));
        pieces.push(Piece {
            bytes: stream[start..end].to_vec(),
            mark: carried.map(|(_, mark)| *mark),
        });
        start = end;
    }
    pieces
}

/// Receives until nothing more is there.
fn drain(worker: &mut WorkerEnd, into: &mut Vec<(ToWorker, Option<u64>)>) {
    loop {
        match worker.receive().unwrap() {
            Receive::Message(received) => {
                into.push((received.message, received.fd.map(mark_of)));
            }
            Receive::Blocked => return,
            other => panic!("{other:?}"),
        }
    }
}

fn send_piece(peer: &UnixStream, piece: &Piece) -> Result<(), Errno> {
    let file: Option<File> = piece.mark.map(marked);
    let fds: Vec<&File> = file.iter().collect();
    send_with(peer, &piece.bytes, &fds)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_cut_of_the_stream_gives_the_same_messages_with_their_descriptors(
        plans in vec(plan(), 1..12),
        cuts in vec(any::<prop::sample::Index>(), 0..60),
        eager in vec(any::<bool>(), 1..20),
    ) {
        let (peer, mut worker) = connected::<ToSupervisor, ToWorker>();
        let mut received = Vec::new();
        let mut unread = 0;
        for (index, piece) in pieces(&plans, &cuts).iter().enumerate() {
            // What waits in the socket stays far below what a socket takes.
            unread += piece.bytes.len() + 1024;
            if eager[index % eager.len()] || unread > 60_000 {
                drain(&mut worker, &mut received);
                unread = piece.bytes.len() + 1024;
            }
            send_piece(&peer, piece).unwrap();
        }
        drain(&mut worker, &mut received);
        drop(peer);
        prop_assert!(matches!(worker.receive(), Ok(Receive::Closed)));

        let expected: Vec<_> = plans.iter().enumerate().map(|(mark, plan)| {
            let carries = matches!(plan, Plan::Listener { .. });
            (plan.message(), carries.then_some(mark as u64))
        }).collect();
        prop_assert_eq!(received, expected);
        prop_assert_eq!(worker.counters().fds_rejected, 0);
    }

    #[test]
    fn garbage_ends_in_an_error_or_in_the_end_of_the_stream(
        pieces in vec((vec(any::<u8>(), 1..200), any::<bool>(), 0..3usize), 1..20),
    ) {
        let (peer, mut worker) = connected::<ToSupervisor, ToWorker>();
        let file = marked(1);
        let mut sent_fds = 0;
        for (mut bytes, ends, fds) in pieces {
            if ends {
                bytes.push(b'\n');
            }
            send_with(&peer, &bytes, &vec![&file; fds]).unwrap();
            sent_fds += fds as u64;
        }
        drop(peer);
        let error = settled(&mut worker).expect_err("garbage is no message");
        prop_assert!(ChannelError::DECODE_REASONS.contains(&error.reason()));
        prop_assert!(matches!(worker.receive(), Ok(Receive::Closed)));
        prop_assert!(worker.counters().fds_rejected <= sent_fds);
        prop_assert_eq!(worker.counters().fds_received, 0);
    }

    #[test]
    fn a_message_with_one_byte_changed_never_panics_and_is_judged(
        plan in plan(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut line = serde_json::to_vec(&plan.message()).unwrap();
        line.push(b'\n');
        let at = at.index(line.len());
        line[at] = byte;
        let (peer, mut worker) = connected::<ToSupervisor, ToWorker>();
        let file = marked(1);
        let carries = matches!(plan, Plan::Listener { .. });
        send_with(&peer, &line, &vec![&file; usize::from(carries)]).unwrap();
        drop(peer);
        let judged = match settled(&mut worker) {
            Ok(Receive::Message(_) | Receive::Unknown { .. }) => true,
            Ok(_) => false,
            Err(error) => ChannelError::DECODE_REASONS.contains(&error.reason()),
        };
        prop_assert!(judged);
    }
}
