//! How the end of the other side is seen.

use std::io::Write;

use prefork_proto::channel::{self, ChannelError, Receive, WorkerEnd};
use prefork_proto::message::{ToSupervisor, ToWorker};

use crate::peer::{connected, next, settled};

fn bye() -> ToSupervisor {
    ToSupervisor::Bye {
        reason: "done".into(),
    }
}

#[test]
fn the_last_words_come_before_the_end() {
    let (mut supervisor, fd) = channel::pair().unwrap();
    let mut worker = WorkerEnd::new(fd);
    worker.queue(&bye()).unwrap();
    worker.flush().unwrap();
    drop(worker);
    assert_eq!(next(&mut supervisor).message, bye());
    for _ in 0..2 {
        assert!(matches!(settled(&mut supervisor), Ok(Receive::Closed)));
    }
}

#[test]
fn a_peer_that_dies_with_unread_input_is_closed_after_its_last_words() {
    let (mut supervisor, fd) = channel::pair().unwrap();
    let mut worker = WorkerEnd::new(fd);
    supervisor.queue(&ToWorker::Start).unwrap();
    supervisor.flush().unwrap();
    worker.queue(&bye()).unwrap();
    worker.flush().unwrap();
    drop(worker);
    assert_eq!(next(&mut supervisor).message, bye());
    assert!(matches!(settled(&mut supervisor), Ok(Receive::Closed)));
}

#[test]
fn a_peer_that_dies_inside_a_line_with_unread_input_has_truncated_it() {
    let (mut peer, mut supervisor) = connected::<ToWorker, ToSupervisor>();
    supervisor.queue(&ToWorker::Start).unwrap();
    supervisor.flush().unwrap();
    peer.write_all(b"{\"type\"").unwrap();
    drop(peer);
    let error = settled(&mut supervisor).unwrap_err();
    assert_eq!(error, ChannelError::Truncated { bytes: 7 });
}

#[test]
fn sending_to_a_closed_peer_is_an_error_and_what_it_had_sent_can_be_read() {
    let (mut supervisor, fd) = channel::pair().unwrap();
    let mut worker = WorkerEnd::new(fd);
    worker.queue(&bye()).unwrap();
    worker.flush().unwrap();
    drop(worker);
    supervisor.queue(&ToWorker::Start).unwrap();
    let error = supervisor.flush().unwrap_err();
    assert_eq!(error.reason(), "epipe");
    assert!(error.breaks_link());
    assert!(error.to_string().contains("closed its end"), "{error}");
    assert_eq!(supervisor.queued_bytes(), 0);
    assert_eq!(next(&mut supervisor).message, bye());
    assert!(matches!(settled(&mut supervisor), Ok(Receive::Closed)));
}

#[test]
fn the_socket_outlives_its_channel_when_it_is_given_back() {
    let (mut supervisor, fd) = channel::pair().unwrap();
    let mut worker = WorkerEnd::new(WorkerEnd::new(fd).into_fd());
    supervisor.queue(&ToWorker::Start).unwrap();
    supervisor.flush().unwrap();
    assert_eq!(next(&mut worker).message, ToWorker::Start);
}
