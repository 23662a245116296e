//! The worker in `README.md`, run as it is printed there.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use prefork_proto::channel::{self, Flush, Receive, SupervisorEnd};
use prefork_proto::message::{
    CHANNEL_FD_ENV, ListenerOffer, PROTOCOL, Reply, ReplyError, ToSupervisor, ToWorker, Welcome,
};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(20);

fn printed_worker() -> &'static str {
    let (_, after) = include_str!("../README.md")
        .split_once("```python\n")
        .expect("README.md has a Python block");
    after.split_once("```").expect("the block ends").0
}

/// Whether the printed worker can run here. A machine with only a Rust
/// toolchain has to pass as well, but it says what it left out.
fn python_is_here() -> bool {
    let found = Command::new("python3")
        .args(["-c", "import socket; socket.recv_fds"])
        .stderr(std::process::Stdio::null())
        .status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!(
            "SKIPPED: python3 (3.9 or newer) is not on this machine; README.md's worker is not checked"
        );
    }
    found
}

/// A Python worker and its channel; killed at the end, should a test end early.
struct Worker {
    process: Child,
    channel: SupervisorEnd,
}

impl Worker {
    fn start() -> Self {
        let (channel, fd) = channel::pair().unwrap();
        let process = Command::new("sh")
            .args([
                "-c",
                "exec 5<&0 </dev/null; exec python3 -c \"$0\"",
                printed_worker(),
            ])
            .env(CHANNEL_FD_ENV, "5")
            .stdin(fd)
            .spawn()
            .unwrap();
        Self { process, channel }
    }

    fn send(&mut self, message: &ToWorker) {
        self.channel.queue(message).unwrap();
        assert_eq!(self.channel.flush().unwrap(), Flush::Done);
    }

    fn next(&mut self) -> ToSupervisor {
        loop {
            match self.channel.receive().unwrap() {
                Receive::Message(received) => return received.message,
                Receive::Blocked => {
                    assert!(self.channel.wait(false, DEADLINE).unwrap(), "it is silent");
                }
                Receive::Closed => panic!("it has gone (python3 has to be 3.9 or newer)"),
                Receive::Unknown { kind, .. } => panic!("`{kind}` is unknown"),
            }
        }
    }

    /// The next message that is no heartbeat.
    fn next_answer(&mut self) -> ToSupervisor {
        loop {
            let message = self.next();
            if !matches!(message, ToSupervisor::Health(_)) {
                return message;
            }
        }
    }

    /// Starts a worker and brings it to `ready`, with a listener at the address.
    fn ready(paused: bool) -> (Self, SocketAddr) {
        let mut worker = Self::start();
        let ToSupervisor::Hello(hello) = worker.next() else {
            panic!("`hello` has to be first");
        };
        assert_eq!(hello.protocol, PROTOCOL);
        assert_eq!(u32::try_from(hello.pid).unwrap(), worker.process.id());
        worker.send(&ToWorker::Welcome(Welcome {
            protocol: PROTOCOL,
            pool: "web".into(),
            slot: 3,
            generation: 1,
            incarnation: 1,
            heartbeat_ms: 20,
            idle_grace_ms: 0,
            http: Box::default(),
            paused,
            rejoin: None,
            app: json!({}),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let offer = ToWorker::Listener(ListenerOffer {
            name: address.to_string(),
            address: address.to_string(),
            tls: false,
            proxy_protocol: false,
            fds: 1,
        });
        worker
            .channel
            .queue_with_fd(&offer, OwnedFd::from(listener))
            .unwrap();
        worker.send(&ToWorker::Start);
        assert_eq!(worker.next(), ToSupervisor::Ready);
        (worker, address)
    }

    fn wait_for_exit(&mut self) -> Option<i32> {
        let begun = Instant::now();
        // The end of the channel is the end of the process, but for a moment.
        while !matches!(self.channel.receive(), Ok(Receive::Closed)) {
            assert!(begun.elapsed() < DEADLINE, "it does not leave");
            self.channel.wait(false, DEADLINE).unwrap();
        }
        self.process.wait().unwrap().code()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A connection with a request on it.
fn asked(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    client
}

fn read_response(mut client: TcpStream) -> String {
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn the_printed_worker_serves_reports_and_drains() {
    if !python_is_here() {
        return;
    }
    let (mut worker, address) = Worker::ready(false);
    let response = read_response(asked(address));
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("hello from web/3"), "{response}");

    let mut last = 0;
    for _ in 0..3 {
        let ToSupervisor::Health(health) = worker.next() else {
            panic!("not a heartbeat");
        };
        assert!(health.seq > last);
        last = health.seq;
    }

    worker.send(&ToWorker::Drain {
        id: 9,
        deadline_ms: 1000,
        sweep: false,
        pass_on: Vec::new(),
    });
    let reply = ToSupervisor::Reply(Reply::done(9, Value::Null));
    assert_eq!(worker.next_answer(), reply);
    assert_eq!(worker.next_answer(), ToSupervisor::Drained);
    assert!(matches!(worker.next_answer(), ToSupervisor::Bye { .. }));
    assert_eq!(worker.wait_for_exit(), Some(0));
}

#[test]
fn the_printed_worker_accepts_nothing_until_resume_where_its_welcome_says_paused() {
    if !python_is_here() {
        return;
    }
    let (mut worker, address) = Worker::ready(true);
    let client = asked(address);
    // Several turns of its loop, in which it could have answered.
    for _ in 0..5 {
        assert!(matches!(worker.next(), ToSupervisor::Health(_)));
    }
    client.set_nonblocking(true).unwrap();
    let error = client.peek(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();

    worker.send(&ToWorker::Resume { id: 1 });
    let reply = ToSupervisor::Reply(Reply::done(1, Value::Null));
    assert_eq!(worker.next_answer(), reply);
    assert!(read_response(client).contains("hello from web/3"));
}

#[test]
fn the_printed_worker_answers_what_it_knows_and_refuses_what_it_does_not() {
    if !python_is_here() {
        return;
    }
    let (mut worker, _address) = Worker::ready(false);
    for (id, request) in [
        (1, ToWorker::Ping { id: 1 }),
        (2, ToWorker::Pause { id: 2 }),
        (3, ToWorker::Resume { id: 3 }),
    ] {
        worker.send(&request);
        let reply = ToSupervisor::Reply(Reply::done(id, Value::Null));
        assert_eq!(worker.next_answer(), reply);
    }
    // Its type and some of its fields are of a later version.
    let mut raw = UnixStream::from(worker.channel.as_fd().try_clone_to_owned().unwrap());
    raw.write_all(b"{\"type\":\"dance\",\"style\":[1]}\n{\"type\":\"dance\",\"id\":4}\n")
        .unwrap();
    let ToSupervisor::Reply(reply) = worker.next_answer() else {
        panic!("not a reply");
    };
    assert_eq!((reply.id, reply.ok), (4, false));
    assert!(
        matches!(&reply.error, Some(ReplyError { code, .. }) if code == "unknown_type"),
        "{reply:?}"
    );
    worker.send(&ToWorker::Stop { id: 5 });
    let reply = ToSupervisor::Reply(Reply::done(5, Value::Null));
    assert_eq!(worker.next_answer(), reply);
    assert_eq!(worker.wait_for_exit(), Some(0));
}
