use std::os::unix::net::UnixListener;
use std::time::Duration;

use prefork_proto::message::ToWorker;
use tokio::time::timeout;

use prefork_testkit::client::Client;
use prefork_testkit::http2::{get, http2, runtime};
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

#[test]
fn http_2_is_served_on_the_same_listener() {
    let mut worker = Worker::ready();
    runtime().block_on(async {
        let (mut sender, _closed) = http2(&worker).await;
        assert_eq!(get(&mut sender, "/").await.unwrap(), (200, "ok\n".into()));
        assert_eq!(get(&mut sender, "/panic").await.unwrap().0, 500);
        assert_eq!(get(&mut sender, "/").await.unwrap().0, 200);
    });
    worker.health(|health| health.http.as_ref().unwrap().requests == [0, 2, 0, 0, 1]);
}

#[test]
fn a_drain_lets_http_2_streams_finish_and_closes_an_idle_connection_at_once() {
    let mut orders = Orders::default();
    orders.welcome.idle_grace_ms = 60_000;
    let mut worker = Worker::with(orders);
    runtime().block_on(async {
        let (mut idle, idle_closed) = http2(&worker).await;
        get(&mut idle, "/").await.unwrap();
        let (mut busy, busy_closed) = http2(&worker).await;
        let mut second = busy.clone();
        let slow = tokio::spawn(async move { get(&mut busy, "/slow?600").await });
        worker.in_flight(1);
        worker.drain(Duration::from_secs(60));
        let closed = timeout(DEADLINE, idle_closed).await.unwrap().unwrap();
        assert!(closed.is_ok(), "{closed:?}");
        assert!(!slow.is_finished());
        assert_eq!(slow.await.unwrap().unwrap(), (200, "slow\n".into()));
        let closed = timeout(DEADLINE, busy_closed).await.unwrap().unwrap();
        assert!(closed.is_ok(), "{closed:?}");
        assert!(get(&mut second, "/").await.is_err());
    });
    worker.drained();
}

#[test]
fn every_answer_and_byte_is_counted_once() {
    let mut worker = Worker::ready();
    let mut client = Client::connect(worker.address);
    for path in ["/", "/", "/missing", "/error", "/panic", "/", "/stream?5"] {
        client.get(path);
    }
    drop(client);
    let health = worker
        .health(|health| health.connections == 0 && health.http.as_ref().unwrap().total() == 7);
    let counts = health.http.unwrap();
    assert_eq!(counts.requests, [0, 4, 0, 1, 2]);
    assert_eq!(counts.accepted, 1);
    assert_eq!(counts.duration_buckets.iter().sum::<u64>(), 7);
    assert_eq!(health.in_flight, 0);
    let sent: usize = ["/", "/", "/missing", "/error", "/panic", "/", "/stream?5"]
        .iter()
        .map(|path| format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").len())
        .sum();
    assert_eq!(counts.received_bytes, sent as u64);
    assert!(counts.sent_bytes > 0);
}

#[test]
fn a_response_is_counted_before_its_client_can_see_it() {
    let mut worker = Worker::ready();
    let mut client = Client::connect(worker.address);
    for count in 1..=50 {
        client.get("/");
        // The ping's answer is made after the response, the report after that.
        assert!(worker.ask(|id| ToWorker::Ping { id }).ok);
        let health = worker.health(|_| true);
        assert_eq!(health.http.unwrap().total(), count);
    }
}

#[test]
fn a_handler_that_panics_or_fails_costs_its_own_request_only() {
    let worker = Worker::ready();
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/panic").status, 500);
    assert_eq!(client.get("/error").status, 500);
    assert_eq!(client.get("/").status, 200, "on the same connection");
}

#[test]
fn a_panic_is_counted_and_one_in_a_body_breaks_that_response_only() {
    let (worker, board) = Worker::with_board();
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/panic").status, 500);
    assert_eq!(client.get("/error").status, 500);
    let mut other = Client::connect(worker.address);
    other.ask("/panic-later");
    let broken = String::from_utf8(other.rest()).unwrap();
    assert!(
        broken.contains("first\n") && !broken.ends_with("0\r\n\r\n"),
        "{broken}"
    );
    assert_eq!(client.get("/").status, 200);
    let http = board.read().http;
    assert_eq!((http.panics, http.requests), (2, [0, 2, 0, 0, 2]));
    assert_eq!(board.read().in_flight, 0);
}

#[test]
fn a_client_that_leaves_is_not_in_flight_any_more() {
    let mut worker = Worker::ready();
    let mut client = Client::connect(worker.address);
    client.ask("/slow?60000");
    worker.in_flight(1);
    drop(client);
    worker.in_flight(0);
    worker.connections(0);
}

#[test]
fn an_upgraded_connection_stays_one_of_the_connections() {
    let mut worker = Worker::ready();
    let mut client = Client::connect(worker.address);
    client.send(
        "GET /upgrade HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
    );
    assert_eq!(client.response().status, 101);
    client.send("over and out");
    client.until("over and out");
    // An earlier report may have its connection and not yet its request.
    let health = worker.health(|health| health.http.as_ref().unwrap().total() == 1);
    assert_eq!((health.connections, health.in_flight), (1, 0));
    assert_eq!(health.http.unwrap().requests, [1, 0, 0, 0, 0]);
    client.close_sending();
    worker.connections(0);
}

#[test]
fn the_application_knows_who_asks() {
    let worker = Worker::ready();
    let stream = prefork_testkit::client::connected(worker.address);
    let told = format!("Some({}) main None", stream.local_addr().unwrap());
    let mut client = Client::over(stream);
    for _ in 0..2 {
        assert_eq!(client.get("/peer").text(), told);
    }
    runtime().block_on(async {
        let (mut sender, _closed) = http2(&worker).await;
        let (status, body) = get(&mut sender, "/peer").await.unwrap();
        let body = String::from_utf8_lossy(&body);
        assert!(
            body.starts_with("Some(127.0.0.1:") && status == 200,
            "{body}"
        );
        assert!(body.ends_with(") main None"), "{body}");
    });
}

#[test]
fn a_unix_listener_is_told_by_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let orders = Orders::default();
    let mut worker = Worker::spawned(&orders);
    worker.hello();
    worker.say(&ToWorker::Welcome(orders.welcome));
    worker.offer_fd(listener.into());
    worker.say(&ToWorker::Start);
    worker.until_ready();
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = b"GET /peer HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, request).unwrap();
    let mut response = String::new();
    std::io::Read::read_to_string(&mut stream, &mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.ends_with("None main None"), "{response}");
}

#[test]
fn a_worker_without_descriptors_left_goes_on_when_some_come_back() {
    let mut worker = Worker::with(Orders {
        prefix: Some("ulimit -n 26;"),
        ..Orders::default()
    });
    let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(worker.address)).collect();
    for client in &mut clients {
        client.ask("/");
    }
    // As many as it can hold are served, and it says that it lives.
    worker.health(|health| health.http.as_ref().unwrap().total() >= 10);
    worker.health(|health| health.connections < 30);
    let mut served = 0;
    while let Some(mut client) = (!clients.is_empty()).then(|| clients.remove(0)) {
        assert_eq!(client.response().status, 200);
        served += 1;
    }
    assert_eq!(served, 40);
    worker.connections(0);
}

#[test]
fn failing_requests_fill_no_log_however_many_there_are() {
    let mut worker = Worker::ready();
    let mut client = Client::connect(worker.address);
    for _ in 0..2_000 {
        assert_eq!(client.get("/error").status, 500);
    }
    worker.process.signal(nix::sys::signal::Signal::SIGKILL);
    worker.process.exit();
    let said = worker.process.stderr();
    let lines = said.matches("a request failed: as asked for").count();
    assert!((10..200).contains(&lines), "{lines} lines");
}
