//! The PROXY protocol: the client is who the load balancer names, whoever starts,
//! ends or takes over meanwhile, and nobody comes without a header.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::{Connection, get};
use crate::harness::{Pool, Prefork, cli, processes};

const LISTEN: &str = "[{ address = \"127.0.0.1:0\", proxy_protocol = true }]";

fn behind_a_proxy(workers: u32) -> Pool {
    Pool::bundled("web", workers).set("listen", LISTEN).set(
        "access_log",
        "{ path = \"access.log\", format = \"combined\" }",
    )
}

/// A connection of the client that this line names.
fn begun(address: SocketAddr, line: &str) -> Connection<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.write_all(line.as_bytes()).expect("it is sent");
    Connection::over(stream)
}

/// Waits for a line of the access log on this client.
fn has_logged(prefork: &Prefork, client: &str) {
    let log = prefork.dir().join("access.log");
    eventually(&format!("{client} is in the access log"), PATIENCE, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().any(|line| line.starts_with(client))
    });
}

#[test]
fn the_client_is_who_the_header_names_after_a_reload_a_kill_and_a_takeover() {
    let mut prefork = Prefork::start(&[behind_a_proxy(2)]);
    let address = prefork.address("web");
    let mut last = 0;
    let mut asks = |prefork: &Prefork| {
        last += 1;
        let client = format!("192.0.2.{last}");
        let line = format!("PROXY TCP4 {client} 10.0.0.1 4711 80\r\n");
        let answer = begun(address, &line).get("/").expect("it is served");
        assert_eq!(answer.status, 200);
        has_logged(prefork, &client);
        let nobody = get(address, "/").expect_err("it has no header");
        assert_eq!(nobody.kind(), std::io::ErrorKind::UnexpectedEof, "{nobody}");
    };
    asks(&prefork);
    prefork.logged(&["web/", "proxy_protocol", "does not begin with a header"]);
    prefork.done(&["reload", "--force"]);
    asks(&prefork);
    prefork.killed();
    prefork.ready_again();
    asks(&prefork);
    for slot in [0, 1] {
        let old = prefork.ready_pid("web", slot);
        processes::send(old, Signal::SIGKILL);
        prefork.replaced("web", slot, old);
    }
    asks(&prefork);
    prefork.done(&["upgrade"]);
    asks(&prefork);
}

#[test]
fn it_is_checked_as_a_proxy_would_ask_and_a_worker_that_can_not_read_it_does_not_come_up() {
    let pool = "[pool.web]\nworkers = 1\nlisten = [{ address = \"127.0.0.1:0\", proxy_protocol = true }]\n";
    let dir = crate::harness::directory();
    let config = dir.path().join("prefork.toml");
    fs::write(&config, pool).expect("there is room");
    let config = config.to_str().expect("the path is text");
    let output = cli::run_alone(dir.path(), &["check", "--boot", "--config", config]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("200"), "{output:?}");

    let plain = Pool::test_worker("odd", 1).set("listen", LISTEN);
    let prefork = Prefork::launch(&[plain, Pool::bundled("web", 1)]);
    prefork.logged(&["odd/0", "lacks the capability `proxy_protocol`"]);
    prefork.ready_pid("web", 0);
}

/// A real load balancer on a port of its own.
struct Haproxy(Child);

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HAProxy before the pool, with headers of this version; none where it isn't installed.
fn haproxy(prefork: &Prefork, version: &str) -> Option<(Haproxy, SocketAddr)> {
    let ours = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = ours.local_addr().expect("it is bound");
    let config = prefork.dir().join(format!("{version}.cfg"));
    let server = prefork.address("web");
    let text = format!(
        "defaults\n mode http\n timeout connect 20s\n timeout client 20s\n timeout server 20s\n\
         frontend clients\n bind fd@0\n default_backend prefork\n\
         backend prefork\n server web {server} {version} check inter 100ms\n"
    );
    fs::write(&config, text).expect("there is room");
    let child = Command::new("haproxy")
        .arg("-db")
        .arg("-f")
        .arg(&config)
        .stdin(Stdio::from(OwnedFd::from(ours)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match child {
        Ok(child) => Some((Haproxy(child), address)),
        Err(error) => {
            eprintln!("SKIPPED: haproxy cannot be run ({error})");
            None
        }
    }
}

/// A connection from this address of the loopback interface.
fn from(source: &str, address: SocketAddr) -> Connection<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let source: SocketAddr = format!("{source}:0").parse().expect("an address");
    socket.bind(&source.into()).expect("it is ours");
    socket.connect(&address.into()).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    Connection::over(stream)
}

#[test]
fn haproxy_says_who_its_clients_are_in_both_versions() {
    let prefork = Prefork::start(&[behind_a_proxy(2)]);
    for (version, client) in [
        ("send-proxy", "127.0.0.71"),
        ("send-proxy-v2", "127.0.0.72"),
    ] {
        let Some((_haproxy, address)) = haproxy(&prefork, version) else {
            return;
        };
        for _ in 0..5 {
            let answer = from(client, address).get("/").expect("it is served");
            assert_eq!(answer.status, 200, "{version}: {answer:?}");
        }
        has_logged(&prefork, client);
    }
}
