//! The bundled web server in front of programs that are no workers themselves.

mod bodies;
mod deaths;
mod hostile;
mod program;
mod turns;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use prefork_proto::message::RejoinOffer;
use serde_json::json;

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{Orders, Worker};
use program::{HELLO, before, get, learn};

#[test]
fn a_request_reaches_the_program_and_its_answer_the_client() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    client
        .send("GET /shoes?size=42 HTTP/1.1\r\nhost: shop.test\r\nx-forwarded-for: spoofed\r\n\r\n");
    let mut program = programs[0].accept();
    let head = program.until("\r\n\r\n");
    assert!(
        head.starts_with("GET /shoes?size=42 HTTP/1.1\r\n"),
        "{head}"
    );
    for line in [
        "host: shop.test\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "via: 1.1 prefork\r\n",
        "x-request-id: ",
    ] {
        assert!(head.contains(line), "{line:?} in {head}");
    }
    assert!(!head.contains("spoofed"), "{head}");
    program.send("HTTP/1.1 203 Shoes\r\ncontent-length: 5\r\nx-size: 42\r\nkeep-alive: timeout=5\r\n\r\nshoes");
    let response = client.response();
    assert!(
        response.head.starts_with("HTTP/1.1 203 Shoes\r\n"),
        "{}",
        response.head
    );
    assert_eq!(response.text(), "shoes");
    assert_eq!(response.header("x-size"), Some("42"));
    assert_eq!(response.header("via"), Some("1.1 prefork"));
    assert_eq!(response.header("keep-alive"), None);
}

#[test]
fn what_is_a_file_is_served_and_all_else_forwarded() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("logo.txt"), "logo").unwrap();
    let (front, programs) = before(json!({ "root": directory.path() }), 0, 1);
    let mut client = Client::connect(front.address);
    assert_eq!(client.get("/logo.txt").text(), "logo");
    for request in [
        "GET /logo HTTP/1.1\r\nhost: test\r\nif-none-match: \"a\"\r\n\r\n",
        "GET /.hidden HTTP/1.1\r\nhost: test\r\nif-none-match: \"a\"\r\n\r\n",
        "DELETE /logo.txt HTTP/1.1\r\nhost: test\r\nif-none-match: \"a\"\r\n\r\n",
    ] {
        client.send(request);
        let mut program = programs[0].accept();
        let head = program.until("\r\n\r\n");
        assert!(head.starts_with(&request[..10]), "{head}");
        assert!(head.contains("if-none-match: \"a\"\r\n"), "{head}");
        program.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn one_that_is_confined_reaches_the_sockets_below_its_supervisors_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("run/upstream/shop");
    fs::create_dir_all(&below).unwrap();
    let [inside, outside] = [below.join("0"), directory.path().join("other")];
    let [reached, denied] = [&inside, &outside].map(|path| UnixListener::bind(path).unwrap());
    let mut orders = Orders {
        program: "web_server",
        ..Orders::default()
    };
    orders.welcome.app = json!({ "forward": "shop", "queue_timeout": "50ms" });
    orders.welcome.rejoin = Some(RejoinOffer {
        path: format!("{}/run/rejoin.sock", directory.path().display()),
        secret: "secret".to_owned(),
        orphan_timeout_ms: 1000,
    });
    let mut front = Worker::with(orders);
    let address = |path: &std::path::Path| format!("unix:{}", path.display());
    learn(&mut front, 0, &[address(&inside)]);
    let mut client = get(&front);
    let (mut program, _) = reached.accept().unwrap();
    let mut head = [0; 16];
    program.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"GET /shoes HTTP/");
    program.write_all(HELLO.as_bytes()).unwrap();
    assert_eq!(client.response().text(), "hello");
    // Only a kernel whose Landlock knows of unix sockets denies the other one.
    learn(&mut front, 0, &[address(&outside)]);
    denied.set_nonblocking(true).unwrap();
    let mut client = get(&front);
    let status = front.health(|health| !health.status.is_empty()).status;
    let landlock = status
        .split("Landlock ")
        .nth(1)
        .and_then(|it| it.split(' ').next());
    if landlock
        .and_then(|it| it.parse::<u32>().ok())
        .is_some_and(|abi| abi >= 9)
    {
        assert_eq!(client.response().status, 502);
        assert!(denied.accept().is_err(), "it was reached");
    } else {
        eprintln!("SKIPPED: {status}");
    }
}

#[test]
fn another_protocol_is_spoken_only_where_the_client_has_asked_for_it() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    client.send("GET /chat HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    let mut program = programs[0].accept();
    let head = program.until("\r\n\r\n");
    assert!(
        head.contains("upgrade: echo\r\n") && head.contains("connection: upgrade\r\n"),
        "{head}"
    );
    program.send(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst",
    );
    let head = client.until("\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: echo\r\n"),
        "{head}"
    );
    client.until("first");
    client.send("there");
    program.until("there");
    program.send("and back");
    client.until("and back");
    drop(program);
    client.until_closed();
    for request in ["", "connection: upgrade\r\nupgrade: other\r\n"] {
        let mut client = Client::connect(front.address);
        client.send(format!("GET /chat HTTP/1.1\r\nhost: test\r\n{request}\r\n"));
        let mut program = programs[0].accept();
        program.until("\r\n\r\n");
        program.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
        );
        assert_eq!(client.response().status, 502, "{request:?}");
    }
}

#[test]
fn what_nobody_here_understands_is_not_sent_on() {
    let (front, programs) = before(json!({}), 0, 1);
    for (head, status) in [
        ("CONNECT shop:80 HTTP/1.1\r\nhost: shop:80\r\n\r\n", 404),
        (
            "GET / HTTP/1.1\r\nhost: test\r\nexpect: miracles\r\n\r\n",
            417,
        ),
        (
            "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            501,
        ),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
    ] {
        let mut client = Client::connect(front.address);
        client.send(head);
        assert_eq!(client.response().status, status, "{head}");
    }
    assert!(programs[0].accepts().is_none());
}

#[test]
fn a_length_beside_chunks_is_not_sent_on() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    let head =
        "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nshoes\r\n0\r\n\r\n"));
    let mut program = programs[0].accept();
    let head = program.until("\r\n\r\n");
    assert!(!head.contains("content-length"), "{head}");
    assert_eq!(program.until("0\r\n\r\n"), "5\r\nshoes\r\n0\r\n\r\n");
    program.send(HELLO);
    assert_eq!(client.response().status, 200);
}
