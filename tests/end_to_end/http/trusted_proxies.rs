//! Proxies that are trusted say who a client is: the program behind a front and the access
//! log have the same of it, and what clients say for themselves reaches neither.

use std::fs;
use std::net::TcpStream;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::Connection;
use crate::harness::{Pool, Prefork};

/// A front with these settings of HTTP, before a program that says which head it has got.
fn front(http: &str) -> [Pool; 2] {
    let front = Pool::bundled("web", 1)
        .set("app", "{ forward = \"shop\", queue_timeout = \"20s\" }")
        .set("http", http)
        .set("access_log", "{ path = \"access.log\", format = \"json\" }");
    [front, Pool::behind("shop", &[], 1)]
}

/// The head that the program has got of a request with these headers.
fn head(prefork: &Prefork, headers: &str) -> String {
    let stream = TcpStream::connect(prefork.address("web")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let mut connection = Connection::over(stream);
    let request = format!("GET /head HTTP/1.1\r\nhost: shop\r\n{headers}\r\n");
    connection.write(request.as_bytes()).expect("it is sent");
    let answer = connection.receive().expect("there is an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Waits for a line of the access log with both of these.
fn has_logged(prefork: &Prefork, client: &str, id: &str) {
    let log = prefork.dir().join("access.log");
    let (client, id) = (format!("\"client\":\"{client}\""), format!("\"{id}\""));
    eventually(&format!("{client} asks for {id}"), PATIENCE, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines()
            .any(|line| line.contains(&client) && line.contains(&id))
    });
}

#[test]
fn the_program_and_the_access_log_have_the_client_whom_the_proxy_names() {
    let prefork = Prefork::start(&front("{ trusted_proxies = [\"127.0.0.0/8\"] }"));
    let got = head(
        &prefork,
        "x-forwarded-for: 203.0.113.9, 192.0.2.1, 127.0.0.7\r\nx-forwarded-proto: https\r\n\
         x-request-id: from-the-proxy\r\nforwarded: for=203.0.113.8\r\n",
    );
    for line in [
        "x-forwarded-for: 192.0.2.1\r\n",
        "x-forwarded-proto: https\r\n",
        "forwarded: for=192.0.2.1;proto=https;host=\"shop\"\r\n",
        "x-request-id: from-the-proxy\r\n",
    ] {
        assert!(got.contains(line), "{line:?} in {got}");
    }
    assert!(!got.contains("203.0.113"), "{got}");
    has_logged(&prefork, "192.0.2.1", "from-the-proxy");
}

#[test]
fn a_client_that_is_no_proxy_is_who_has_connected_whatever_it_says() {
    let prefork = Prefork::start(&front("{ trusted_proxies = [\"10.0.0.0/8\"] }"));
    let got = head(
        &prefork,
        "x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: https\r\nx-request-id: forged\r\n",
    );
    for line in [
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
    ] {
        assert!(got.contains(line), "{line:?} in {got}");
    }
    assert!(
        !got.contains("192.0.2.1") && !got.contains("forged"),
        "{got}"
    );
    let id = got
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "));
    has_logged(&prefork, "127.0.0.1", id.expect("it has one"));
}
