//! What a process at its RLIMIT_NOFILE sees. The limit is the whole process's,
//! so this test has one of its own.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prefork_proto::channel::{self, Receive, WorkerEnd};
use prefork_proto::message::{ListenerOffer, ToWorker};

#[test]
fn a_process_at_its_limit_of_descriptors_says_so_and_leaks_none() {
    let (mut supervisor, fd) = channel::pair().expect("a channel");
    let mut worker = WorkerEnd::new(fd);
    let offer = ToWorker::Listener(ListenerOffer {
        name: "web".into(),
        address: "127.0.0.1:8080".into(),
        tls: false,
        proxy_protocol: false,
        fds: 1,
    });
    let listener = OwnedFd::from(File::open("/dev/null").expect("/dev/null"));
    supervisor
        .queue_with_fd(&offer, listener)
        .expect("to queue");
    supervisor.flush().expect("to send");

    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).expect("to lower the limit");
    let mut all = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        all.push(file);
    }

    let error = channel::pair().expect_err("no descriptor is left");
    assert_eq!(error.reason(), "emfile");
    assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");

    assert!(
        worker
            .wait(false, Duration::from_secs(10))
            .expect("to wait")
    );
    let error = worker.receive().expect_err("no descriptor is left");
    assert_eq!(error.reason(), "fds_truncated");
    assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
    assert!(matches!(worker.receive(), Ok(Receive::Closed)));

    // One at the limit holds exactly as many as before.
    assert!(File::open("/dev/null").is_err());
    all.pop();
    all.push(File::open("/dev/null").expect("the one that was given back"));
    assert!(File::open("/dev/null").is_err());
}
