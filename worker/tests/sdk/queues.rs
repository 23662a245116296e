//! What waits on listeners: before a worker accepts, when nobody else will, and
//! on several listeners at once.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use prefork_proto::message::ToWorker;
use serde_json::json;

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

const LONG: Duration = Duration::from_secs(60);

fn paused() -> Worker {
    let mut orders = Orders::default();
    orders.welcome.paused = true;
    orders.welcome.idle_grace_ms = 60_000;
    Worker::with(orders)
}

/// Clients that have connected and asked, and wait.
fn waiting(address: std::net::SocketAddr, count: usize) -> Vec<Client> {
    (0..count)
        .map(|_| {
            let mut client = Client::connect(address);
            client.ask("/");
            client
        })
        .collect()
}

#[test]
fn a_worker_that_begins_paused_accepts_nothing_until_it_is_resumed() {
    let mut worker = paused();
    let mut client = Client::connect(worker.address);
    client.ask("/");
    assert!(worker.ask(|id| ToWorker::Ping { id }).ok);
    assert!(!client.hears_within(Duration::from_millis(200)));
    let health = worker.health(|_| true);
    assert_eq!(health.connections, 0);
    assert!(worker.ask(|id| ToWorker::Resume { id }).ok);
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_worker_that_was_never_resumed_drains_at_once() {
    let mut worker = paused();
    worker.drain(LONG);
    worker.drained();
}

#[test]
fn a_sweep_serves_all_that_waits_and_closes_the_listener() {
    let mut worker = paused();
    assert!(worker.holds(&worker.listener));
    let mut slow = Client::connect(worker.address);
    slow.ask("/slow?500");
    // More than are taken in one go.
    let mut clients = waiting(worker.address, 60);
    worker.sweep(LONG);
    for client in &mut clients {
        let response = client.response();
        assert_eq!(response.status, 200);
        assert!(response.says_close());
        client.until_closed();
    }
    worker.in_flight(1);
    assert!(!worker.holds(&worker.listener), "the listener is open");
    assert_eq!(slow.response().status, 200);
    drop((slow, clients));
    assert_eq!(worker.drained().http.unwrap().total(), 61);
}

#[test]
fn a_sweep_waits_for_the_first_request_of_what_it_accepted() {
    let mut worker = paused();
    let mut client = Client::connect(worker.address);
    worker.sweep(LONG);
    worker.connections(1);
    client.ask("/");
    assert!(client.response().says_close());
    drop(client);
    assert_eq!(worker.drained().http.unwrap().total(), 1);
}

#[test]
fn a_drain_that_had_left_the_queue_to_others_may_still_be_told_to_sweep_it() {
    let mut worker = Worker::ready();
    let mut open = Client::connect(worker.address);
    open.ask("/slow?60000");
    worker.in_flight(1);
    worker.drain(LONG);
    let mut late = waiting(worker.address, 3);
    worker.sweep(LONG);
    // Said again, it does not take the sweep back.
    worker.drain(LONG);
    for client in &mut late {
        assert!(client.response().says_close());
    }
}

#[test]
fn a_rescue_serves_the_queue_of_another_listener_and_lets_go_of_it() {
    let mut worker = Worker::ready();
    let orphan = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = orphan.local_addr().unwrap();
    let mut clients = waiting(address, 40);
    let reply = worker.rescue(orphan.try_clone().unwrap());
    assert_eq!(reply.data, json!({ "accepted": 40 }));
    assert!(!worker.holds(&orphan), "the rescued listener is open");
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
        // An ordinary connection from now on.
        assert!(!client.get("/").says_close());
    }
    let mut late = waiting(address, 1);
    assert!(!late[0].hears_within(Duration::from_millis(100)));
    let empty = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(worker.rescue(empty).data, json!({ "accepted": 0 }));
}

#[test]
fn what_cannot_be_rescued_is_refused_and_the_worker_goes_on() {
    let mut worker = Worker::ready();
    let reply = worker.rescue(std::fs::File::open("/dev/null").unwrap());
    assert_eq!(reply.error.unwrap().code, "unusable_listener");
    assert_eq!(Client::connect(worker.address).get("/").status, 200);
}

#[test]
fn a_worker_on_its_way_out_still_rescues() {
    let mut worker = Worker::ready();
    let mut open = Client::connect(worker.address);
    open.ask("/slow?300");
    worker.in_flight(1);
    worker.drain(LONG);
    let orphan = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = waiting(orphan.local_addr().unwrap(), 2);
    assert_eq!(worker.rescue(orphan).data, json!({ "accepted": 2 }));
    for client in clients.iter_mut().chain([&mut open]) {
        assert!(client.response().says_close());
    }
    drop((clients, open));
    assert_eq!(worker.drained().http.unwrap().total(), 3);
}

#[test]
fn tcp_and_unix_listeners_are_served_side_by_side_and_swept_alike() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("worker.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let second = TcpListener::bind("127.0.0.1:0").unwrap();
    let orders = Orders::default();
    let mut worker = Worker::spawned(&orders);
    worker.hello();
    worker.say(&ToWorker::Welcome(orders.welcome));
    worker.offer();
    worker.offer_fd(second.try_clone().unwrap().into());
    worker.offer_fd(unix.try_clone().unwrap().into());
    worker.say(&ToWorker::Start);
    worker.until_ready();

    let over_unix = || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let request = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let answer = |mut stream: UnixStream| {
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    };
    let tcp = [worker.address, second.local_addr().unwrap()];
    for address in tcp {
        assert_eq!(Client::connect(address).get("/").status, 200);
    }
    assert!(answer(over_unix()).starts_with("HTTP/1.1 200"));

    assert!(worker.ask(|id| ToWorker::Pause { id }).ok);
    let mut clients: Vec<_> = tcp.map(|address| waiting(address, 1)).into();
    let waits = over_unix();
    worker.sweep(LONG);
    for client in clients.iter_mut().flatten() {
        assert!(client.response().says_close());
    }
    assert!(answer(waits).starts_with("HTTP/1.1 200"));
    drop(clients);
    worker.drained();
}

#[test]
fn of_two_settings_those_that_came_last_stay() {
    let mut worker = Worker::ready();
    let slow = json!({ "good": true, "takes_ms": 200, "which": "first" });
    worker.say(&ToWorker::Reload { id: 900, app: slow });
    let quick = json!({ "good": true, "which": "second" });
    assert!(worker.ask(|id| ToWorker::Reload { id, app: quick }).ok);
    let settings = worker.tell("settings", json!(null)).data;
    assert_eq!(settings["which"], "second");
    let bad = json!({ "which": "third" });
    assert!(!worker.ask(|id| ToWorker::Reload { id, app: bad }).ok);
    let settings = worker.tell("settings", json!(null)).data;
    assert_eq!(settings["which"], "second");
}
