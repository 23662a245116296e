//! The same program without a supervisor.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{Process, example};

/// Starts it and reads where it listens.
fn alone(arguments: &[&str], listen: &str) -> (Process, SocketAddr) {
    let child = Command::new(example("probe"))
        .args(arguments)
        .env_remove("PREFORK_CHANNEL_FD")
        .env("PREFORK_LISTEN", listen)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let mut line = String::new();
    let stderr = process.0.stderr.take().unwrap();
    BufReader::new(stderr).read_line(&mut line).unwrap();
    let address = line
        .trim()
        .strip_prefix("probe: listening on ")
        .unwrap_or_else(|| panic!("{line:?}"));
    (process, address.parse().unwrap())
}

#[test]
fn it_binds_its_own_address_and_drains_at_sigterm() {
    let (mut process, address) = alone(&[], "127.0.0.1:0");
    let mut client = Client::connect(address);
    assert_eq!(client.get("/").status, 200);
    client.ask("/stream?300");
    client.until("first\n\r\n");
    process.signal(Signal::SIGTERM);
    client.until("last\n\r\n0\r\n\r\n");
    drop(client);
    assert_eq!(process.exit().code(), Some(0));
}

#[test]
fn tasks_that_no_drain_waits_for_are_said_once_with_their_number() {
    let left = |requests: &[&str]| {
        let mut child = Command::new(example("probe"))
            .env_remove("PREFORK_CHANNEL_FD")
            .env("PREFORK_LISTEN", "127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let mut process = Process(child);
        let mut lines = BufReader::new(stderr).lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        let (_, address) = first.split_once("listening on ").unwrap();
        for path in requests {
            let answer = Client::connect(address.parse().unwrap()).get(path);
            assert_eq!(answer.status, 200);
        }
        process.signal(Signal::SIGTERM);
        assert_eq!(process.exit().code(), Some(0));
        lines.collect::<Vec<_>>()
    };
    let said = left(&["/spawn", "/", "/spawn"]);
    let [line] = said.as_slice() else {
        panic!("one line, not {said:?}");
    };
    assert!(line.contains("tasks of the application: 2"), "{line}");
    assert!(line.contains("`Context::spawn`"), "{line}");
    assert_eq!(left(&["/"]), Vec::<String>::new());
}

#[test]
fn an_argument_goes_before_the_environment() {
    let (mut process, address) = alone(&["--listen", "127.0.0.1:0"], "192.0.2.1:1");
    assert_eq!(Client::connect(address).get("/").status, 200);
    process.signal(Signal::SIGINT);
    assert_eq!(process.exit().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (mut process, address) = alone(&["--listen=127.0.0.1:0"], "");
    let mut client = Client::connect(address);
    client.ask("/stream?60000");
    client.until("first\n\r\n");
    process.signal(Signal::SIGINT);
    // A refused connection shows that it has seen the first.
    while std::net::TcpStream::connect(address).is_ok() {
        std::thread::yield_now();
    }
    process.signal(Signal::SIGINT);
    assert_eq!(process.exit().code(), Some(0));
}

#[test]
fn an_address_that_is_none_is_refused_with_one_that_would_be() {
    let child = Command::new(example("probe"))
        .args(["--listen", "nowhere"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    assert_eq!(process.exit().code(), Some(1));
    assert_eq!(
        process.stderr(),
        "probe: cannot listen on nowhere: an address is 127.0.0.1:8080, [::1]:8080 or unix:/PATH\n"
    );
}

#[test]
fn an_unknown_argument_is_refused_with_the_usage() {
    let child = Command::new(example("probe"))
        .args(["--listn", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    assert_eq!(process.exit().code(), Some(2));
    let said = process.stderr();
    let expected = "probe: unknown argument `--listn`\nusage: probe [--listen ADDRESS]...\n";
    assert!(said.starts_with(expected), "{said}");
}
