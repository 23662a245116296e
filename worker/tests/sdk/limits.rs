//! Each limit and deadline of HTTP, reached: what the client is told, that it
//! is counted, and that the worker goes on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Version};
use prefork_proto::message::{HttpLimits, ToWorker};

use prefork_testkit::client::{Client, Response};
use prefork_testkit::http2::{get, http2, runtime};
use prefork_testkit::supervisor::{Orders, Worker};

/// A worker whose operator has set these.
fn limited(http: HttpLimits) -> Worker {
    let mut orders = Orders::default();
    orders.welcome.http = Box::new(http);
    Worker::with(orders)
}

/// The answer to these bytes, on a connection of their own.
fn answer(worker: &Worker, bytes: impl AsRef<[u8]>) -> Response {
    let mut client = Client::connect(worker.address);
    client.send(bytes);
    let answer = client.response();
    if answer.says_close() {
        client.until_closed();
    }
    answer
}

fn get_with(head: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: test\r\n{head}\r\n")
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let mut worker = limited(HttpLimits {
        max_header_size: Some(2000),
        ..HttpLimits::default()
    });
    let with = |length: usize| get_with(&format!("x: {}\r\n", "y".repeat(length)));
    assert_eq!(answer(&worker, with(1900)).status, 200);
    let refusal = answer(&worker, with(2000));
    assert_eq!(refusal.status, 431);
    assert!(refusal.says_close());
    // Also one that never ends.
    assert_eq!(answer(&worker, &with(4000)[..3000]).status, 431);
    worker.health(|health| health.http.as_ref().unwrap().requests == [0, 1, 0, 2, 0]);
}

#[test]
fn too_many_headers_are_431_below_and_above_what_hyper_counts() {
    for most in [7, 100, 300] {
        let mut worker = limited(HttpLimits {
            max_headers: Some(most),
            ..HttpLimits::default()
        });
        // `host` is one, too.
        let with = |headers: u64| get_with(&"a: b\r\n".repeat(headers as usize - 1));
        assert_eq!(answer(&worker, with(most)).status, 200, "{most}");
        assert_eq!(answer(&worker, with(most + 1)).status, 431, "{most}");
        worker.health(|health| health.http.as_ref().unwrap().requests == [0, 1, 0, 1, 0]);
    }
}

#[test]
fn a_uri_that_is_too_long_is_414() {
    let worker = limited(HttpLimits {
        max_uri_size: Some(100),
        ..HttpLimits::default()
    });
    let with = |length: usize| format!("GET /{:x<length$} HTTP/1.1\r\nhost: a\r\n\r\n", "");
    assert_eq!(answer(&worker, with(99)).status, 404);
    let refusal = answer(&worker, with(100));
    assert_eq!(refusal.status, 414);
    assert!(refusal.says_close());
}

#[test]
fn a_body_that_announces_too_much_is_413_before_it_is_sent() {
    let mut worker = limited(HttpLimits {
        max_body_size: Some(1000),
        ..HttpLimits::default()
    });
    let post = |length: usize| {
        format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n")
    };
    let whole = answer(&worker, post(1000) + &"x".repeat(1000));
    assert_eq!((whole.status, whole.body.len()), (200, 1000));
    let refusal = answer(&worker, post(1001));
    assert_eq!(refusal.status, 413);
    assert!(refusal.says_close());
    // One that asks first is not told to go on.
    let asks = post(1001).replace("host: a", "host: a\r\nexpect: 100-continue");
    assert_eq!(answer(&worker, asks).status, 413);
    // One that does not wait has its answer nevertheless.
    assert_eq!(
        answer(&worker, post(300_000) + &"x".repeat(300_000)).status,
        413
    );
    worker.health(|health| health.http.as_ref().unwrap().requests == [0, 1, 0, 3, 0]);
}

#[test]
fn a_body_in_chunks_that_comes_to_be_too_large_is_413() {
    let mut worker = limited(HttpLimits {
        max_body_size: Some(10_000),
        ..HttpLimits::default()
    });
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1000));
    let whole = answer(&worker, format!("{head}{}0\r\n\r\n", chunk.repeat(9)));
    assert_eq!((whole.status, whole.body.len()), (200, 9000));
    // At once, and in parts that are read one by one.
    assert_eq!(
        answer(&worker, format!("{head}{}", chunk.repeat(10))).status,
        413
    );
    let mut client = Client::connect(worker.address);
    client.send(head);
    worker.in_flight(1);
    while !client.hears_within(Duration::from_millis(20)) {
        client.send(&chunk);
    }
    let refusal = client.response();
    assert_eq!(refusal.status, 413);
    assert!(refusal.says_close());
    worker.health(|health| health.http.as_ref().unwrap().requests == [0, 1, 0, 2, 0]);
}

#[test]
fn a_request_that_takes_too_long_is_503_and_its_connection_goes_on() {
    let mut worker = limited(HttpLimits {
        request_timeout_ms: Some(1000),
        ..HttpLimits::default()
    });
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/slow?10").status, 200);
    let begun = Instant::now();
    assert_eq!(client.get("/never").status, 503);
    assert!(begun.elapsed() >= Duration::from_millis(1000));
    assert_eq!(client.get("/").status, 200);
    // What has begun is not cut off.
    assert_eq!(client.get("/stream?2000").status, 200);
    worker.health(|health| health.http.as_ref().unwrap().requests == [0, 3, 0, 0, 1]);
    runtime().block_on(async {
        let (mut sender, _closed) = http2(&worker).await;
        assert_eq!(get(&mut sender, "/never").await.unwrap().0, 503);
        assert_eq!(get(&mut sender, "/slow?10").await.unwrap().0, 200);
    });
}

#[test]
fn the_time_for_an_answer_begins_when_the_body_is_there() {
    let worker = limited(HttpLimits {
        request_timeout_ms: Some(1500),
        ..HttpLimits::default()
    });
    for head in ["content-length: 8", "transfer-encoding: chunked"] {
        let mut client = Client::connect(worker.address);
        client.send(format!("POST /echo HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n"));
        let parts: &[&str] = match head.ends_with("chunked") {
            true => &["1\r\na\r\n", "1\r\nb\r\n", "1\r\nc\r\n", "0\r\n\r\n"],
            false => &["aa", "bb", "cc", "dd"],
        };
        for part in parts {
            assert!(!client.hears_within(Duration::from_millis(800)));
            client.send(part);
        }
        assert_eq!(client.response().status, 200, "{head}");
    }
}

#[test]
fn a_body_that_does_not_go_on_is_408() {
    let mut worker = limited(HttpLimits {
        body_timeout_ms: Some(400),
        ..HttpLimits::default()
    });
    for head in ["content-length: 8", "transfer-encoding: chunked"] {
        let begun = Instant::now();
        let post = format!("POST /echo HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n1\r\na");
        let refusal = answer(&worker, post);
        assert_eq!(refusal.status, 408, "{head}");
        assert!(refusal.says_close());
        assert!(begun.elapsed() >= Duration::from_millis(400));
    }
    // One that is there as a whole is not late, however long its answer takes.
    let mut client = Client::connect(worker.address);
    for body in [
        "content-length: 2\r\n\r\nab",
        "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        client.send(format!("POST /slow?1500 HTTP/1.1\r\nhost: a\r\n{body}"));
        assert_eq!(client.response().status, 200, "{body}");
    }
    worker.health(|health| health.http.as_ref().unwrap().requests == [0, 2, 0, 2, 0]);
}

#[test]
fn a_client_that_takes_nothing_is_cut_off() {
    let mut worker = limited(HttpLimits {
        write_timeout_ms: Some(400),
        ..HttpLimits::default()
    });
    for path in ["/large", "/endless"] {
        let mut client = Client::connect(worker.address);
        client.ask(path);
        worker.connections(1);
        let begun = Instant::now();
        worker.connections(0);
        assert!(begun.elapsed() >= Duration::from_millis(300), "{path}");
    }
    // One that takes its time is not.
    let mut client = Client::connect(worker.address);
    client.ask("/large");
    let mut taken = 0;
    while taken < 32 << 20 {
        std::thread::sleep(Duration::from_millis(30));
        taken += client.take(2 << 20);
    }
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_client_of_http_2_that_takes_nothing_is_cut_off() {
    let mut worker = limited(HttpLimits {
        write_timeout_ms: Some(400),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let (mut sender, closed) = http2(&worker).await;
        let request = Request::get("http://test/endless").version(Version::HTTP_2);
        let request = request.body(Full::<Bytes>::default()).unwrap();
        // Its body is never read, so that the stream's window stays closed.
        let _response = sender.send_request(request).await.unwrap();
        worker.connections(0);
        closed.await.unwrap().unwrap_err();
    });
}

#[test]
fn no_more_connections_are_accepted_than_there_may_be() {
    let mut worker = limited(HttpLimits {
        max_connections: Some(3),
        ..HttpLimits::default()
    });
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(worker.address)).collect();
    for client in &mut clients {
        client.ask("/");
    }
    worker.connections(3);
    for _ in 0..10 {
        worker.health(|health| {
            assert!(health.connections <= 3);
            true
        });
    }
    // The others wait in the queue, and each has its turn.
    for mut client in clients {
        assert_eq!(client.response().status, 200);
    }
    worker.connections(0);
}

#[test]
fn another_worker_takes_the_connections_that_are_too_many_for_one() {
    let http = HttpLimits {
        max_connections: Some(2),
        ..HttpLimits::default()
    };
    let mut one = limited(http);
    let mut other = Worker::beside(Orders::default(), one.listener.try_clone().unwrap());
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(one.address)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    let most = one.health(|_| true).connections;
    assert!(most <= 2, "{most}");
    other.health(|health| health.connections >= 8);
}

#[test]
fn requests_beyond_the_concurrency_wait_and_have_their_turn() {
    let mut worker = limited(HttpLimits {
        max_concurrency: Some(2),
        queue_timeout_ms: Some(10_000),
        ..HttpLimits::default()
    });
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(worker.address)).collect();
    worker.connections(4);
    let begun = Instant::now();
    for client in &mut clients {
        client.ask("/slow?500");
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    assert!(
        begun.elapsed() >= Duration::from_secs(1),
        "not two at a time"
    );
    runtime().block_on(async {
        let (sender, _closed) = http2(&worker).await;
        let asked: Vec<_> = (0..4)
            .map(|_| {
                let mut sender = sender.clone();
                tokio::spawn(async move { get(&mut sender, "/slow?100").await.unwrap().0 })
            })
            .collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap(), 200);
        }
    });
    worker.in_flight(0);
}

#[test]
fn requests_that_wait_too_long_are_503_and_told_when_to_come_again() {
    let mut worker = limited(HttpLimits {
        max_concurrency: Some(1),
        queue_timeout_ms: Some(500),
        ..HttpLimits::default()
    });
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(worker.address)).collect();
    worker.connections(2);
    clients[0].ask("/slow?4000");
    worker.in_flight(1);
    let begun = Instant::now();
    clients[1].ask("/");
    let refusal = clients[1].response();
    assert_eq!(refusal.status, 503);
    assert_eq!(refusal.header("retry-after"), Some("1"));
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert_eq!(clients[0].response().status, 200);
    // All of them go on.
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    worker.health(|health| health.http.as_ref().unwrap().requests == [0, 3, 0, 0, 1]);
}

#[test]
fn requests_that_are_too_many_are_503_while_the_others_wait() {
    let mut worker = limited(HttpLimits {
        max_concurrency: Some(1),
        max_queue: Some(1),
        queue_timeout_ms: Some(60_000),
        ..HttpLimits::default()
    });
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(worker.address)).collect();
    worker.connections(3);
    clients[0].ask("/slow?60000");
    worker.in_flight(1);
    clients[1].ask("/");
    worker.in_flight(2);
    let refusal = clients[2].get("/");
    assert_eq!(refusal.status, 503);
    assert_eq!(refusal.header("retry-after"), Some("60"));
    assert!(!clients[1].hears_within(Duration::from_millis(1)));
    worker.in_flight(2);
}

#[test]
fn a_worker_whose_requests_wait_accepts_no_connection() {
    let mut worker = limited(HttpLimits {
        max_concurrency: Some(1),
        queue_timeout_ms: Some(60_000),
        ..HttpLimits::default()
    });
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(worker.address)).collect();
    worker.connections(2);
    clients[0].ask("/slow?2000");
    worker.in_flight(1);
    clients[1].ask("/");
    worker.in_flight(2);
    // The first of these may be the one that it was told of before.
    let mut late: Vec<Client> = (0..3).map(|_| Client::connect(worker.address)).collect();
    for _ in 0..10 {
        worker.health(|health| {
            assert!(health.connections <= 3);
            true
        });
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    for client in &mut late {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn a_client_that_leaves_the_queue_leaves_its_place_to_others() {
    let mut worker = limited(HttpLimits {
        max_concurrency: Some(1),
        max_queue: Some(1),
        queue_timeout_ms: Some(60_000),
        ..HttpLimits::default()
    });
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(worker.address)).collect();
    worker.connections(3);
    clients[0].ask("/slow?2000");
    worker.in_flight(1);
    clients[1].ask("/");
    worker.in_flight(2);
    drop(clients.remove(1));
    worker.in_flight(1);
    assert_eq!(clients[1].get("/").status, 200);
    assert_eq!(clients[0].response().status, 200);
}

#[test]
fn too_large_headers_of_http_2_are_431_and_counted() {
    let mut worker = limited(HttpLimits {
        max_header_size: Some(2000),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let (mut sender, _closed) = http2(&worker).await;
        let request = Request::get("http://test/").version(Version::HTTP_2);
        let request = request.header("x", "y".repeat(2000));
        let request = request.body(Full::<Bytes>::default()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 431);
        assert_eq!(get(&mut sender, "/").await.unwrap().0, 200);
    });
    worker.health(|health| health.http.as_ref().unwrap().requests == [0, 1, 0, 1, 0]);
}

#[test]
fn a_body_of_http_2_that_announces_too_much_is_413() {
    let mut worker = limited(HttpLimits {
        max_body_size: Some(1000),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let (mut sender, _closed) = http2(&worker).await;
        for (length, status) in [(1000, 200), (1001, 413)] {
            let request = Request::post("http://test/echo").version(Version::HTTP_2);
            let body = Full::from(Bytes::from(vec![b'x'; length]));
            let request = request.header("content-length", length).body(body).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), status);
        }
    });
    worker.health(|health| health.http.as_ref().unwrap().requests == [0, 1, 0, 1, 0]);
}

#[test]
fn a_host_of_http_2_that_contradicts_its_authority_is_400() {
    let worker = Worker::ready();
    runtime().block_on(async {
        let (mut sender, _closed) = http2(&worker).await;
        for (host, status) in [("test", 200), ("other", 400)] {
            let request = Request::get("http://test/").version(Version::HTTP_2);
            let request = request.header("host", host);
            let request = request.body(Full::<Bytes>::default()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), status);
        }
    });
}

#[test]
fn a_full_worker_that_pauses_takes_no_more_than_it_may_have() {
    let mut worker = limited(HttpLimits {
        max_connections: Some(2),
        ..HttpLimits::default()
    });
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(worker.address)).collect();
    worker.connections(2);
    assert!(worker.ask(|id| ToWorker::Pause { id }).ok);
    assert_eq!(worker.health(|_| true).connections, 2);
    assert!(worker.ask(|id| ToWorker::Resume { id }).ok);
    for mut client in clients.drain(..) {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn a_flood_of_resets_ends_its_connection_and_no_other() {
    let mut worker = limited(HttpLimits {
        http2_max_resets: Some(10),
        ..HttpLimits::default()
    });
    let mut other = Client::connect(worker.address);
    assert_eq!(other.get("/").status, 200);
    let mut client = Client::connect(worker.address);
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1..2001_u32).step_by(2) {
        // GET http://a/ in static and literal fields (RFC 7541), then RST_STREAM.
        let fields = b"\x82\x86\x84\x41\x01a";
        flood.extend([0, 0, fields.len() as u8, 1, 5]);
        flood.extend(stream.to_be_bytes());
        flood.extend(fields);
        flood.extend([0, 0, 4, 3, 0]);
        flood.extend(stream.to_be_bytes());
        flood.extend(8_u32.to_be_bytes());
    }
    client.send(&flood);
    let rest = client.rest();
    // GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, 7).
    assert!(
        rest.windows(4).any(|part| part == [0, 0, 0, 11]),
        "{rest:?}"
    );
    drop(client);
    worker.connections(1);
    assert_eq!(other.get("/").status, 200);
    assert!(worker.ask(|id| ToWorker::Ping { id }).ok);
    let answered = worker.health(|_| true).http.unwrap();
    assert!(answered.total() < 200, "{answered:?}");
}

#[test]
fn a_client_of_http_2_is_told_how_many_streams_it_may_open() {
    let worker = limited(HttpLimits {
        http2_max_streams: Some(2),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let (sender, _closed) = http2(&worker).await;
        let begun = Instant::now();
        let mut first = sender.clone();
        assert_eq!(get(&mut first, "/").await.unwrap().0, 200);
        let asked: Vec<_> = (0..4)
            .map(|_| {
                let mut sender = sender.clone();
                tokio::spawn(async move { get(&mut sender, "/slow?400").await.unwrap().0 })
            })
            .collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap(), 200);
        }
        assert!(
            begun.elapsed() >= Duration::from_millis(800),
            "not two at a time"
        );
    });
}

#[test]
fn a_client_of_http_2_that_answers_no_ping_is_let_go() {
    let mut worker = limited(HttpLimits {
        http2_ping_interval_ms: Some(100),
        http2_ping_timeout_ms: Some(100),
        ..HttpLimits::default()
    });
    let mut client = Client::connect(worker.address);
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    client.rest();
    drop(client);
    worker.connections(0);
}

#[test]
fn what_the_operator_says_stands_above_the_applications_own() {
    let mut orders = Orders {
        kind: "impatient",
        ..Orders::default()
    };
    orders.welcome.http.idle_timeout_ms = Some(60_000);
    orders.welcome.http.header_timeout_ms = Some(60_000);
    let worker = Worker::with(orders);
    let mut client = Client::connect(worker.address);
    client.send("GET / HTTP/1.1\r\nho");
    // The application's own would have ended it by now.
    assert!(!client.hears_within(Duration::from_millis(1500)));
    client.send("st: a\r\n\r\n");
    assert_eq!(client.response().status, 200);
}
