//! A peer that reads slowly, or not at all.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};
use prefork_proto::channel::{
    self, Channel, Flush, QUEUE_LIMIT, Receive, SupervisorEnd, WorkerEnd,
};
use prefork_proto::message::{ListenerOffer, ToWorker};
use serde_json::Value;

use crate::peer::{connected, mark_of, marked, next, read_available};

fn tell(id: u64, bytes: usize) -> ToWorker {
    ToWorker::Tell {
        id,
        command: "keep".into(),
        args: Value::from("x".repeat(bytes)),
    }
}

/// Makes the kernel take as little at once as it can.
fn narrow(channel: &SupervisorEnd) {
    setsockopt(&channel.as_fd(), sockopt::SndBuf, &1).unwrap();
}

#[test]
fn a_peer_that_never_reads_fills_a_bounded_queue_and_loses_nothing() {
    let (mut supervisor, fd) = channel::pair().unwrap();
    let mut queued = 0;
    let error = loop {
        match supervisor.queue(&tell(queued, 3000)) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
        supervisor.flush().unwrap();
        assert!(supervisor.queued_bytes() <= QUEUE_LIMIT);
        assert!(queued < 10_000, "the queue never fills");
    };
    assert_eq!(error.reason(), "queue_full");
    assert!(!error.breaks_link());
    let waiting = supervisor.queued_bytes();
    assert!(waiting > QUEUE_LIMIT - 4000, "{waiting}");
    assert_eq!(supervisor.flush().unwrap(), Flush::Blocked);

    let mut worker = WorkerEnd::new(fd);
    for id in 0..queued {
        supervisor.flush().unwrap();
        assert_eq!(next(&mut worker).message, tell(id, 3000));
    }
    assert_eq!(supervisor.flush().unwrap(), Flush::Done);
    assert_eq!(supervisor.queued_bytes(), 0);
    supervisor.queue(&tell(queued, 3000)).unwrap();
}

#[test]
fn a_line_that_is_sent_in_parts_brings_its_descriptor_once() {
    let (mut supervisor, fd) = channel::pair().unwrap();
    narrow(&supervisor);
    let mut worker = WorkerEnd::new(fd);
    let offer = ToWorker::Listener(ListenerOffer {
        name: "n".repeat(60_000),
        address: "unix:/a".into(),
        tls: true,
        proxy_protocol: false,
        fds: 1,
    });
    supervisor.queue(&tell(1, 20_000)).unwrap();
    supervisor
        .queue_with_fd(&offer, OwnedFd::from(marked(5)))
        .unwrap();
    supervisor.queue(&tell(2, 20_000)).unwrap();

    let mut blocked = 0;
    let mut received = Vec::new();
    while received.len() < 3 {
        blocked += usize::from(supervisor.flush().unwrap() == Flush::Blocked);
        match worker.receive().unwrap() {
            Receive::Message(message) => received.push(message),
            Receive::Blocked => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(blocked > 10, "the kernel took too much at once: {blocked}");
    assert_eq!(received[0].message, tell(1, 20_000));
    assert_eq!(received[1].message, offer);
    assert_eq!(received[2].message, tell(2, 20_000));
    assert_eq!(mark_of(received.swap_remove(1).fd.unwrap()), 5);
    assert_eq!(supervisor.counters().fds_sent, 1);
    assert_eq!(worker.counters().fds_rejected, 0);
}

#[test]
fn a_message_counts_as_sent_when_all_of_it_is() {
    let (mut peer, mut supervisor) = connected();
    narrow(&supervisor);
    supervisor.queue(&tell(1, 60_000)).unwrap();
    assert_eq!(supervisor.flush().unwrap(), Flush::Blocked);
    let total = |channel: &SupervisorEnd| channel.counters().sent.iter().sum::<u64>();
    assert!(supervisor.counters().sent_bytes > 0);
    assert_eq!(total(&supervisor), 0);
    let mut read = 0;
    while supervisor.flush().unwrap() == Flush::Blocked {
        read += read_available(&mut peer).len();
    }
    read += read_available(&mut peer).len();
    assert_eq!(total(&supervisor), 1);
    assert_eq!(supervisor.counters().sent_bytes, read as u64);
}

#[test]
fn a_channel_can_be_moved_to_another_thread() {
    fn assert_send<T: Send + Sync + Unpin>() {}
    assert_send::<Channel<ToWorker, prefork_proto::message::ToSupervisor>>();
}
