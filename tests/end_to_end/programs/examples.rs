//! The workers' examples run under a supervisor and alone.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_api::ExitReason;
use tungstenite::{Message, WebSocket};

use crate::control::socket::replies;
use crate::harness::deadline::{PATIENCE, eventually, eventually_some};
use crate::harness::{Pool, Prefork, cli, http, processes};

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
fn the_axum_example_knows_its_client_by_connect_info() {
    let prefork = supervised("axum", "1");
    let address = prefork.address(&prefork.status().pools[0].name);
    let answer = http::get(address, "/whoami").expect("it serves");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("you are 127.0.0.1:"), "{answer:?}");
}

#[test]
fn the_hyper_example_serves_alone() {
    serves_alone("hyper");
}

#[test]
fn the_axum_example_serves_alone() {
    serves_alone("axum");
}

#[test]
fn the_compute_example_computes_as_far_as_it_is_willing_to() {
    let (_alone, address) = start_alone("compute");
    eventually("it serves", PATIENCE, || http::get(address, "/").is_ok());
    let asked = |path| http::get(address, path).expect("it serves");
    assert_eq!(asked("/primes/1000").body, "168\n");
    assert_eq!(asked("/primes/50000001").status, 400);
}

/// The example under a supervisor that was started as its page says, but for
/// where it listens.
fn supervised(name: &str, workers: &str) -> Prefork {
    let program = cli::example(name);
    let program = program.to_str().expect("the path is text");
    let prefork = Prefork::launch_args(&[
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--workers",
        workers,
        "--",
        program,
    ]);
    prefork.wait_until_ready();
    prefork
}

/// A session in the chat's room, with whatever process serves it.
struct Session(WebSocket<TcpStream>);

impl Session {
    fn enter(address: SocketAddr) -> (Self, String) {
        let stream = TcpStream::connect(address).expect("it listens");
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).expect("it is a socket");
        let (socket, _) = tungstenite::client(format!("ws://{address}/room"), stream)
            .expect("it speaks WebSocket");
        let mut session = Self(socket);
        let welcome = session.hear();
        let pid = welcome.strip_prefix("welcome to ");
        (session, pid.expect("it says who it is").to_owned())
    }

    fn say(&mut self, line: &str) {
        self.0.send(line.into()).expect("the session lasts");
    }

    fn read(&mut self) -> Message {
        self.0.read().expect("the session ends with a goodbye")
    }

    fn hear(&mut self) -> String {
        self.read().into_text().expect("it is text").to_string()
    }
}

#[test]
fn the_chat_example_lets_all_hear_and_says_goodbye_when_it_is_restarted() {
    let prefork = supervised("chat", "1");
    let address = prefork.address("web");
    let page = http::get(address, "/").expect("it serves");
    assert!(page.body.contains("WebSocket"), "{}", page.body);
    let (mut one, pid) = Session::enter(address);
    let (mut other, _) = Session::enter(address);
    one.say("hello");
    assert_eq!((one.hear(), other.hear()), ("hello".into(), "hello".into()));
    eventually("it counts them", PATIENCE, || {
        prefork.worker("web", 0).status == "2 in the room"
    });

    // Restart waits for the sessions, so it runs beside them.
    std::thread::scope(|scope| {
        let restart = scope.spawn(|| prefork.done(&["restart", "web"]));
        assert_eq!(one.hear(), "the room moves");
        assert_eq!(other.hear(), "the room moves");
        let (_third, successor) = Session::enter(address);
        assert_ne!(successor, pid);
        other.say("goodbye");
        assert_eq!(
            (one.hear(), other.hear()),
            ("goodbye".into(), "goodbye".into())
        );
        for session in [&mut one, &mut other] {
            let Message::Close(Some(frame)) = session.read() else {
                panic!("not closed with a reason");
            };
            assert_eq!(u16::from(frame.code), 1001, "{frame:?}");
        }
        drop((one, other));
        restart.join().expect("it does not panic");
    });
    let exit = &prefork.describe("web", 0).exits[0];
    assert_eq!(exit.reason, ExitReason::Operator, "{exit:?}");
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

#[test]
fn the_cache_example_remembers_counts_and_forgets_as_it_is_told() {
    let prefork = supervised("cache", "2");
    let address = prefork.address("web");
    let counted = |name: &str| prefork.metric(name, &[]);
    assert_eq!(counted("cache_hits_total"), 0.0);
    let ask = |path: &str| http::get(address, path).expect("it serves").body;
    assert_eq!(
        ask("/factors/100000000000031"),
        "100000000000031 = 100000000000031\n"
    );
    let mut asked = 1;
    while counted("cache_hits_total") < 1.0 {
        assert_eq!(ask("/factors/84"), "84 = 2 x 2 x 3 x 7\n");
        asked += 1;
    }
    eventually("all are counted", PATIENCE, || {
        counted("cache_hits_total") + counted("cache_misses_total") == f64::from(asked)
    });
    let entries = counted("cache_misses_total");
    eventually("what is held is counted", PATIENCE, || {
        counted("cache_entries") == entries
    });

    let refused = prefork.cli(&["tell", "web", "cache.flush", r#"{"prefix":7}"#]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stdout.contains("expected {"), "{refused:?}");
    let flush = |args: &[&str]| -> u64 {
        let command = [&["--output", "json", "tell", "web", "cache.flush"], args].concat();
        let told = prefork.done(&command);
        let replies = replies(&told);
        assert_eq!(replies.len(), 2, "{told}");
        let flushed = replies.iter().map(|reply| reply.data["flushed"].as_u64());
        flushed
            .map(|flushed| flushed.expect("it says how many"))
            .sum()
    };
    assert_eq!(flush(&[r#"{"prefix":"/factors/1"}"#]), 1);
    assert_eq!(flush(&[]), entries as u64 - 1);
    eventually("nothing is held", PATIENCE, || {
        counted("cache_entries") == 0.0
    });

    // Totals go on through a crash, and a worker that leaves has a last word.
    let (hits, pid) = (counted("cache_hits_total"), prefork.ready_pid("web", 0));
    processes::send(pid, Signal::SIGKILL);
    prefork.replaced("web", 0, pid);
    assert_eq!(counted("cache_hits_total"), hits);
    prefork.done(&["restart", "web"]);
    prefork.logged(&["leaving within 30s, 0 answers are lost"]);
}

#[test]
fn the_cache_example_takes_another_capacity_in_place() {
    let program = cli::example("cache");
    let program = program.to_str().expect("the path is text");
    let pool = |capacity: &str| Pool::command("web", &[program], 1).set("app", capacity);
    let prefork = Prefork::start(&[pool("{ capacity = 100 }")]);
    let pid = prefork.ready_pid("web", 0);
    prefork.configure(&[pool("{ capacity = 7 }")]);
    prefork.done(&["reload"]);
    assert_eq!(prefork.ready_pid("web", 0), pid);
    eventually("it says so", PATIENCE, || {
        prefork.worker("web", 0).status == "0 of 7 answers"
    });
    prefork.configure(&[pool("{ capacitee = 7 }")]);
    let refused = prefork.cli(&["reload"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("unknown field `capacitee`"),
        "{refused:?}"
    );
}
