//! The workers' examples run under a supervisor and alone.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually, eventually_some};
use crate::harness::{Prefork, cli, http, processes};

#[track_caller]
fn serves_under_a_supervisor(name: &str) {
    let program = cli::example(name);
    let prefork = Prefork::launch_args(&[
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--workers",
        "2",
        "--",
        program.to_str().expect("the path is text"),
    ]);
    prefork.wait_until_ready();
    let pools = prefork.status().pools;
    assert_eq!(pools.len(), 1);
    let pool = &pools[0];
    let address = prefork.address(&pool.name);
    let answer = http::get(address, "/hello/world").expect("it serves");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("world"), "{answer:?}");
    eventually("the request is counted", PATIENCE, || {
        prefork.metric("prefork_http_requests_total", &[("code_class", "2xx")]) == 1.0
    });
    let old = prefork.ready_pid(&pool.name, 0);
    prefork.done(&["restart", &pool.name]);
    assert_ne!(prefork.ready_pid(&pool.name, 0), old);
    prefork.done(&["stop"]);
}

/// A child that doesn't outlive its test.
struct Alone(Child);

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the example without a supervisor, on a port that is free.
fn start_alone(name: &str) -> (Alone, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let child = Command::new(cli::example(name))
        .args(["--listen", &address.to_string()])
        .env_remove("PREFORK_CHANNEL_FD")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the example starts");
    (Alone(child), address)
}

#[track_caller]
fn serves_alone(name: &str) {
    let (mut alone, address) = start_alone(name);
    let answer = eventually_some("it serves", PATIENCE, || {
        http::get(address, "/hello/world").ok()
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    let pid = i32::try_from(alone.0.id()).expect("process ids are small");
    processes::send(pid, Signal::SIGTERM);
    let status = eventually_some("it leaves", Duration::from_secs(20), || {
        alone.0.try_wait().expect("it is our child")
    });
    assert!(status.success(), "{status}");
}

#[test]
fn the_hyper_example_serves_under_a_supervisor() {
    serves_under_a_supervisor("hyper");
}

#[test]
fn the_axum_example_serves_under_a_supervisor() {
    serves_under_a_supervisor("axum");
}

#[test]
fn the_hyper_example_serves_alone() {
    serves_alone("hyper");
}

#[test]
fn the_axum_example_serves_alone() {
    serves_alone("axum");
}
