//! Under a service manager: told when it is ready and stops, and that it lives;
//! serving from the sockets that it was given.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use prefork_proto::listening::refuse_handshakes;
use tempfile::TempDir;

use crate::harness::deadline::PATIENCE;
use crate::harness::{Pool, Prefork, directory, http};

/// A service manager, with the socket that it bound for the service.
struct Manager {
    dir: TempDir,
    notified: UnixDatagram,
    http: TcpListener,
}

impl Manager {
    fn new() -> Self {
        let dir = directory();
        let notified =
            UnixDatagram::bind(dir.path().join("notify")).expect("the directory is writable");
        let http = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        Self {
            dir,
            notified,
            http,
        }
    }

    fn start(&self, listen: &str) -> Prefork {
        let pool = Pool::bundled("web", 2).set("listen", format!("[{listen:?}]"));
        let socket = self.http.try_clone().expect("there are descriptors left");
        let notify = self.dir.path().join("notify");
        Prefork::launch_as_service(&notify, socket.into(), &[pool])
    }

    fn address(&self) -> SocketAddr {
        self.http.local_addr().expect("it is bound")
    }

    /// Every line that it was told up to and with one that begins so.
    #[track_caller]
    fn told_until(&self, start: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut lines: Vec<String> = Vec::new();
        let mut buffer = [0; 4096];
        while !lines.iter().any(|line| line.starts_with(start)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            self.notified
                .set_read_timeout(Some(left))
                .expect("the timeout is not zero");
            let length = self
                .notified
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("{error}: never told {start}, only {lines:?}"));
            let text = String::from_utf8_lossy(&buffer[..length]);
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }
}

#[test]
fn the_service_manager_learns_of_the_start_the_loop_and_the_stop() {
    let manager = Manager::new();
    let mut prefork = manager.start("systemd:http");
    let told = manager.told_until("READY=1");
    assert!(prefork.status().ready, "ready was told too early");
    // In the same message: nobody is told the one without the other.
    let status = "STATUS=ready 2/2, generation 1".to_owned();
    assert!(told.contains(&status), "{told:?}");
    manager.told_until("WATCHDOG=1");
    // The second one can't come from the start.
    manager.told_until("WATCHDOG=1");

    prefork.signal(Signal::SIGTERM);
    let told = manager.told_until("STATUS=stopping: ");
    assert!(told.contains(&"STOPPING=1".to_owned()), "{told:?}");
    assert_eq!(prefork.exit_code(), 0);
}

#[test]
fn a_reload_is_told_from_its_beginning_to_its_end_also_when_it_is_rolled_back() {
    let manager = Manager::new();
    let prefork = manager.start("systemd:http");
    prefork.wait_until_ready();
    prefork.done(&["reload"]);
    let told = manager.told_until("STATUS=ready 2/2, generation 2, reload ok just now");
    let begun = told.iter().position(|line| line == "RELOADING=1");
    let begun = begun.unwrap_or_else(|| panic!("no reload in {told:?}"));
    assert!(told[begun + 1].starts_with("MONOTONIC_USEC="), "{told:?}");
    assert!(
        told[begun..].contains(&"READY=1".to_owned()),
        "the reload has no end in {told:?}"
    );

    let config = prefork.dir().join("prefork.toml");
    fs::write(config, "[pool.web]\nlisten = [").expect("the directory is writable");
    assert_ne!(prefork.cli(&["reload"]).code, 0);
    let told = manager.told_until("STATUS=ready 2/2, generation 2, reload failed just now");
    assert!(told.contains(&"RELOADING=1".to_owned()), "{told:?}");
    assert!(told.contains(&"READY=1".to_owned()), "{told:?}");
}

#[test]
fn requests_are_served_from_the_service_managers_socket_which_outlives_the_supervisor() {
    let manager = Manager::new();
    let mut prefork = manager.start("systemd:http");
    prefork.wait_until_ready();
    assert_eq!(prefork.address("web"), manager.address());
    let answer = http::get(manager.address(), "/").expect("the page is served");
    assert_eq!(answer.status, 200, "{answer:?}");

    // What is meant for the supervisor reaches no worker.
    let worker = prefork.ready_pid("web", 0);
    let environment = fs::read(format!("/proc/{worker}/environ")).expect("the worker lives");
    let environment = String::from_utf8_lossy(&environment);
    for name in ["LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_"] {
        assert!(!environment.contains(name), "{environment}");
    }

    prefork.signal(Signal::SIGTERM);
    assert_eq!(prefork.exit_code(), 0);
    // A client that comes between two runs waits in the queue for the next.
    TcpStream::connect(manager.address()).expect("the socket still listens");
    // As workers do that have lost their supervisor for good.
    refuse_handshakes(&manager.http).expect("the filter is attached");
    let mut next = manager.start("systemd:http");
    next.wait_until_ready();
    let answer = http::get(manager.address(), "/").expect("the page is served");
    assert_eq!(answer.status, 200, "{answer:?}");
    next.signal(Signal::SIGTERM);
    assert_eq!(next.exit_code(), 0);
}

#[test]
fn a_socket_that_was_not_given_is_an_error_that_names_those_that_were() {
    let manager = Manager::new();
    let mut prefork = manager.start("systemd:https");
    assert_eq!(prefork.exit_code(), 1);
    prefork.logged(&[
        "cannot listen on systemd:https",
        "passed no socket named \"https\" (only http)",
        "FileDescriptorName=https",
    ]);
}

#[test]
fn a_socket_that_no_pool_uses_yet_is_still_there_after_an_upgrade() {
    let manager = Manager::new();
    let prefork = manager.start("127.0.0.1:0");
    prefork.wait_until_ready();
    prefork.done(&["upgrade"]);
    prefork.configure(&[Pool::bundled("web", 2).set("listen", "[\"systemd:http\"]")]);
    prefork.done(&["reload"]);
    assert_eq!(prefork.address("web"), manager.address());
    // One that is in use, and then is not, and then is again.
    prefork.configure(&[Pool::bundled("web", 2)]);
    prefork.done(&["reload"]);
    prefork.done(&["upgrade"]);
    prefork.configure(&[Pool::bundled("web", 2).set("listen", "[\"systemd:http\"]")]);
    prefork.done(&["reload"]);
    let answer = http::get(manager.address(), "/").expect("the page is served");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn several_sockets_of_one_name_are_one_listener() {
    let manager = Manager::new();
    let other = TcpListener::bind("127.0.0.2:0").expect("loopback has free ports");
    let addresses = [manager.address(), other.local_addr().expect("it is bound")];
    let sockets = [
        manager.http.try_clone().expect("descriptors are left"),
        other,
    ];
    let pool = || Pool::bundled("web", 2).set("listen", "[\"systemd:http\"]");
    let mut prefork = Prefork::launch_with_two_sockets(
        &manager.dir.path().join("notify"),
        sockets.map(Into::into),
        "http:http",
        &[pool()],
    );
    prefork.wait_until_ready();
    let all_serve = || {
        for address in addresses {
            let answer = http::get(address, "/").expect("the page is served");
            assert_eq!(answer.status, 200, "{address}: {answer:?}");
        }
    };
    all_serve();
    let listeners = prefork.pool("web").listeners;
    assert_eq!(listeners.len(), 1, "{listeners:?}");
    for address in addresses {
        let shown = &listeners[0].address;
        assert!(shown.contains(&address.to_string()), "{shown}");
    }
    let old = prefork.ready_pid("web", 0);
    for command in [&["reload", "--force"][..], &["upgrade"]] {
        prefork.done(command);
        all_serve();
    }
    assert!(!prefork.ready_pids("web").contains(&old));
    // And under the next supervisor, which the workers bring them to.
    prefork.killed();
    prefork.ready_again();
    all_serve();
}
