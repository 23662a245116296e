//! A channel that is taken apart and put together again goes on as if nothing
//! had happened, wherever in the stream that is.

use std::os::fd::OwnedFd;

use prefork_proto::channel::parts::{InboxParts, Octets, OutboxParts, Parts, PartsError};
use prefork_proto::channel::{self, Channel, Receive, SupervisorEnd, WorkerEnd};
use prefork_proto::message::{ListenerOffer, Message, ToWorker};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use crate::peer::{mark_of, marked};

/// Takes a channel apart, writes it down, reads it and puts it together.
fn handed_on<Out: Message, In: Message>(channel: Channel<Out, In>) -> Channel<Out, In> {
    let mut fds: Vec<Option<OwnedFd>> = Vec::new();
    let numbered = channel.into_parts().try_map(|fd| {
        fds.push(Some(fd));
        Ok::<_, ()>(fds.len() - 1)
    });
    let text = serde_json::to_string(&numbered.unwrap()).unwrap();
    let read: Parts<usize> = serde_json::from_str(&text).unwrap();
    let owned = read.try_map(|number| fds[number].take().ok_or(number));
    Channel::from_parts(owned.unwrap()).unwrap()
}

fn message(number: usize, length: Option<usize>) -> ToWorker {
    match length {
        Some(length) => ToWorker::Tell {
            id: number as u64,
            command: "t\u{e9}\u{1f980}".into(),
            args: Value::from("\u{e9}".repeat(length)),
        },
        None => ToWorker::Listener(ListenerOffer {
            name: number.to_string(),
            address: "unix:/a".into(),
            tls: false,
            proxy_protocol: false,
            fds: 1,
        }),
    }
}

/// Receives what is there; the descriptors by their marks.
fn receive_all(worker: &mut WorkerEnd, into: &mut Vec<(ToWorker, Option<u64>)>, most: usize) {
    for _ in 0..most {
        match worker.receive().unwrap() {
            Receive::Message(received) => into.push((received.message, received.fd.map(mark_of))),
            Receive::Blocked => return,
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_at_any_point_of_the_stream(
        // A message of so many characters, or one with a descriptor; whether each
        // end is handed on after it; and how many messages are read then.
        steps in vec((prop::option::weighted(0.7, 0..20_000usize), any::<bool>(), any::<bool>(), 0..3usize), 1..24),
    ) {
        let (mut supervisor, theirs) = channel::pair().unwrap();
        let mut worker = WorkerEnd::new(theirs);
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for (number, (length, hand_sender, hand_receiver, most)) in steps.into_iter().enumerate() {
            let message = message(number, length);
            let mark = length.is_none().then_some(number as u64);
            let queued = match mark {
                Some(mark) => supervisor.queue_with_fd(&message, marked(mark).into()),
                None => supervisor.queue(&message),
            };
            if queued.is_ok() {
                sent.push((message, mark));
            }
            supervisor.flush().unwrap();
            if hand_sender {
                supervisor = handed_on(supervisor);
            }
            receive_all(&mut worker, &mut received, most);
            if hand_receiver {
                worker = handed_on(worker);
            }
        }
        while received.len() < sent.len() {
            let before = received.len();
            supervisor.flush().unwrap();
            receive_all(&mut worker, &mut received, usize::MAX);
            prop_assert!(received.len() > before || supervisor.queued_bytes() > 0);
        }
        prop_assert_eq!(received, sent);
    }
}

#[test]
fn parts_of_no_channel_are_refused() {
    let socket = || channel::pair().unwrap().1;
    let with = |outbox| Parts {
        socket: socket(),
        inbox: InboxParts {
            bytes: Octets::default(),
            arrivals: vec![],
            closed: false,
        },
        outbox,
    };
    let line = |end, kind: &str| channel::parts::LinePart {
        end,
        kind: kind.into(),
        fd: None,
    };
    let bytes = || Octets(b"{}\n{}\n".to_vec());
    let unknown = OutboxParts {
        bytes: bytes(),
        lines: vec![line(3, "ping"), line(6, "dance")],
    };
    let refused = SupervisorEnd::from_parts(with(unknown)).unwrap_err();
    assert!(matches!(refused, PartsError::UnknownKind { kind } if kind == "dance"));
    for ends in [vec![], vec![3], vec![3, 3, 6], vec![6, 3], vec![3, 9]] {
        let lines = ends.iter().map(|end| line(*end, "ping")).collect();
        let outbox = OutboxParts {
            bytes: bytes(),
            lines,
        };
        let refused = SupervisorEnd::from_parts(with(outbox)).unwrap_err();
        assert!(matches!(refused, PartsError::Lines { .. }), "{ends:?}");
    }
}
