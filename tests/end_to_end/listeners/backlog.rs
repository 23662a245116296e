//! Connections that wait to be accepted, exactly.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::Connection;
use crate::harness::{Pool, Prefork, processes};

const WAITING: &str = "prefork_listener_backlog_connections";

#[test]
fn connections_sent_to_a_stopped_worker_are_its_listeners_backlog() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1).text("heartbeat_timeout", "60s")]);
    let address = prefork.address("web");
    assert_eq!(prefork.metric(WAITING, &[]), 0.0);
    processes::send(prefork.ready_pid("web", 0), Signal::SIGSTOP);
    let mut waiting = Vec::new();
    for count in 1..=9 {
        waiting.push(TcpStream::connect(address).expect("the kernel takes it"));
        eventually("it is in the queue", PATIENCE, || {
            prefork.metric(WAITING, &[]) == f64::from(count)
        });
    }
    assert_eq!(prefork.pool("web").listeners[0].backlog, Some(9));
    assert!(prefork.metric("prefork_listener_backlog_limit_connections", &[]) >= 9.0);
    processes::send(prefork.ready_pid("web", 0), Signal::SIGCONT);
    eventually("they are accepted", PATIENCE, || {
        prefork.metric(WAITING, &[]) == 0.0
    });
    for drops in ["overflows", "drops"] {
        let family = format!("prefork_host_listen_{drops}_total");
        assert_eq!(prefork.scrape().type_of(&family), Some("counter"));
    }
}

#[test]
fn a_unix_listeners_backlog_is_exact_too() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("web.sock");
    let listen = format!("[\"unix:{}\"]", path.display());
    let pool = Pool::bundled("web", 1)
        .text("heartbeat_timeout", "60s")
        .set("listen", listen);
    let prefork = Prefork::start(&[pool]);
    if prefork.scrape().matching(WAITING, &[]).is_empty() {
        eprintln!("SKIPPED: this kernel does not tell a unix listener's queue (unix_diag)");
        return;
    }
    let worker = prefork.ready_pid("web", 0);
    processes::send(worker, Signal::SIGSTOP);
    let mut waiting = Vec::new();
    for count in 1..=7 {
        waiting.push(UnixStream::connect(&path).expect("the kernel takes it"));
        eventually("it is in the queue", PATIENCE, || {
            prefork.metric(WAITING, &[]) == f64::from(count)
        });
    }
    processes::send(worker, Signal::SIGCONT);
    eventually("they are accepted", PATIENCE, || {
        prefork.metric(WAITING, &[]) == 0.0
    });
    let mut client = Connection::open_unix(&path).expect("it listens");
    assert_eq!(client.get("/").expect("it answers").status, 200);
}
