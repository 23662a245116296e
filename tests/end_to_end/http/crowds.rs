//! Crowds at the admin address and at the control socket: whoever asks is answered,
//! whoever only holds a place goes. And what strangers may not read there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::http;
use crate::harness::{Pool, Prefork};

const LONG: Duration = Duration::from_secs(30);

/// Sends these bytes and reads what comes until the connection ends.
fn exchange(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let timed = stream.set_read_timeout(Some(LONG));
    timed.expect("the time is more than nothing");
    stream.write_all(bytes.as_bytes()).expect("it reads");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    read.expect("it answers with text");
    answer
}

fn asked_as(prefork: &Prefork, host: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    exchange(prefork.admin(), &request)
}

#[test]
fn slow_heads_take_no_probe_away() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let admin = prefork.admin();
    let slow: Vec<TcpStream> = (0..270)
        .map(|_| {
            let mut stream = TcpStream::connect(admin).unwrap();
            // One that is sent away already says so here.
            let _ = stream.write_all(b"GET /livez HT");
            stream
        })
        .collect();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(http::get(admin, path).unwrap().status, 200, "{path}");
    }
    // Who is asked to go is gone, and who has asked for something has its answer.
    let mut last = slow.into_iter().next_back().unwrap();
    last.write_all(b"TP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn neither_followers_nor_idle_connections_keep_operators_out() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let connect = || UnixStream::connect(prefork.control_socket()).unwrap();
    let follow = |_| {
        let mut stream = connect();
        stream
            .write_all(b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        stream
    };
    let mut followers: Vec<UnixStream> = (0..300).map(follow).collect();
    let mut first = [0; 12];
    followers[0].read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let late = followers.last_mut().unwrap();
    late.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 503");
    // More than there are places, and they say nothing.
    let idle: Vec<UnixStream> = (0..260).map(|_| connect()).collect();
    for command in [
        &["status"][..],
        &["pause", "web/0"],
        &["resume", "web/0"],
        &["wait", "--for", "ready"],
        &["events"],
    ] {
        prefork.done(&[&["--timeout", "20s"], command].concat());
    }
    drop((idle, followers));
}

#[test]
fn the_admin_address_answers_to_no_name_that_somebody_else_can_have() {
    let hosts = "admin_hosts = [\"metrics.example.com\"]";
    let prefork = Prefork::launch_with(hosts, &[Pool::bundled("web", 1)]);
    prefork.wait_until_ready();
    for path in ["/status.json", "/metrics", "/"] {
        let answer = asked_as(&prefork, "evil.example", path);
        assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
        assert!(
            answer.contains("admin_hosts") && !answer.contains("web"),
            "{answer}"
        );
    }
    let address = prefork.admin().to_string();
    for host in [&address, "localhost:1", "[::1]", "METRICS.example.com"] {
        let answer = asked_as(&prefork, host, "/status.json");
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
        let head = answer.to_ascii_lowercase();
        assert!(
            head.contains("cross-origin-resource-policy: same-origin"),
            "{answer}"
        );
        assert!(head.contains("x-content-type-options: nosniff"), "{answer}");
    }
    let old = exchange(prefork.admin(), "GET /livez HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200"), "{old}");
    let lying = "GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(exchange(prefork.admin(), lying).starts_with("HTTP/1.1 421"));
}

#[test]
fn a_password_in_a_command_line_is_not_logged() {
    let worker = crate::harness::cli::example("test_worker");
    let program = [
        "/bin/sh",
        "-c",
        "exec \"$0\"",
        worker.to_str().expect("text"),
        "--password=hunter2",
    ];
    let prefork = Prefork::start(&[Pool::command("app", &program, 1)]);
    prefork.logged(&["1 workers of /bin/sh with 4 arguments"]);
    prefork.done(&["reload"]);
    prefork.done(&["restart", "app"]);
    let log = prefork.log();
    assert!(!log.contains("hunter2"), "{log}");
}
