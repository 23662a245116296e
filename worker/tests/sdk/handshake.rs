use std::fs::File;
use std::os::fd::OwnedFd;

use prefork_proto::message::{PROTOCOL, ToSupervisor, ToWorker};
use serde_json::json;

use prefork_testkit::supervisor::{Orders, Worker};

#[test]
fn a_worker_says_who_it_is_and_what_it_can_do() {
    let mut worker = Worker::spawned(&Orders::default());
    let hello = worker.hello();
    assert_eq!(hello.protocol, PROTOCOL);
    assert_eq!(hello.pid, worker.process.pid());
    assert_eq!((&*hello.program, &*hello.version), ("probe", "1.2.3"));
    assert_eq!(
        hello.capabilities,
        [
            "tell",
            "reload",
            "pause",
            "rescue",
            "http_counts",
            "scoreboard",
            "rejoin",
            "output",
            "tls",
            "client_certificates",
            "access_log",
            "proxy_protocol",
            "requests",
            "pass_on",
            "inherit"
        ]
    );

    let orders = Orders {
        kind: "plain",
        ..Orders::default()
    };
    let mut plain = Worker::spawned(&orders);
    assert_eq!(
        plain.hello().capabilities,
        [
            "pause",
            "rescue",
            "http_counts",
            "scoreboard",
            "rejoin",
            "output",
            "tls",
            "client_certificates",
            "access_log",
            "proxy_protocol",
            "requests",
            "pass_on",
            "inherit"
        ]
    );
}

#[test]
fn a_ready_worker_holds_no_descriptor_twice() {
    let worker = Worker::ready();
    let fds = std::fs::read_dir(format!("/proc/{}/fd", worker.process.pid())).unwrap();
    let sockets: Vec<String> = fds
        .map(|fd| std::fs::read_link(fd.unwrap().path()).unwrap())
        .map(|target| target.to_string_lossy().into_owned())
        .filter(|target| target.starts_with("socket:"))
        .collect();
    // The channel, the listener, and the pair (one end held twice) by which
    // the runtime learns of signals.
    assert_eq!(sockets.len(), 5, "{sockets:?}");
}

#[test]
fn a_message_out_of_order_ends_the_worker_with_1() {
    let mut worker = Worker::spawned(&Orders::default());
    worker.hello();
    worker.say(&ToWorker::Start);
    let bye = worker.until(Some);
    assert!(matches!(bye, ToSupervisor::Bye { .. }), "{bye:?}");
    assert_eq!(worker.process.exit().code(), Some(1));
    let stderr = worker.process.stderr();
    assert!(
        stderr.contains("expected `welcome` from the supervisor, received `start`"),
        "{stderr}"
    );
}

#[test]
fn the_handshake_is_not_had_twice() {
    let mut worker = Worker::ready();
    worker.say(&ToWorker::Start);
    let (_, last) = worker.last_words();
    assert!(matches!(last, ToSupervisor::Bye { reason } if reason.contains("`start`")));
    assert_eq!(worker.process.exit().code(), Some(1));
}

#[test]
fn another_protocol_is_refused() {
    let mut orders = Orders::default();
    let mut worker = Worker::spawned(&orders);
    worker.hello();
    orders.welcome.protocol = 99;
    worker.say(&ToWorker::Welcome(orders.welcome));
    assert_eq!(worker.process.exit().code(), Some(1));
    assert!(worker.process.stderr().contains("protocol 99"));
}

#[test]
fn a_descriptor_that_does_not_listen_is_refused() {
    let orders = Orders::default();
    let mut worker = Worker::spawned(&orders);
    worker.hello();
    worker.say(&ToWorker::Welcome(orders.welcome));
    worker.offer_fd(OwnedFd::from(File::open("/dev/null").unwrap()));
    assert_eq!(worker.process.exit().code(), Some(1));
    let stderr = worker.process.stderr();
    assert!(
        stderr.contains("cannot accept from listener main"),
        "{stderr}"
    );
}

#[test]
fn an_application_that_does_not_start_says_why() {
    let mut orders = Orders::default();
    orders.welcome.app = json!({ "fail": "no database" });
    let mut worker = Worker::spawned(&orders);
    worker.hello();
    worker.say(&ToWorker::Welcome(orders.welcome));
    worker.offer();
    worker.say(&ToWorker::Start);
    let bye = worker.until(Some);
    assert!(
        matches!(&bye, ToSupervisor::Bye { reason } if reason.contains("no database")),
        "{bye:?}"
    );
    assert_eq!(worker.process.exit().code(), Some(1));
    assert!(worker.process.stderr().contains("no database"));
}

#[test]
fn a_worker_that_is_told_to_stop_while_it_starts_leaves_with_0() {
    let mut worker = Worker::spawned(&Orders::default());
    worker.hello();
    assert!(worker.ask(|id| ToWorker::Stop { id }).ok);
    assert_eq!(worker.process.exit().code(), Some(0));
}

#[test]
fn a_channel_that_closes_before_ready_ends_the_worker_with_1() {
    let mut worker = Worker::spawned(&Orders::default());
    worker.hello();
    let Worker {
        mut process, end, ..
    } = worker;
    drop(end);
    assert_eq!(process.exit().code(), Some(1));
    assert!(process.stderr().contains("closed the channel"));
}
