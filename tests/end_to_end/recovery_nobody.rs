//! The supervisor is killed, and nobody starts another.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::{self, Connection};
use crate::harness::{Pool, Prefork};

#[test]
fn orphans_serve_until_their_time_is_over_and_leave_nothing() {
    let pools = [Pool::service("web", 2), Pool::bundled("files", 1)];
    let mut prefork = Prefork::launch_with("orphan_timeout = \"2s\"", &pools);
    prefork.wait_until_ready();
    let addresses = ["web", "files"].map(|pool| prefork.address(pool));
    prefork.signal(Signal::SIGKILL);
    let killed = Instant::now();
    prefork.ended();
    for address in addresses {
        assert_eq!(http::get(address, "/").unwrap().status, 200);
    }
    // It is answered after its worker's time: a drain finishes what it has.
    let mut long = Connection::open(addresses[0]).unwrap();
    long.send("GET", "/slow/3000", "").unwrap();
    assert_eq!(long.receive().unwrap().status, 200);
    assert!(killed.elapsed() >= Duration::from_secs(3));
    eventually("no process is left", PATIENCE, || {
        prefork.processes().is_empty()
    });
    for address in addresses {
        TcpListener::bind(address).unwrap();
    }
    // Nobody is there to go on from: the next start is a clean one.
    prefork.start_again();
    prefork.wait_until_ready();
    assert_eq!(prefork.pool("web").ready, 2);
    prefork.logged(&["no worker of the supervisor before lives"]);
}
