//! A directory service that does not answer: users are looked up for a reload while
//! everything else goes on, and a start says what it waits for.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http;
use crate::harness::{Pool, Prefork, processes};

/// Runs the supervisor where glibc asks a name service cache that this test is.
const SCRIPT: &str = "mkdir -p \"$PWD/nscd\" && exec unshare --mount sh -c '\
     mount -t tmpfs tmpfs /var/run && mkdir /var/run/nscd && \
     mount --bind \"$PWD/nscd\" /var/run/nscd && exec \"$@\"' sh \"$@\"";

/// Whether this test may run a supervisor so.
fn may_mount() -> bool {
    let may = Command::new("unshare").args(["--mount", "true"]).status();
    let may = may.is_ok_and(|status| status.success());
    if !may {
        eprintln!("SKIPPED: no mount namespace of its own");
    }
    may
}

#[test]
fn a_start_that_waits_for_a_directory_service_says_so() {
    if !may_mount() {
        return;
    }
    let asks_us = "until [ -S nscd/socket ]; do sleep 0.05; done; exec \"$@\"";
    let script = SCRIPT.replace("exec \"$@\"", asks_us);
    let pool = Pool::bundled("web", 1).text("user", "nobody");
    let prefork = Prefork::launch_by_script(&script, "", &[pool]);
    let nscd = prefork.dir().join("nscd");
    eventually("its directory is there", PATIENCE, || nscd.is_dir());
    let cache = UnixListener::bind(nscd.join("socket")).expect("the directory is ours");
    // Somebody looks a user up, and is not answered.
    let (asked, _) = cache.accept().expect("a lookup");
    prefork.logged(&["reading the configuration takes longer than a second"]);
    fs::remove_file(nscd.join("socket")).expect("it is ours");
    drop((asked, cache));
    prefork.wait_until_ready();
}

#[test]
fn while_nobody_says_who_a_user_is_everything_else_goes_on() {
    if !may_mount() {
        return;
    }
    let mut prefork = Prefork::launch_by_script(SCRIPT, "", &[Pool::bundled("web", 1)]);
    prefork.wait_until_ready();
    let address: SocketAddr = prefork.address("web");
    let worker = prefork.ready_pid("web", 0);
    let cache = prefork.dir().join("nscd/socket");
    let cache = UnixListener::bind(&cache).expect("the directory is ours");
    prefork.configure(&[Pool::bundled("web", 1).text("user", "nobody")]);
    thread::scope(|scope| {
        let reload = scope.spawn(|| prefork.cli(&["reload"]));
        // Somebody looks a user up, and is not answered.
        let (asked, _) = cache.accept().expect("a lookup");
        prefork.done(&["status"]);
        prefork.done(&["scale", "web", "1"]);
        assert_eq!(http::get(address, "/").expect("it serves").status, 200);
        assert!(!reload.is_finished(), "the reload waits for that alone");
        assert_eq!(prefork.status().generation, 1);
        // glibc gives up on the cache, and looks into the file.
        drop((asked, cache));
        fs::remove_file(prefork.dir().join("nscd/socket")).expect("it is ours");
        let output = reload.join().expect("it runs");
        assert_eq!(output.code, 0, "{output:#?}");
    });
    prefork.replaced("web", 0, worker);
    processes::gone(worker);
    prefork.signal(Signal::SIGTERM);
    assert_eq!(prefork.exit_code(), 0);
}
