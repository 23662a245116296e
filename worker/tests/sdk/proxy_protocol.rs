//! The PROXY protocol: who the client is by the header, whatever follows it, and what
//! becomes of connections without one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use prefork_proto::tls::TlsVersion::V1_2;
use prefork_testkit::client::{Client, connected};
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};
use prefork_testkit::tls_client::{Trust, issue, settings};
use rustls::version::TLS13;

const LONG: Duration = Duration::from_secs(60);

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n";

const CLIENT: &str = "Some(192.0.2.7:4711) main None";

fn worker() -> Worker {
    Worker::proxied(Orders::default(), None)
}

/// A header of version 2 for `[2001:db8::7]:80`, with an extension.
fn version_2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x2a".to_vec();
    header.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    header.extend([0; 16]);
    header.extend([0, 80, 1, 0xbb]);
    header.extend([0x04, 0, 3, 1, 2, 3]);
    header
}

/// A connection that has begun with these bytes.
fn begun(worker: &Worker, header: &[u8]) -> TcpStream {
    let mut stream = connected(worker.address);
    stream.write_all(header).unwrap();
    stream
}

#[test]
fn the_client_is_who_the_header_names_for_all_requests_of_the_connection() {
    let worker = worker();
    let mut client = Client::over(begun(&worker, LINE));
    for _ in 0..3 {
        assert_eq!(client.get("/peer").text(), CLIENT);
    }
    let mut client = Client::over(begun(&worker, &version_2()));
    let told = "Some([2001:db8::7]:80) main None";
    assert_eq!(client.get("/peer").text(), told);
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    let worker = worker();
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let stream = begun(&worker, header);
        let told = format!("Some({}) main None", stream.local_addr().unwrap());
        assert_eq!(Client::over(stream).get("/peer").text(), told);
    }
}

#[test]
fn a_header_may_come_in_pieces_and_with_the_request() {
    let worker = worker();
    for header in [LINE.to_vec(), version_2()] {
        let mut stream = connected(worker.address);
        stream.set_nodelay(true).unwrap();
        for byte in &header {
            stream.write_all(&[*byte]).unwrap();
        }
        assert_eq!(Client::over(stream).get("/").text(), "ok\n");
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let mut stream = begun(&worker, &[&header, &request[..]].concat());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("ok\n"), "{answer}");
    }
}

#[test]
fn tls_comes_after_the_header() {
    let issued = issue(&["a.example"]);
    let worker = Worker::proxied(Orders::default(), Some(&settings(&[&issued], V1_2)));
    let trust = Trust::speaking(&[&issued], &[&TLS13], b"http/1.1");
    let stream = begun(&worker, LINE);
    let (secured, _) = trust.shake_over(stream, "a.example").unwrap();
    let answer = Client::over(secured).get("/peer");
    let told = answer.text();
    assert!(told.starts_with("Some(192.0.2.7:4711) main Some"), "{told}");
}

#[test]
fn a_connection_without_a_header_is_closed_and_nothing_is_answered() {
    let mut worker = worker();
    let wrong: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\n\nGET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.256 10.0.0.1 4711 443\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0cGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ];
    for bytes in wrong {
        let mut stream = begun(&worker, bytes);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    // One that ends within its header.
    for part in [&LINE[..20], &version_2()[..20], b""] {
        let mut stream = begun(&worker, part);
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(
        Client::over(begun(&worker, LINE)).get("/peer").text(),
        CLIENT
    );
    worker.drain(LONG);
    let http = worker.drained().http.unwrap();
    assert_eq!(http.total(), 1, "{http:?}");
}

#[test]
fn a_drain_does_not_wait_for_a_header_that_has_not_begun() {
    let mut worker = worker();
    let mut silent = connected(worker.address);
    // It has been accepted once one that came after it is answered.
    assert_eq!(Client::over(begun(&worker, LINE)).get("/").text(), "ok\n");
    worker.drain(LONG);
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    worker.drained();
}

#[test]
fn a_late_header_ends_its_connection() {
    let mut orders = Orders::default();
    orders.welcome.http.header_timeout_ms = Some(100);
    let worker = Worker::proxied(orders, None);
    let mut stream = begun(&worker, &LINE[..10]);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_queue_that_is_rescued_has_the_headers_of_its_listener() {
    let mut worker = worker();
    let queue = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut waiting = connected(queue.local_addr().unwrap());
    waiting.write_all(LINE).unwrap();
    let reply = worker.rescue(queue);
    assert!(reply.ok, "{reply:?}");
    assert!(
        Client::over(waiting)
            .get("/peer")
            .text()
            .contains("192.0.2.7")
    );
}
