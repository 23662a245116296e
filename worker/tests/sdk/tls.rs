//! TLS: which certificate a client gets, sessions that are taken up again, and
//! that a connection ends as well as one without TLS.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prefork_proto::message::ToSupervisor;
use prefork_proto::tls::TlsVersion::{V1_2, V1_3};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ProtocolVersion, SupportedProtocolVersion};

use prefork_testkit::client::{Client, connected};
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};
use prefork_testkit::tls_client::{Issued, Trust, issue, settings, ticket_key};

const LONG: Duration = Duration::from_secs(60);

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn worker(issued: &[&Issued]) -> Worker {
    Worker::secured(Orders::default(), &settings(issued, V1_2), &[ticket_key(1)])
}

fn with_grace(idle_grace_ms: u64, issued: &Issued) -> Worker {
    let mut orders = Orders::default();
    orders.welcome.idle_grace_ms = idle_grace_ms;
    Worker::secured(orders, &settings(&[issued], V1_2), &[])
}

#[test]
fn requests_are_answered_and_every_byte_of_the_wire_is_counted() {
    let issued = issue(&["a.example"]);
    for version in VERSIONS {
        let mut worker = worker(&[&issued]);
        let trust = Trust::speaking(&[&issued], &[version], b"http/1.1");
        let (connection, shaken) = trust.shake(worker.address, "a.example").unwrap();
        assert_eq!(shaken.version, version.version);
        assert!(!shaken.resumed);
        let mut client = Client::over(connection);
        for _ in 0..3 {
            assert_eq!(client.get("/").text(), "ok\n");
        }
        assert_eq!(client.get("/large").body.len(), 32 << 20);
        drop(client);
        worker.drain(LONG);
        let http = worker.drained().http.unwrap();
        assert_eq!((http.total(), http.accepted), (4, 1));
        assert!(http.sent_bytes > (32 << 20) + 1000, "{http:?}");
        assert!(http.received_bytes > 500, "{http:?}");
    }
}

#[test]
fn http_2_is_agreed_on_by_alpn() {
    let issued = issue(&["a.example"]);
    let mut worker = worker(&[&issued]);
    let trust = Trust::speaking(&[&issued], rustls::ALL_VERSIONS, b"h2");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(worker.address)
            .await
            .unwrap();
        let name = ServerName::try_from("a.example").unwrap();
        let connector = tokio_rustls::TlsConnector::from(trust.0);
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        for _ in 0..10 {
            let request = Request::get("https://a.example/").body(Empty::<bytes::Bytes>::new());
            let response = sender.send_request(request.unwrap()).await.unwrap();
            assert_eq!(response.version(), hyper::Version::HTTP_2);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "ok\n");
        }
    });
    drop(runtime);
    worker.drain(LONG);
    assert_eq!(worker.drained().http.unwrap().total(), 10);
}

#[test]
fn what_was_agreed_on_by_alpn_is_spoken_and_nothing_else() {
    const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let issued = issue(&["a.example"]);
    let worker = worker(&[&issued]);
    let speaking = |protocol: &[u8]| {
        let trust = Trust::speaking(&[&issued], rustls::ALL_VERSIONS, protocol);
        trust.client(worker.address, "a.example")
    };
    let mut client = speaking(b"h2");
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n");
    assert_eq!(String::from_utf8_lossy(&client.rest()), "");
    let mut client = speaking(b"http/1.1");
    client.send(PREFACE);
    let answer = client.response();
    assert!(answer.status == 400 && answer.says_close(), "{answer:?}");
    client.until_closed();
    // Who agreed on nothing is known by what it says.
    let mut silent = Trust::of(&[&issued]);
    Arc::make_mut(&mut silent.0).alpn_protocols.clear();
    let mut client = silent.client(worker.address, "a.example");
    assert_eq!(client.get("/").text(), "ok\n");
    let mut client = silent.client(worker.address, "a.example");
    client.send(PREFACE);
    assert!(client.hears_within(DEADLINE), "it sends its settings");
}

#[test]
fn the_application_knows_what_was_agreed_on_with_whom() {
    let issued = issue(&["a.example"]);
    let worker = worker(&[&issued]);
    let trust = Trust::speaking(&[&issued], &[&TLS12], b"http/1.1");
    let (connection, _) = trust.shake(worker.address, "A.example").unwrap();
    let address = connection.0.sock.local_addr().unwrap();
    let mut client = Client::over(connection);
    let agreed = "PeerTls { version: V1_2, server_name: Some(\"a.example\"), \
                  protocol: Some(\"http/1.1\"), client_certificate: None }";
    let told = format!("Some({address}) main Some({agreed})");
    for _ in 0..2 {
        assert_eq!(client.get("/peer").text(), told);
    }
}

#[test]
fn each_name_has_its_certificate_and_the_first_is_for_all_others() {
    let default = issue(&["default.example", "elsewhere.example"]);
    let star = issue(&["*.shop.example"]);
    let exact = issue(&["www.shop.example"]);
    let all = [&default, &star, &exact];
    let worker = worker(&all);
    let trust = Trust::of(&all);
    for (name, issued) in [
        ("default.example", &default),
        ("elsewhere.example", &default),
        ("api.shop.example", &star),
        ("www.shop.example", &exact),
    ] {
        assert_eq!(trust.sees(worker.address, name), issued.der, "{name}");
    }
}

#[test]
fn a_client_that_is_too_old_is_refused() {
    let issued = issue(&["a.example"]);
    let orders = Orders::default();
    let mut worker = Worker::secured(orders, &settings(&[&issued], V1_3), &[]);
    let old = Trust::speaking(&[&issued], &[&TLS12], b"http/1.1");
    let refused = old.shake(worker.address, "a.example").err().unwrap();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    let (_, shaken) = Trust::of(&[&issued])
        .shake(worker.address, "a.example")
        .unwrap();
    assert_eq!(shaken.version, ProtocolVersion::TLSv1_3);
    worker.connections(0);
}

#[test]
fn certificates_are_replaced_while_connections_go_on() {
    let [old, new] = [issue(&["a.example"]), issue(&["a.example"])];
    let mut worker = worker(&[&old]);
    let trust = Trust::of(&[&old, &new]);
    let mut client = trust.client(worker.address, "a.example");
    client.get("/");
    assert!(worker.certify(&settings(&[&new], V1_2)).ok);
    assert_eq!(client.get("/").text(), "ok\n");
    // It remembers no session: a new client.
    let trust = Trust::of(&[&old, &new]);
    assert_eq!(trust.sees(worker.address, "a.example"), new.der);
}

#[test]
fn what_can_not_be_used_is_refused_and_what_there_is_stays() {
    let issued = issue(&["a.example"]);
    let mut worker = worker(&[&issued]);
    let mut broken = settings(&[&issued], V1_2);
    broken.certificates[0].key = issue(&["a.example"]).given.key;
    let error = worker.certify(&broken).error.unwrap();
    assert_eq!(error.code, "unusable_tls");
    assert!(error.message.contains("a.example"), "{error:?}");
    broken.listeners[0].certificates = vec![7];
    assert!(!worker.certify(&broken).ok);
    let trust = Trust::of(&[&issued]);
    assert_eq!(trust.sees(worker.address, "a.example"), issued.der);
}

#[test]
fn a_worker_that_is_given_what_it_can_not_use_says_so_and_leaves() {
    let orders = Orders::default();
    let mut worker = Worker::spawned(&orders);
    let hello = worker.hello();
    assert!(hello.capabilities.contains(&"tls".to_owned()));
    worker.say(&prefork_proto::message::ToWorker::Welcome(orders.welcome));
    let mut broken = settings(&[&issue(&["a.example"])], V1_2);
    broken.certificates[0].chain = String::new();
    worker.offer_certificates(&broken);
    let reason = worker.until(|message| match message {
        ToSupervisor::Bye { reason } => Some(reason),
        _ => None,
    });
    assert!(reason.contains("a.example"), "{reason}");
    assert_eq!(worker.process.exit().code(), Some(1));
}

#[test]
fn a_listener_for_tls_without_a_certificate_is_refused() {
    let orders = Orders::default();
    let mut worker = Worker::spawned(&orders);
    worker.hello();
    worker.say(&prefork_proto::message::ToWorker::Welcome(orders.welcome));
    worker.tls = true;
    worker.offer();
    let reason = worker.until(|message| match message {
        ToSupervisor::Bye { reason } => Some(reason),
        _ => None,
    });
    assert!(reason.contains("no certificate came for it"), "{reason}");
}

#[test]
fn a_session_is_taken_up_by_another_worker_that_has_the_key() {
    let issued = issue(&["a.example"]);
    let settings = settings(&[&issued], V1_2);
    for version in VERSIONS {
        let first = Worker::secured(Orders::default(), &settings, &[ticket_key(1)]);
        // The key has been replaced, and is still known.
        let keys = [ticket_key(2), ticket_key(1)];
        let second = Worker::secured(Orders::default(), &settings, &keys);
        let stranger = Worker::secured(Orders::default(), &settings, &[ticket_key(2)]);
        for (worker, resumed) in [(&second, true), (&stranger, false)] {
            let trust = Trust::speaking(&[&issued], &[version], b"http/1.1");
            let (connection, shaken) = trust.shake(first.address, "a.example").unwrap();
            assert!(!shaken.resumed);
            Client::over(connection).get("/");
            let (connection, shaken) = trust.shake(worker.address, "a.example").unwrap();
            assert_eq!(shaken.resumed, resumed, "{version:?}");
            assert_eq!(Client::over(connection).get("/").text(), "ok\n");
        }
    }
}

#[test]
fn new_ticket_keys_are_taken_at_any_time() {
    let issued = issue(&["a.example"]);
    let mut worker = worker(&[&issued]);
    let trust = Trust::of(&[&issued]);
    let resumed = |worker: &Worker| {
        let (connection, shaken) = trust.shake(worker.address, "a.example").unwrap();
        Client::over(connection).get("/");
        shaken.resumed
    };
    assert!(!resumed(&worker) && resumed(&worker));
    for (keys, known) in [(vec![2, 1], true), (vec![3], false), (vec![], false)] {
        let keys = keys.into_iter().map(ticket_key).collect();
        worker.say(&prefork_proto::message::ToWorker::Tickets { keys });
        // It is taken before what comes after it.
        worker.tell("echo", serde_json::Value::Null);
        assert_eq!(resumed(&worker), known);
    }
}

#[test]
fn a_handshake_that_takes_too_long_is_cut_and_others_are_not_kept_waiting() {
    let issued = issue(&["a.example"]);
    let orders = Orders {
        kind: "impatient",
        ..Orders::default()
    };
    let mut worker = Worker::secured(orders, &settings(&[&issued], V1_2), &[]);
    let mut silent = connected(worker.address);
    let mut slow = connected(worker.address);
    // A client's first record, of 256 bytes, without its end.
    slow.write_all(&[0x16, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3])
        .unwrap();
    worker.connections(2);
    let mut client = Trust::of(&[&issued]).client(worker.address, "a.example");
    assert_eq!(client.get("/").text(), "ok\n");
    for client in [&mut silent, &mut slow] {
        // Closed, or reset over what it sent.
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    }
    worker.connections(1);
}

#[test]
fn a_handshake_that_comes_to_nothing_is_counted_by_its_reason() {
    let issued = issue(&["a.example"]);
    let orders = Orders {
        kind: "impatient",
        ..Orders::default()
    };
    let mut worker = Worker::secured(orders, &settings(&[&issued], V1_3), &[]);
    // None that come to something, and one that is not begun.
    drop(connected(worker.address));
    let trust = Trust::of(&[&issued]);
    assert_eq!(
        trust.client(worker.address, "a.example").get("/").status,
        200
    );
    worker.connections(0);
    let half = [0x16, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3];
    connected(worker.address).write_all(&half).unwrap();
    let closed = [0, 1, 0, 0, 0];
    worker.health(|health| health.http.as_ref().unwrap().tls_failures == closed);
    for _ in 0..2 {
        let mut plain = connected(worker.address);
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        plain.read_to_end(&mut Vec::new()).unwrap();
    }
    let old = Trust::speaking(&[&issued], &[&TLS12], b"http/1.1");
    assert!(old.shake(worker.address, "a.example").is_err());
    let stranger = Trust::of(&[&issue(&["a.example"])]);
    for _ in 0..3 {
        assert!(stranger.shake(worker.address, "a.example").is_err());
    }
    let _silent = connected(worker.address);
    let mut slow = connected(worker.address);
    slow.write_all(&half).unwrap();
    worker.health(|health| {
        let http = health.http.as_ref().unwrap();
        http.tls_failures == [2, 1, 2, 1, 3] && http.total() == 1
    });
}

#[test]
fn what_is_not_tls_is_closed() {
    let issued = issue(&["a.example"]);
    let mut worker = worker(&[&issued]);
    let mut plain = connected(worker.address);
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    drop(plain);
    let stranger = Trust::of(&[&issue(&["a.example"])]);
    assert!(stranger.shake(worker.address, "a.example").is_err());
    let mut client = Trust::of(&[&issued]).client(worker.address, "a.example");
    assert_eq!(client.get("/").status, 200);
    worker.connections(1);
}

#[test]
fn a_drain_breaks_no_request_and_ends_connections_as_tls_wants_it() {
    let issued = issue(&["a.example"]);
    let trust = Trust::of(&[&issued]);
    let mut worker = with_grace(400, &issued);
    let mut busy = trust.client(worker.address, "a.example");
    busy.ask("/slow?600");
    worker.in_flight(1);
    let mut idle = trust.client(worker.address, "a.example");
    idle.get("/");
    let mut fresh = trust.client(worker.address, "a.example");
    let mut late = trust.client(worker.address, "a.example");
    worker.connections(4);
    worker.drain(LONG);
    let response = late.get("/");
    assert!(response.status == 200 && response.says_close());
    // Without TLS's own end these would be errors.
    late.until_closed();
    idle.until_closed();
    fresh.until_closed();
    let response = busy.response();
    assert!(response.text() == "slow\n" && response.says_close());
    busy.until_closed();
    drop((busy, idle, fresh, late));
    assert_eq!(worker.drained().http.unwrap().total(), 3);
}

#[test]
fn a_request_of_which_half_a_record_has_come_is_not_cut_by_a_drain() {
    let issued = issue(&["a.example"]);
    let trust = Trust::of(&[&issued]);
    for used in [false, true] {
        let mut worker = with_grace(200, &issued);
        let (mut connection, _) = trust.shake(worker.address, "a.example").unwrap();
        if used {
            connection
                .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                .unwrap();
            let mut answer = [0; 1024];
            assert!(connection.read(&mut answer).unwrap() > 0);
        }
        let session = &mut connection.0.conn;
        session
            .writer()
            .write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
            .unwrap();
        let mut record = Vec::new();
        session.write_tls(&mut record).unwrap();
        let (half, rest) = record.split_at(record.len() / 2);
        connection.0.sock.write_all(half).unwrap();
        worker.connections(1);
        worker.drain(LONG);
        // Twice the grace, and then the rest.
        let end = Instant::now() + Duration::from_millis(400);
        worker.health(|_| Instant::now() >= end);
        connection.0.sock.write_all(rest).unwrap();
        let mut client = Client::over(connection);
        assert_eq!(client.response().text(), "slow\n", "used: {used}");
        client.until_closed();
        drop(client);
        worker.drained();
    }
}

#[test]
fn an_upgraded_connection_stays_one() {
    let issued = issue(&["a.example"]);
    let worker = worker(&[&issued]);
    let mut client = Trust::of(&[&issued]).client(worker.address, "a.example");
    client.send("GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    assert_eq!(client.response().status, 101);
    for word in ["one", "two"] {
        client.send(word);
        assert_eq!(client.until(word), word);
    }
}

#[test]
fn what_waits_in_another_listeners_queue_is_served_with_tls() {
    let issued = issue(&["a.example"]);
    let mut worker = worker(&[&issued]);
    let queue = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = queue.local_addr().unwrap();
    let trust = Trust::of(&[&issued]);
    let waiting = std::thread::spawn(move || trust.client(address, "a.example").get("/").status);
    let begun = Instant::now();
    let mut accepted = 0;
    while accepted == 0 {
        assert!(begun.elapsed() < DEADLINE, "the client never came");
        let reply = worker.rescue(queue.try_clone().unwrap());
        assert!(reply.ok, "{reply:?}");
        accepted = reply.data["accepted"].as_u64().unwrap();
    }
    assert_eq!(waiting.join().unwrap(), 200);
}
