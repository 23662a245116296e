//! Two well-behaved ends.

use std::thread;
use std::time::{Duration, Instant};

use prefork_proto::channel::{self, Flush, Receive, WorkerEnd};
use prefork_proto::message::{Hello, Message, Reply, ToSupervisor, ToWorker};
use serde_json::{Value, json};

use crate::peer::{DEADLINE, connected, marked, next, send_with, settled};

#[test]
fn messages_arrive_in_order_and_are_counted_by_kind() {
    let (mut supervisor, fd) = channel::pair().unwrap();
    let mut worker = WorkerEnd::new(fd);
    let sent = [
        ToWorker::Ping { id: 1 },
        ToWorker::Tell {
            id: 2,
            command: "cache.flush".into(),
            args: json!({"größe": "ß\n", "n": [1, null]}),
        },
        ToWorker::Ping { id: u64::MAX },
        ToWorker::Start,
    ];
    for message in &sent {
        supervisor.queue(message).unwrap();
    }
    assert_eq!(supervisor.flush().unwrap(), Flush::Done);
    for message in sent {
        assert_eq!(next(&mut worker).message, message);
    }
    assert!(matches!(worker.receive(), Ok(Receive::Blocked)));

    let kind = |name| ToWorker::KINDS.iter().position(|k| *k == name).unwrap();
    let (out, into) = (supervisor.counters(), worker.counters());
    assert_eq!(out.sent[kind("ping")], 2);
    assert_eq!(out.sent[kind("tell")], 1);
    assert_eq!(out.sent.iter().sum::<u64>(), 4);
    assert_eq!(into.received[..ToWorker::KINDS.len()], out.sent);
    assert!(out.sent_bytes > 0);
    assert_eq!(into.received_bytes, out.sent_bytes);
}

#[test]
fn an_unknown_type_and_unknown_fields_leave_the_link_up() {
    let (mut supervisor, fd) = channel::pair().unwrap();
    let mut worker = std::os::unix::net::UnixStream::from(fd);
    let lines = concat!(
        "{\"type\":\"from_the_future\",\"families\":[{\"a\":[{}]}]}\n",
        "{\"id\":9,\"type\":\"cook\\u0000ie\"}\n",
        " {\"colour\":\"blue\",\"type\":\"ready\"}\r\n",
    );
    std::io::Write::write_all(&mut worker, lines.as_bytes()).unwrap();
    let unknown = settled(&mut supervisor).unwrap();
    assert!(
        matches!(&unknown, Receive::Unknown { kind, id: None } if kind == "from_the_future"),
        "{unknown:?}"
    );
    let unknown = settled(&mut supervisor).unwrap();
    assert!(
        matches!(&unknown, Receive::Unknown { kind, id: Some(9) } if kind == "cook\u{fffd}ie"),
        "{unknown:?}"
    );
    assert_eq!(next(&mut supervisor).message, ToSupervisor::Ready);
    assert_eq!(supervisor.counters().received.last(), Some(&2));
}

#[test]
fn waiting_ends_at_its_deadline_and_as_soon_as_there_is_something() {
    let (mut supervisor, fd) = channel::pair().unwrap();
    let mut worker = WorkerEnd::new(fd);
    let begun = Instant::now();
    assert!(!worker.wait(false, Duration::from_millis(30)).unwrap());
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert!(worker.wait(true, DEADLINE).unwrap(), "it can be written to");

    supervisor.queue(&ToWorker::Ping { id: 1 }).unwrap();
    supervisor.queue(&ToWorker::Ping { id: 2 }).unwrap();
    supervisor.flush().unwrap();
    assert!(worker.wait(false, DEADLINE).unwrap());
    next(&mut worker);
    let buffered = worker.wait(false, Duration::ZERO).unwrap();
    assert!(buffered, "a line in the buffer is something to receive");
    next(&mut worker);
    assert!(!worker.wait(false, Duration::ZERO).unwrap());
}

#[test]
fn a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    let overhead = line_length("");
    let (mut supervisor, fd) = channel::pair().unwrap();
    let mut worker = WorkerEnd::new(fd);
    let longest = tell(&"x".repeat(channel::LINE_LIMIT - overhead));
    supervisor.queue(&longest).unwrap();
    assert_eq!(supervisor.queued_bytes(), channel::LINE_LIMIT);
    supervisor.flush().unwrap();
    assert_eq!(next(&mut worker).message, longest);

    let error = supervisor
        .queue(&tell(&"x".repeat(channel::LINE_LIMIT - overhead + 1)))
        .unwrap_err();
    assert_eq!(error.reason(), "too_long");
    assert!(!error.breaks_link());
    assert_eq!(supervisor.queued_bytes(), 0);
}

fn tell(text: &str) -> ToWorker {
    ToWorker::Tell {
        id: 1,
        command: "say".into(),
        args: Value::from(text),
    }
}

fn line_length(text: &str) -> usize {
    serde_json::to_vec(&tell(text)).unwrap().len() + 1
}

#[test]
fn both_ends_can_block_on_each_other_in_two_threads() {
    const ROUNDS: u64 = 2_000;
    let (mut supervisor, fd) = channel::pair().unwrap();
    let worker = thread::spawn(move || {
        let mut worker = WorkerEnd::new(fd);
        loop {
            match settled(&mut worker).unwrap() {
                Receive::Message(received) => {
                    let ToWorker::Ping { id } = received.message else {
                        panic!("{:?} is not a ping", received.message);
                    };
                    worker
                        .queue(&ToSupervisor::Reply(Reply::done(id, Value::Null)))
                        .unwrap();
                    assert_eq!(worker.flush().unwrap(), Flush::Done);
                }
                Receive::Closed => return worker.counters().clone(),
                other => panic!("{other:?}"),
            }
        }
    });
    for id in 1..=ROUNDS {
        supervisor.queue(&ToWorker::Ping { id }).unwrap();
        supervisor.flush().unwrap();
        let expected = ToSupervisor::Reply(Reply::done(id, Value::Null));
        assert_eq!(next(&mut supervisor).message, expected);
    }
    let ours = supervisor.counters().clone();
    drop(supervisor);
    let theirs = worker.join().unwrap();
    assert_eq!(theirs.sent.iter().sum::<u64>(), ROUNDS);
    assert_eq!(theirs.sent_bytes, ours.received_bytes);
    assert_eq!(theirs.received_bytes, ours.sent_bytes);
}

#[test]
fn a_message_survives_a_non_blocking_socket_too() {
    let (peer, mut supervisor) = connected::<ToWorker, ToSupervisor>();
    peer.set_nonblocking(true).unwrap();
    let mut worker = WorkerEnd::new(peer.into());
    let hello = ToSupervisor::Hello(Hello {
        protocol: 1,
        pid: 1,
        program: "p".into(),
        version: "v".into(),
        capabilities: Vec::new(),
    });
    worker.queue(&hello).unwrap();
    worker.flush().unwrap();
    assert_eq!(next(&mut supervisor).message, hello);
    assert!(matches!(worker.receive(), Ok(Receive::Blocked)));
}

#[test]
fn a_channel_is_drained_only_when_the_next_call_would_find_nothing() {
    let (mut peer, mut channel) = connected::<ToWorker, ToSupervisor>();
    let line = b"{\"type\":\"ready\"}\n";
    assert!(!channel.is_drained(), "nothing was read");

    for (sent, messages) in [(1, 1), (2, 2), (200, 200)] {
        std::io::Write::write_all(&mut peer, &line.repeat(sent)).unwrap();
        for left in (0..messages).rev() {
            assert_eq!(next(&mut channel).message, ToSupervisor::Ready);
            if channel.is_drained() {
                assert_eq!(left, 0, "of {sent} lines");
            }
        }
        let received = channel.counters().received_bytes;
        assert!(matches!(channel.receive(), Ok(Receive::Blocked)));
        assert_eq!(channel.counters().received_bytes, received);
    }

    // A read ends with the segment that carries a descriptor, whatever follows.
    let offer = b"{\"type\":\"scoreboard\",\"abi\":1,\"bytes\":256,\"fds\":1}\n";
    send_with(&peer, offer, &[&marked(1)]).unwrap();
    std::io::Write::write_all(&mut peer, line).unwrap();
    assert!(next(&mut channel).fd.is_some());
    assert!(!channel.is_drained(), "a line waits in the socket");
    assert_eq!(next(&mut channel).message, ToSupervisor::Ready);
    assert!(channel.is_drained());
}
