//! Whatever happens on a channel, it leaves no descriptor open. The table of
//! descriptors is the whole process's, so this test has one of its own.

use std::fs::{self, File};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use prefork_proto::channel::{self, Receive, SupervisorEnd, WorkerEnd};
use prefork_proto::message::{ListenerOffer, ToWorker};

const LISTENER: &str =
    "{\"type\":\"listener\",\"name\":\"a\",\"address\":\"127.0.0.1:1\",\"fds\":1}\n";

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn null() -> OwnedFd {
    File::open("/dev/null").expect("/dev/null").into()
}

fn listener() -> ToWorker {
    ToWorker::Listener(ListenerOffer {
        name: "web".into(),
        address: "127.0.0.1:8080".into(),
        tls: false,
        proxy_protocol: false,
        fds: 1,
    })
}

fn channel_pair() -> (SupervisorEnd, WorkerEnd) {
    let (supervisor, fd) = channel::pair().expect("a channel");
    (supervisor, WorkerEnd::new(fd))
}

/// Receives until there is nothing more, and drops it all.
fn receive_all(worker: &mut WorkerEnd) {
    while let Ok(Receive::Message(_) | Receive::Unknown { .. }) = worker.receive() {}
}

/// Has a worker's end receive what a hostile supervisor sends.
fn receive_raw(sends: &[(&str, usize)]) {
    let (peer, other) = UnixStream::pair().expect("a socket pair");
    let mut worker = WorkerEnd::new(other.into());
    let file = null();
    for (text, count) in sends {
        let fds = vec![file.as_raw_fd(); *count];
        let control = [ControlMessage::ScmRights(&fds)];
        let control = &control[..usize::from(*count > 0)];
        let bytes = [IoSlice::new(text.as_bytes())];
        sendmsg::<()>(peer.as_raw_fd(), &bytes, control, MsgFlags::empty(), None).expect("to send");
    }
    drop(peer);
    receive_all(&mut worker);
}

fn everything_that_can_happen() {
    // Sent and received; sent and never received; queued and never sent.
    let (mut supervisor, mut worker) = channel_pair();
    supervisor.queue_with_fd(&listener(), null()).expect("room");
    supervisor.flush().expect("to send");
    receive_all(&mut worker);
    supervisor.queue_with_fd(&listener(), null()).expect("room");
    supervisor.flush().expect("to send");
    supervisor.queue_with_fd(&listener(), null()).expect("room");
    drop((supervisor, worker));

    // Refused by the queue: not announced, and no room.
    let (mut supervisor, worker) = channel_pair();
    assert!(supervisor.queue_with_fd(&ToWorker::Start, null()).is_err());
    while supervisor.queue_with_fd(&listener(), null()).is_ok() {}
    // Refused by the kernel.
    drop(worker);
    assert!(supervisor.flush().is_err());

    receive_raw(&[(LISTENER, 1), (LISTENER, 0)]);
    receive_raw(&[("{\"type\":\"start\"}\n", 1)]);
    receive_raw(&[("{\"type\":\"novel\",\"fds\":1}\n", 1)]);
    receive_raw(&[(LISTENER, 2)]);
    receive_raw(&[(LISTENER, 4)]);
    receive_raw(&[(LISTENER, 250)]);
    receive_raw(&[(&LISTENER[..9], 1), (&LISTENER[9..20], 1)]);
    receive_raw(&[(&LISTENER[..9], 1)]);
    receive_raw(&[("nonsense\n", 1), (LISTENER, 1)]);
}

#[test]
fn no_descriptor_is_left_open() {
    everything_that_can_happen();
    let before = open_descriptors();
    for _ in 0..20 {
        everything_that_can_happen();
    }
    assert_eq!(open_descriptors(), before);
}
