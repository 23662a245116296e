//! The main job: requests are served by forked workers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use prefork_api::SlotState;

use crate::harness::deadline::eventually;
use crate::harness::http::{self, Connection};
use crate::harness::{Pool, Prefork, processes};

/// The process id that the welcome page names.
pub(crate) fn pid_on_page(address: SocketAddr) -> i32 {
    let answer = http::get(address, "/").expect("the page is served");
    assert_eq!(answer.status, 200, "{answer:?}");
    let after = answer.body.split("pid").nth(1);
    let digits: String = after
        .unwrap_or_else(|| panic!("no pid in {}", answer.body))
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().expect("a process id is a number")
}

#[test]
fn ten_requests_are_answered_by_more_than_one_worker() {
    let prefork = Prefork::start(&[Pool::bundled("web", 4)]);
    let address = prefork.address("web");
    let workers: BTreeSet<i32> = prefork
        .pool("web")
        .workers
        .iter()
        .filter_map(|worker| worker.pid)
        .collect();
    assert_eq!(workers.len(), 4, "{workers:?}");

    let answered: BTreeSet<i32> = (0..10).map(|_| pid_on_page(address)).collect();
    assert!(answered.len() > 1, "only {answered:?} of {workers:?}");
    assert!(answered.is_subset(&workers), "{answered:?} {workers:?}");
}

#[test]
fn one_keep_alive_connection_is_served_by_one_worker() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let mut connection = Connection::open(prefork.address("web")).expect("it listens");
    let pages: BTreeSet<String> = (0..20)
        .map(|_| connection.get("/").expect("the page is served").body)
        .collect();
    assert_eq!(pages.len(), 1, "{pages:?}");
}

#[test]
fn requests_are_counted_for_the_worker_that_served_them() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let address = prefork.address("web");
    for _ in 0..25 {
        pid_on_page(address);
    }
    eventually("25 requests are reported", Duration::from_secs(10), || {
        prefork.metric(
            "prefork_http_requests_total",
            &[("pool", "web"), ("code_class", "2xx")],
        ) == 25.0
    });
    let reported: u64 = prefork
        .pool("web")
        .workers
        .iter()
        .filter_map(|worker| worker.requests)
        .sum();
    assert_eq!(reported, 25);
}

#[test]
fn a_directory_is_served_by_the_bundled_web_server() {
    let site = crate::harness::directory();
    std::fs::write(site.path().join("index.html"), "<h1>here</h1>").expect("it is ours");
    std::fs::write(site.path().join(".secret"), "hidden").expect("it is ours");
    let prefork = Prefork::launch_args(&[
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--workers",
        "2",
        "--root",
        site.path().to_str().expect("the path is text"),
    ]);
    prefork.wait_until_ready();
    let address = prefork.address("web");

    let index = http::get(address, "/").expect("it is served");
    assert_eq!((index.status, index.body.as_str()), (200, "<h1>here</h1>"));
    for missing in ["/nothing", "/.secret", "/../Cargo.toml", "/%2e%2e/prefork"] {
        let answer = http::get(address, missing).expect("it is answered");
        assert_eq!(answer.status, 404, "{missing}: {answer:?}");
    }
}

#[test]
fn without_a_file_the_default_configuration_has_one_worker_per_cpu() {
    let prefork = Prefork::launch_args(&["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    prefork.wait_until_ready();
    let pool = prefork.pool("web");
    let cpus = std::thread::available_parallelism().expect("the kernel says");
    assert_eq!(
        usize::try_from(pool.desired).expect("it is small"),
        cpus.get()
    );
    assert!(
        pool.workers
            .iter()
            .all(|worker| worker.state == SlotState::Ready)
    );
}

#[test]
fn two_pools_serve_beside_each_other() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1), Pool::test_worker("app", 2)]);
    let web = pid_on_page(prefork.address("web"));
    let app = pid_on_page(prefork.address("app"));
    assert_eq!(web, prefork.ready_pid("web", 0));
    let apps = [prefork.ready_pid("app", 0), prefork.ready_pid("app", 1)];
    assert!(apps.contains(&app), "{app} {apps:?}");
}

#[test]
fn a_unix_socket_is_served() {
    let dir = crate::harness::directory();
    let socket = dir.path().join("web.sock");
    let listen = format!("[\"unix:{}\"]", socket.display());
    let prefork = Prefork::start(&[Pool::bundled("web", 2).set("listen", listen)]);
    let answer = http::get_unix(&socket, "/").expect("it is served");
    assert_eq!(answer.status, 200, "{answer:?}");
    drop(prefork);
}

#[test]
fn nothing_is_left_when_the_supervisor_has_stopped() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 3)]);
    let workers: Vec<i32> = (0..3).map(|slot| prefork.ready_pid("web", slot)).collect();
    assert_eq!(prefork.processes().len(), 4);
    prefork.done(&["stop"]);
    assert_eq!(prefork.exit_code(), 0);
    assert!(!workers.iter().any(|pid| processes::alive(*pid)));
    assert_eq!(prefork.processes(), Vec::<i32>::new());
    assert!(!prefork.control_socket().exists());
}
