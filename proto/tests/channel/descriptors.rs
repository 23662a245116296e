//! Descriptors and the lines they belong to.

use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use prefork_proto::channel::{self, ChannelError, Receive, WorkerEnd};
use prefork_proto::message::{ListenerOffer, ToSupervisor, ToWorker};

use crate::peer::{connected, mark_of, marked, next, send_with, settled};

const LISTENER: &[u8] =
    b"{\"type\":\"listener\",\"name\":\"a\",\"address\":\"127.0.0.1:1\",\"fds\":1}\n";
const START: &[u8] = b"{\"type\":\"start\"}\n";

fn listener(name: &str) -> ToWorker {
    ToWorker::Listener(ListenerOffer {
        name: name.into(),
        address: "127.0.0.1:8080".into(),
        tls: false,
        proxy_protocol: false,
        fds: 1,
    })
}

#[test]
fn each_descriptor_comes_with_its_own_line_and_is_close_on_exec() {
    let (mut supervisor, fd) = channel::pair().unwrap();
    let mut worker = WorkerEnd::new(fd);
    supervisor.queue(&ToWorker::Ping { id: 1 }).unwrap();
    for mark in [10, 11] {
        supervisor
            .queue_with_fd(&listener("web"), OwnedFd::from(marked(mark)))
            .unwrap();
    }
    supervisor.queue(&ToWorker::Start).unwrap();
    supervisor.flush().unwrap();

    assert!(next(&mut worker).fd.is_none());
    for mark in [10, 11] {
        let received = next(&mut worker);
        assert_eq!(received.message, listener("web"));
        let fd = received.fd.unwrap();
        let flags = fcntl(&fd, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & FdFlag::FD_CLOEXEC.bits(), FdFlag::FD_CLOEXEC.bits());
        assert_eq!(mark_of(fd), mark);
    }
    assert!(next(&mut worker).fd.is_none());
    assert_eq!(supervisor.counters().fds_sent, 2);
    assert_eq!(worker.counters().fds_received, 2);
    assert_eq!(worker.counters().fds_rejected, 0);
}

#[test]
fn a_message_and_its_descriptor_are_queued_together_or_not_at_all() {
    let (mut supervisor, _worker) = channel::pair().unwrap();
    for error in [
        supervisor.queue(&listener("web")),
        supervisor.queue_with_fd(&ToWorker::Start, OwnedFd::from(marked(1))),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.reason(), "fd_count");
        assert!(!error.breaks_link());
    }
    assert_eq!(supervisor.queued_bytes(), 0);
}

/// What a worker's end makes of these sends, the last of which breaks a rule.
fn breaks(sends: &[(&[u8], usize)]) -> (ChannelError, u64) {
    let (peer, mut worker) = connected::<ToSupervisor, ToWorker>();
    let file = marked(1);
    for (bytes, fds) in sends {
        send_with(&peer, bytes, &vec![&file; *fds]).unwrap();
    }
    loop {
        match settled(&mut worker) {
            Ok(Receive::Message(_)) => {}
            Ok(other) => panic!("{other:?} instead of an error"),
            Err(error) => return (error, worker.counters().fds_rejected),
        }
    }
}

#[test]
fn descriptors_that_no_line_announces_are_closed_and_end_the_link() {
    let unclaimed = |fds| ChannelError::FdsUnclaimed { fds };
    assert_eq!(breaks(&[(START, 1)]), (unclaimed(1), 1));
    assert_eq!(breaks(&[(START, 0), (START, 3)]), (unclaimed(3), 3));
    assert_eq!(breaks(&[(LISTENER, 2)]), (unclaimed(2), 2));
    // Split over the line's bytes, with or without the line's end.
    let (head, tail) = LISTENER.split_at(9);
    assert_eq!(breaks(&[(head, 1), (tail, 1)]).0, unclaimed(1));
    let (middle, tail) = tail.split_at(9);
    assert_eq!(breaks(&[(head, 1), (middle, 1)]), (unclaimed(2), 2));
    assert_eq!(breaks(&[(head, 1), (middle, 0), (tail, 1)]).0, unclaimed(1));
}

#[test]
fn a_line_without_the_descriptor_that_it_announces_ends_the_link() {
    let missing = ChannelError::FdsMissing {
        kind: "listener".into(),
    };
    assert_eq!(breaks(&[(LISTENER, 0)]), (missing.clone(), 0));
    assert_eq!(breaks(&[(LISTENER, 1), (LISTENER, 0)]), (missing, 0));
}

#[test]
fn more_descriptors_than_can_be_taken_are_all_closed() {
    let (error, rejected) = breaks(&[(LISTENER, 200)]);
    assert_eq!(error.reason(), "fds_truncated");
    assert!(rejected >= 1, "those that arrived are counted");
}

#[test]
fn a_descriptor_with_an_incomplete_line_is_closed_at_the_end_of_the_stream() {
    let (peer, mut worker) = connected::<ToSupervisor, ToWorker>();
    send_with(&peer, &LISTENER[..20], &[&marked(1)]).unwrap();
    drop(peer);
    let error = settled(&mut worker).unwrap_err();
    assert_eq!(error, ChannelError::Truncated { bytes: 20 });
    assert_eq!(worker.counters().fds_rejected, 1);
}

#[test]
fn an_unknown_message_may_carry_a_descriptor_which_is_closed() {
    let (peer, mut worker) = connected::<ToSupervisor, ToWorker>();
    let line = b"{\"type\":\"portrait\",\"bytes\":4096,\"fds\":1}\n";
    send_with(&peer, line, &[&marked(1)]).unwrap();
    send_with(&peer, LISTENER, &[&marked(2)]).unwrap();
    let unknown = settled(&mut worker).unwrap();
    assert!(matches!(unknown, Receive::Unknown { id: None, .. }));
    assert_eq!(mark_of(next(&mut worker).fd.unwrap()), 2);
    assert_eq!(worker.counters().fds_rejected, 1);
    assert_eq!(worker.counters().fds_received, 1);
}

#[test]
fn a_descriptor_may_come_with_a_later_part_of_its_line() {
    let (peer, mut worker) = connected::<ToSupervisor, ToWorker>();
    let stream = [START, LISTENER, START].concat();
    let (head, tail) = stream.split_at(START.len() + 5);
    send_with(&peer, head, &[]).unwrap();
    send_with(&peer, tail, &[&marked(7)]).unwrap();
    assert_eq!(next(&mut worker).message, ToWorker::Start);
    assert_eq!(mark_of(next(&mut worker).fd.unwrap()), 7);
    assert_eq!(next(&mut worker).message, ToWorker::Start);
}
