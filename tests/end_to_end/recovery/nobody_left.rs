//! The supervisor is killed, and nobody starts another.

use std::net::TcpListener;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::Connection;
use crate::harness::{Pool, Prefork};

#[test]
fn orphans_serve_until_their_time_is_over_and_leave_nothing() {
    let pools = [Pool::service("web", 2), Pool::bundled("files", 1)];
    let mut prefork = Prefork::launch_with("orphan_timeout = \"2s\"", &pools);
    prefork.wait_until_ready();
    let addresses = ["web", "files"].map(|pool| prefork.address(pool));
    // They are there before: who comes later may find that the time is over.
    let open = addresses.map(|address| Connection::open(address).unwrap());
    // It is answered after its worker's time: a drain finishes what it has.
    let mut long = Connection::open(addresses[0]).unwrap();
    long.send("GET", "/slow/4000", "").unwrap();
    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    for mut connection in open {
        connection.send("GET", "/", "").unwrap();
        assert_eq!(connection.receive().unwrap().status, 200);
    }
    assert_eq!(long.receive().unwrap().status, 200);
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
