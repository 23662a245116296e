//! The kernel's limit on descriptors that are on their way, which is counted per
//! user and does not hold for root: this test becomes another user, so it has a
//! process of its own.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Uid, setuid};
use prefork_proto::channel::{self, Flush, Receive, WorkerEnd};
use prefork_proto::message::{ListenerOffer, ToWorker};

const LIMIT: u64 = 40;

fn offer(index: usize) -> ToWorker {
    ToWorker::Listener(ListenerOffer {
        name: index.to_string(),
        address: "127.0.0.1:8080".into(),
        tls: false,
        proxy_protocol: false,
        fds: 1,
    })
}

#[test]
fn a_message_waits_while_the_user_has_too_many_descriptors_on_their_way() {
    if Uid::effective().is_root() {
        setuid(Uid::from_raw(54_321)).expect("to become another user");
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT, hard).expect("to lower the limit");

    let (mut supervisor, fd) = channel::pair().expect("a channel");
    let mut sent = 0;
    let error = loop {
        let listener = OwnedFd::from(File::open("/dev/null").expect("/dev/null"));
        supervisor
            .queue_with_fd(&offer(sent), listener)
            .expect("to queue");
        sent += 1;
        match supervisor.flush() {
            Ok(flush) => assert_eq!(flush, Flush::Done),
            Err(error) => break error,
        }
        assert!(sent < 1000, "the limit is never met");
    };
    assert_eq!(error.reason(), "etoomanyrefs");
    assert!(!error.breaks_link());
    assert!(supervisor.queued_bytes() > 0);
    assert!(supervisor.flush().is_err(), "nobody has read");

    let mut worker = WorkerEnd::new(fd);
    for index in 0..sent {
        let Receive::Message(received) = worker.receive().expect("a message") else {
            panic!("listener {index} of {sent} is not there");
        };
        assert_eq!(received.message, offer(index));
        assert!(received.fd.is_some());
        if index == 0 {
            assert_eq!(supervisor.flush().expect("to send"), Flush::Done);
        }
    }
    assert!(matches!(worker.receive(), Ok(Receive::Blocked)));
    assert_eq!(supervisor.counters().fds_sent, sent as u64);
}
