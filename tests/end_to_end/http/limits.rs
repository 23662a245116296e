//! What operators hold clients to with `[pool.NAME.http]`, and slow clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, http, processes};

/// A body of 5,000 bytes, sent or refused.
fn post(address: SocketAddr) -> u16 {
    let mut connection = http::Connection::open(address).expect("it listens");
    let answer = connection.ask("POST", "/", &"x".repeat(5000));
    answer.expect("an answer").status
}

#[test]
fn a_reload_changes_limits_and_they_outlive_the_supervisor_and_any_worker() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let load = Load::start(prefork.address("web"), 4);
    let old = prefork.ready_pids("web");
    assert_ne!(post(prefork.address("web")), 413);
    prefork.configure(&[Pool::bundled("web", 2).text("http.max_body_size", "1KiB")]);
    let told = prefork.done(&["reload", "--dry-run"]);
    assert!(told.contains("http.max_body_size default → 1KiB"), "{told}");
    prefork.done(&["reload"]);
    let new = prefork.ready_pids("web");
    assert!(new.iter().all(|pid| !old.contains(pid)), "not in place");
    let refused = || prefork.metric("prefork_http_requests_total", &[("code_class", "4xx")]);
    let before = refused();
    for _ in 0..8 {
        assert_eq!(post(prefork.address("web")), 413);
    }
    assert_eq!(refused() - before, 8.0);

    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    prefork.start_again();
    prefork.wait_until_ready();
    assert_eq!(prefork.ready_pids("web"), new);
    // The pool's own word for it is in the state, so that a new process has it, too.
    for (slot, pid) in new.into_iter().enumerate() {
        assert_eq!(post(prefork.address("web")), 413);
        let slot = u32::try_from(slot).expect("few slots");
        prefork.done(&["restart", &format!("web/{slot}")]);
        assert_ne!(prefork.ready_pid("web", slot), pid);
    }
    for _ in 0..8 {
        assert_eq!(post(prefork.address("web")), 413);
    }
    load.stop_flawless();
}

/// Connections that send the head of a request byte by byte.
struct Drip {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Dripped>,
}

/// What became of them.
#[derive(Debug, Default)]
struct Dripped {
    opened: usize,
    /// Those that were answered with 408.
    timed_out: usize,
    /// What they were answered with else.
    other: Vec<String>,
}

impl Drip {
    /// Keeps so many of them open: one that is closed is opened again.
    fn start(address: SocketAddr, connections: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut dripped = Dripped::default();
            let mut open: Vec<TcpStream> = Vec::new();
            while !stopped.load(Relaxed) {
                while open.len() < connections {
                    let mut stream = TcpStream::connect(address).expect("it listens");
                    stream
                        .write_all(b"GET / HTTP/1.1\r\nx: ")
                        .expect("it is open");
                    stream.set_nonblocking(true).expect("a socket can be");
                    open.push(stream);
                    dripped.opened += 1;
                }
                open.retain_mut(|stream| {
                    // One that the server has closed is seen when it is read.
                    let _ = stream.write(b"y");
                    dripped.goes_on(stream)
                });
                thread::sleep(Duration::from_millis(50));
            }
            dripped
        });
        Self { stop, thread }
    }

    fn stop(self) -> Dripped {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

impl Dripped {
    fn goes_on(&mut self, stream: &mut TcpStream) -> bool {
        let mut answer = [0; 1024];
        match stream.read(&mut answer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Ok(read) if answer[..read].starts_with(b"HTTP/1.1 408 ") => self.timed_out += 1,
            Ok(read) => self
                .other
                .push(String::from_utf8_lossy(&answer[..read]).into_owned()),
            Err(error) => self.other.push(error.to_string()),
        }
        false
    }
}

/// Slow connections, and clients that notice nothing of them.
fn normal_requests_go_on_under(connections: usize) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the soft limit is ours");
    let prefork = Prefork::start(&[Pool::bundled("web", 2).text("http.header_timeout", "2s")]);
    let address = prefork.address("web");
    let resident = |prefork: &Prefork| -> u64 {
        let pids = prefork.ready_pids("web");
        pids.iter().map(|pid| processes::resident_bytes(*pid)).sum()
    };
    let load = Load::start(address, 4);
    load.serves(500);
    let before = resident(&prefork);
    let drip = Drip::start(address, connections);
    let begun = Instant::now();
    let mut most = 0;
    // Three times over, each of them has come to its end.
    while begun.elapsed() < Duration::from_secs(10) {
        load.serves(100);
        most = most.max(resident(&prefork));
    }
    load.stop_flawless();
    let dripped = drip.stop();
    println!("{connections} at a time: {dripped:?}, {} KiB each", {
        most.saturating_sub(before) / 1024 / connections as u64
    });
    assert!(dripped.other.is_empty(), "{:?}", dripped.other);
    assert!(dripped.timed_out > connections, "{dripped:?}");
    // A buffer of 8 KiB and what goes with a connection, twice over.
    assert!(
        most - before < connections as u64 * (40 << 10) + (8 << 20),
        "{before} {most}"
    );
    let refused = prefork.metric("prefork_http_requests_total", &[("code_class", "4xx")]);
    assert!(refused >= dripped.timed_out as f64);
}

#[test]
fn normal_requests_go_on_under_slow_ones() {
    normal_requests_go_on_under(200);
}

#[test]
#[ignore = "a thousand connections"]
fn in_full_normal_requests_go_on_under_a_thousand_slow_ones() {
    normal_requests_go_on_under(1000);
}

#[test]
fn a_body_that_drips_is_held_to_the_rate_of_the_file_and_to_the_next_ones() {
    let pool = || {
        Pool::service("web", 1)
            .text("http.body_timeout", "400ms")
            .text("http.min_rate", "1KiB")
    };
    let prefork = Prefork::start(&[pool()]);
    let drip = |prefork: &Prefork, times: usize| {
        let mut stream = TcpStream::connect(prefork.address("web")).expect("it listens");
        let patience = Some(Duration::from_millis(40));
        stream.set_read_timeout(patience).expect("a socket can be");
        stream
            .write_all(b"POST /digest HTTP/1.1\r\nhost: test\r\ncontent-length: 30\r\n\r\n")
            .expect("it is open");
        let mut answer = [0; 1024];
        for _ in 0..times {
            // One that the server has closed is seen when it is read.
            let _ = stream.write(b"x");
            if let Ok(read) = stream.read(&mut answer) {
                return String::from_utf8_lossy(&answer[..read]).into_owned();
            }
        }
        let longest = Some(Duration::from_secs(20));
        stream.set_read_timeout(longest).expect("a socket can be");
        let read = stream.read(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    let answer = drip(&prefork, 1000);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    prefork.configure(&[pool().text("http.min_rate", "0B")]);
    let told = prefork.done(&["reload", "--dry-run"]);
    assert!(told.contains("http.min_rate 1KiB → 0B"), "{told}");
    prefork.done(&["reload"]);
    let answer = drip(&prefork, 30);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
