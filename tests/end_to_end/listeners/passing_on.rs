//! Connections outlive the worker that they were made to: one that leaves hands on what
//! asks for nothing, and its clients notice nothing.

use std::net::TcpStream;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::{Answer, Connection};
use crate::harness::{Mode, Pool, Prefork};

type Client = Connection<TcpStream>;

/// Connections that have said this and nothing more.
fn clients(prefork: &Prefork, count: usize, said: &str) -> Vec<Client> {
    let address = prefork.address("web");
    let connect = || {
        let mut client = Connection::open(address).expect("it listens");
        client.write(said.as_bytes()).expect("it is sent");
        client
    };
    (0..count).map(|_| connect()).collect()
}

/// Waits until the workers have so many open connections.
fn are_open(prefork: &Prefork, connections: f64) {
    eventually("all are accepted", PATIENCE, || {
        let open = prefork.metric("prefork_http_connections_active", &[("pool", "web")]);
        open == connections
    });
}

fn accepted(prefork: &Prefork) -> f64 {
    let name = "prefork_http_connections_accepted_total";
    prefork.metric(name, &[("pool", "web")])
}

/// The process that has given an answer after which the connection stays open.
#[track_caller]
fn answerer(answer: &Answer) -> i32 {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.closes(), "{answer:?}");
    let after = answer
        .body
        .split(" pid ")
        .nth(1)
        .expect("the page names it");
    let digits = after.split(' ').next().expect("a number follows");
    digits.parse().expect("a process id is a number")
}

/// Asks on a connection; it is answered by a worker that is ready.
#[track_caller]
fn goes_on(prefork: &Prefork, client: &mut Client) -> i32 {
    let pid = goes_on_at(client);
    let ready = prefork.ready_pids("web");
    assert!(ready.contains(&pid), "{pid} is none of {ready:?}");
    pid
}

#[test]
fn idle_connections_go_on_whatever_makes_their_workers_leave() {
    for mode in Mode::ALL {
        let prefork = Prefork::start(&[Pool::service("web", 2).mode(mode)]);
        let silent = clients(&prefork, 15, "");
        let mut half = clients(&prefork, 15, "GET / HTTP/1.1\r\nHo");
        let mut spoken = clients(&prefork, 15, "");
        for client in &mut spoken {
            goes_on(&prefork, client);
        }
        are_open(&prefork, 45.0);
        let before = prefork.ready_pids("web");
        prefork.done(&["reload", "--force"]);
        for client in &mut half {
            client.write(b"st: localhost\r\n\r\n").expect("it is open");
            let pid = answerer(&client.receive().expect("it is answered"));
            assert!(!before.contains(&pid));
        }
        spoken.extend(silent);
        spoken.extend(half);
        for operation in [
            &["restart", "web"][..],
            &["scale", "web", "1"],
            &["upgrade"],
            &["reload", "--force"],
            &["scale", "web", "3"],
            &["drain", "web/0"],
        ] {
            prefork.done(operation);
            for client in &mut spoken {
                goes_on(&prefork, client);
            }
        }
        assert_eq!(accepted(&prefork), 45.0, "each was accepted once");
        let passed = prefork.metric("prefork_connections_passed_total", &[("pool", "web")]);
        assert!(passed >= 45.0, "only {passed} were handed on");
        let lost = prefork.metric("prefork_connections_lost_total", &[("pool", "web")]);
        assert_eq!(lost, 0.0);
    }
}

#[test]
fn what_is_being_answered_goes_on_once_it_is_answered() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    let old = prefork.ready_pid("web", 0);
    let post = "POST /digest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab";
    let mut sending = clients(&prefork, 1, post).remove(0);
    let mut waiting = clients(&prefork, 1, "").remove(0);
    waiting.send("GET", "/slow/1000", "").expect("it is sent");
    // Its answers are those of two requests, of which one had come with the other.
    let pipelined = "GET /slow/1000 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut pipelined = clients(&prefork, 1, pipelined).remove(0);
    eventually("all are in flight", PATIENCE, || {
        prefork.worker("web", 0).in_flight == 3
    });
    prefork.done(&["reload", "--force"]);
    assert_eq!(answerer(&waiting.receive().expect("it is answered")), old);
    assert_eq!(answerer(&pipelined.receive().expect("it is answered")), old);
    answerer(&pipelined.receive().expect("it is answered"));
    sending.write(b"cd").expect("it is open");
    let digest = sending.receive().expect("it is answered");
    assert_eq!(digest.status, 200);
    assert!(!digest.closes(), "{digest:?}");
    for client in [&mut waiting, &mut pipelined, &mut sending] {
        assert_ne!(goes_on(&prefork, client), old);
    }
}

#[test]
fn where_the_end_of_a_body_is_not_known_the_connection_ends_in_good_order() {
    let pool = Pool::service("web", 1).text("idle_grace", "200ms");
    let prefork = Prefork::start(&[pool]);
    let post = "POST /digest HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut idle = clients(&prefork, 1, &format!("{post}0\r\n\r\n")).remove(0);
    assert!(!idle.receive().expect("it is answered").closes());
    let mut busy = clients(&prefork, 1, post).remove(0);
    // A request without a body makes it certain again.
    let mut later = clients(&prefork, 1, &format!("{post}0\r\n\r\n")).remove(0);
    assert_eq!(later.receive().expect("it is answered").status, 200);
    goes_on(&prefork, &mut later);
    eventually("it is in flight", PATIENCE, || {
        prefork.worker("web", 0).in_flight == 1
    });
    prefork.done(&["reload", "--force"]);
    busy.write(b"0\r\n\r\n").expect("it is open");
    assert!(busy.receive().expect("it is answered").closes());
    idle.closed_cleanly().expect("nothing was sent to it");
    goes_on(&prefork, &mut later);
    eventually("it is counted", PATIENCE, || {
        let labels = [("pool", "web"), ("reason", "body")];
        prefork.metric("prefork_connections_lost_total", &labels) == 1.0
    });
}

#[test]
fn the_next_supervisors_workers_hand_on_as_well() {
    let mut prefork = Prefork::start(&[Pool::service("web", 2)]);
    let mut spoken = clients(&prefork, 10, "");
    for client in &mut spoken {
        goes_on(&prefork, client);
    }
    let before = prefork.ready_pids("web");
    prefork.killed();
    prefork.ready_again();
    assert_eq!(prefork.ready_pids("web"), before);
    prefork.done(&["reload", "--force"]);
    for client in &mut spoken {
        let pid = goes_on(&prefork, client);
        assert!(!before.contains(&pid));
    }
    assert_eq!(accepted(&prefork), 10.0);
}

#[test]
fn they_go_to_whichever_pool_has_the_listener_next() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    let mut client = clients(&prefork, 1, "").remove(0);
    goes_on(&prefork, &mut client);
    prefork.configure(&[Pool::service("shop", 1)]);
    prefork.done(&["reload"]);
    let answer = client.get("/").expect("the connection is there");
    assert!(answer.body.starts_with("pool shop "), "{answer:?}");
    assert!(!answer.closes(), "{answer:?}");
}

#[test]
#[ignore = "ten thousand connections"]
fn in_full_ten_thousand_idle_connections_notice_no_reload() {
    const CONNECTIONS: usize = 10_000;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if most < CONNECTIONS as u64 + 1000 {
        println!("SKIPPED: RLIMIT_NOFILE is {most}, and a worker may come to hold all connections");
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the soft limit is ours");
    let prefork = Prefork::start(&[Pool::service("web", 2)]);
    let before = prefork.ready_pids("web");
    let mut spoken = clients(&prefork, CONNECTIONS, "");
    for client in &mut spoken {
        goes_on_at(client);
    }
    prefork.done(&["reload", "--force"]);
    eventually("all have gone on", PATIENCE, || {
        let workers = prefork.pool("web").workers;
        workers.iter().all(|worker| worker.draining.is_empty())
    });
    for client in &mut spoken {
        let pid = goes_on_at(client);
        assert!(!before.contains(&pid));
    }
    assert_eq!(accepted(&prefork), CONNECTIONS as f64);
}

/// Asks on a connection, after which it stays open; who answers.
#[track_caller]
fn goes_on_at(client: &mut Client) -> i32 {
    answerer(&client.get("/").expect("the connection is there"))
}
