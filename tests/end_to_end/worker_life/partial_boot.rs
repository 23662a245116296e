//! At the start the pools that come up serve. One that doesn't is in backoff with
//! its reason, and ends the supervisor only where none comes up or the boot is strict.

use std::fs;

use prefork_api::SlotState;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, http};
use crate::http::serving::pid_on_page;

/// A pool that ends at once.
fn broken(name: &'static str) -> Pool {
    let script = format!("echo {name} has no database >&2; exit 3");
    Pool::command(name, &["/bin/sh", "-c", &script], 2)
}

#[test]
fn a_pool_that_does_not_come_up_leaves_the_others_alone() {
    let prefork = Prefork::launch(&[Pool::bundled("web", 2), broken("api")]);
    prefork.logged(&["api/", "did not come up", "code 3"]);
    prefork.logged(&["every pool is ready but api"]);
    assert_eq!(prefork.ready_pids("web").len(), 2);
    assert_ne!(pid_on_page(prefork.address("web")), 0);
    eventually("it waits with its reason", PATIENCE, || {
        let worker = prefork.worker("api", 0);
        let says = |stderr: String| stderr.contains("no database");
        worker.state == SlotState::Backoff && worker.last_exit.is_some_and(|exit| says(exit.stderr))
    });
    assert!(!prefork.status().ready);
    let health = prefork.cli(&["status", "--exit-code"]);
    assert_eq!(health.code, 7, "{health:?}");

    // A reload mends it, and what serves is not asked to leave for that.
    prefork.configure(&[Pool::bundled("web", 2), Pool::bundled("api", 2)]);
    prefork.done(&["reload"]);
    assert_eq!(prefork.ready_pids("api").len(), 2);
}

#[test]
fn the_supervisor_ends_where_no_pool_comes_up_and_says_why_of_each() {
    let mut prefork = Prefork::launch(&[broken("web"), broken("api")]);
    assert_eq!(prefork.exit_code(), 1);
    for pool in ["web", "api"] {
        prefork.logged(&[pool, "did not come up"]);
        prefork.logged(&[pool, "has no database"]);
    }
}

#[test]
fn a_strict_boot_ends_with_the_first_pool_that_does_not_come_up() {
    let pools = [Pool::bundled("web", 2), broken("api")];
    let mut prefork = Prefork::launch_with("strict_boot = true", &pools);
    assert_eq!(prefork.exit_code(), 1);
    prefork.logged(&["api/", "did not come up"]);
}

#[test]
fn a_pool_whose_address_is_taken_tries_again_until_it_is_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let pools = || {
        let listen = format!("[{address:?}]");
        [
            Pool::bundled("web", 1),
            Pool::bundled("api", 1).set("listen", listen),
        ]
    };
    let mut prefork = Prefork::launch(&pools());
    prefork.logged(&["api/0", "did not come up", &address]);
    assert_ne!(pid_on_page(prefork.address("web")), 0);
    let before = prefork.ready_pid("web", 0);

    // The next supervisor knows of it, too.
    prefork.killed();
    prefork.start_again();
    eventually("it answers", PATIENCE, || {
        http::get_unix(&prefork.control_socket(), "/v1/status").is_ok()
    });
    assert_eq!(prefork.ready_pid("web", 0), before);
    drop(taken);
    prefork.ready_pid("api", 0);
    let answer = http::get(address.parse().expect("it is one"), "/");
    assert_eq!(answer.expect("it is served").status, 200);
    assert_eq!(prefork.ready_pid("web", 0), before);
    prefork.done(&["reload"]);
}

#[test]
fn it_ends_where_every_address_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let listen = format!("[{address:?}]");
    let mut prefork = Prefork::launch(&[Pool::bundled("web", 1).set("listen", listen)]);
    assert_eq!(prefork.exit_code(), 1);
    prefork.logged(&[&address]);
    assert!(fs::metadata(prefork.control_socket()).is_err());
}
