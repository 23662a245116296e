//! A listening socket is one for all who hold it, so that one of them can make
//! it deaf: by shutting it down, or by a filter. That is seen, said and mended.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_proto::listening::refuse_handshakes;
use socket2::SockRef;
use tempfile::TempDir;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, directory, http, processes};

/// A socket that the supervisor and its workers were given, and somebody hostile.
struct Shared {
    dir: TempDir,
    socket: TcpListener,
}

impl Shared {
    fn new() -> Self {
        Self {
            dir: directory(),
            socket: TcpListener::bind("127.0.0.1:0").expect("a port is free"),
        }
    }

    #[track_caller]
    fn start(&self) -> Prefork {
        let pool = Pool::bundled("web", 2).set("listen", "[\"systemd:http\"]");
        let socket: OwnedFd = self.socket.try_clone().expect("it is open").into();
        // Nobody reads there.
        let notify = self.dir.path().join("notify");
        let prefork = Prefork::launch_as_service(&notify, socket, &[pool]);
        prefork.wait_until_ready();
        prefork
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is bound")
    }

    /// A connection that is made soon, or not at all.
    fn is_served(&self) -> bool {
        let within = Duration::from_millis(300);
        TcpStream::connect_timeout(&self.address(), within).is_ok()
            && http::get(self.address(), "/").is_ok_and(|answer| answer.status == 200)
    }

    /// Keeps whoever holds the socket from taking its filter off; `false` where
    /// this machine lacks the means.
    fn lock_filter(&self) -> bool {
        // SO_LOCK_FILTER, socket(7).
        let script = "setsockopt(STDIN, 1, 44, pack(\"i\", 1)) or die $!";
        let stdin: OwnedFd = self.socket.try_clone().expect("it is open").into();
        let locked = Command::new("perl")
            .args(["-e", script])
            .stdin(Stdio::from(stdin))
            .status();
        locked.is_ok_and(|status| status.success())
    }
}

#[test]
fn one_that_was_shut_down_or_filtered_is_mended_at_the_next_look() {
    let shared = Shared::new();
    let prefork = shared.start();
    assert!(shared.is_served());
    SockRef::from(&shared.socket)
        .shutdown(Shutdown::Both)
        .expect("it listens");
    eventually("it is served again", PATIENCE, || shared.is_served());
    prefork.logged(&["listener systemd:http", "had shut it down"]);
    for pid in prefork.ready_pids("web") {
        eventually("its worker waits", PATIENCE, || processes::sleeps(pid));
    }
    refuse_handshakes(&shared.socket).expect("the filter is attached");
    eventually("it is served again", PATIENCE, || shared.is_served());
    prefork.logged(&["listener systemd:http", "had put a filter before it"]);
}

#[test]
fn one_that_was_shut_down_between_two_runs_keeps_nobody_from_starting() {
    let shared = Shared::new();
    SockRef::from(&shared.socket)
        .shutdown(Shutdown::Both)
        .expect("it listens");
    let _prefork = shared.start();
    assert!(shared.is_served());
}

#[test]
fn a_filter_that_nobody_can_take_off_is_said_and_a_reload_or_a_start_binds_anew() {
    let shared = Shared::new();
    let mut prefork = shared.start();
    refuse_handshakes(&shared.socket).expect("the filter is attached");
    if !shared.lock_filter() {
        eprintln!("SKIPPED: no perl to lock a filter with");
        return;
    }
    // It may have been taken off before it was locked.
    let _ = refuse_handshakes(&shared.socket);
    if !prefork.done(&["status"]).contains("socket filter") {
        eprintln!("SKIPPED: the supervisor was faster");
        return;
    }
    prefork.logged(&["listener systemd:http", "by a socket filter"]);
    prefork.done(&["reload"]);
    eventually("it is served again", PATIENCE, || shared.is_served());
    assert!(!prefork.done(&["status"]).contains("socket filter"));

    prefork.signal(Signal::SIGTERM);
    assert_eq!(prefork.exit_code(), 0);
    let next = shared.start();
    eventually("it is served again", PATIENCE, || shared.is_served());
    drop(next);
}
