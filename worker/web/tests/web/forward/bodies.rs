//! Bodies on their way through.

use serde_json::json;

use super::program::{HELLO, before, get};
use prefork_testkit::client::Client;

#[test]
fn an_answer_comes_part_by_part_as_the_program_gives_it() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    client.send("GET / HTTP/1.1\r\nhost: test\r\nte: trailers\r\nconnection: te\r\n\r\n");
    let mut program = programs[0].accept();
    let head = program.until("\r\n\r\n");
    assert!(head.contains("te: trailers\r\n"), "{head}");
    program.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n");
    for part in ["first", "other"] {
        program.send(format!("5\r\n{part}\r\n"));
        client.until(&format!("5\r\n{part}\r\n"));
    }
    program.send("0\r\nx-sum: 7\r\n\r\n");
    client.until("0\r\nx-sum: 7\r\n\r\n");
}

#[test]
fn a_request_comes_part_by_part_as_the_client_gives_it() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send("5\r\nfirst\r\n");
    let mut program = programs[0].accept();
    assert!(
        program
            .until("\r\n\r\n")
            .contains("transfer-encoding: chunked\r\n")
    );
    program.until("first");
    client.send("5\r\nother\r\n0\r\n\r\n");
    program.until("other\r\n0\r\n\r\n");
    program.send(HELLO);
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn a_client_that_waits_for_leave_to_send_gets_it() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    client.until("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("size");
    let mut program = programs[0].accept();
    let head = program.until("\r\n\r\nsize");
    assert!(
        head.contains("content-length: 4\r\n") && !head.contains("expect"),
        "{head}"
    );
    program.send(HELLO);
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn a_program_that_reads_nothing_stops_the_client() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    const LENGTH: usize = 12 << 20;
    client.send(format!(
        "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {LENGTH}\r\n\r\n"
    ));
    let sending = client.sends_beside("x".repeat(LENGTH));
    let mut program = programs[0].accept();
    program.until("\r\n\r\n");
    let held = resident(&front);
    // It goes on when the program does.
    let mut read = 0;
    while read < LENGTH {
        read += program.take(LENGTH - read);
        assert!(resident(&front) < held + (6 << 20), "the body is held");
    }
    sending.join().unwrap();
    program.send(HELLO);
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn a_client_that_reads_nothing_stops_the_program() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = get(&front);
    const LENGTH: usize = 12 << 20;
    let mut program = programs[0].accept();
    program.until("\r\n\r\n");
    let held = resident(&front);
    program.send(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n"
    ));
    let sending = program.sends_beside("x".repeat(LENGTH));
    client.until("\r\n\r\n");
    let mut read = 0;
    while read < LENGTH {
        read += client.take(LENGTH - read);
        assert!(resident(&front) < held + (6 << 20), "the body is held");
    }
    sending.join().unwrap();
}

#[test]
fn a_client_that_goes_ends_its_request_at_the_program() {
    let (front, programs) = before(json!({}), 0, 1);
    for begun in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        let client = get(&front);
        let mut program = programs[0].accept();
        program.until("\r\n\r\n");
        program.send(begun);
        drop(client);
        assert_eq!(program.rest(), b"", "{begun:?}");
    }
}

#[test]
fn a_request_that_breaks_off_ends_at_the_program_as_well() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf");
    let mut program = programs[0].accept();
    program.until("half");
    drop(client);
    assert_eq!(program.rest(), b"");
}

#[test]
fn an_answer_without_content_leaves_its_connection_for_the_next() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    client.send("HEAD / HTTP/1.1\r\nhost: test\r\n\r\n");
    let mut program = programs[0].accept();
    program.until("\r\n\r\n");
    program.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    assert!(client.until("\r\n\r\n").contains("content-length: 5\r\n"));
    client.ask("/nothing");
    program.until("\r\n\r\n");
    program.send("HTTP/1.1 204 No Content\r\n\r\n");
    client.until("\r\n\r\n");
    client.ask("/some");
    program.until("\r\n\r\n");
    program.send(HELLO);
    assert_eq!(client.response().text(), "hello");
    assert!(programs[0].accepts().is_none());
}

/// The resident memory of a front, in bytes.
fn resident(front: &prefork_testkit::supervisor::Worker) -> usize {
    let path = format!("/proc/{}/statm", front.process.pid());
    let statm = std::fs::read_to_string(path).unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
