//! Programs that answer what nobody has asked for.

use serde_json::json;

use super::program::{HELLO, before, get};
use prefork_testkit::client::Client;

#[test]
fn what_comes_after_an_answer_is_no_answer_to_the_next_request() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = get(&front);
    let mut program = programs[0].accept();
    program.until("\r\n\r\n");
    let forged = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    program.send(format!("{HELLO}{forged}"));
    assert_eq!(client.response().text(), "hello");
    // Its connection is over with what it has said too much.
    programs[0].is_known_to_have_closed();
    client.ask("/next");
    let mut next = programs[0].accept();
    next.until("\r\n\r\n");
    next.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext");
    assert_eq!(client.response().text(), "next");
}

#[test]
fn an_answer_before_there_is_a_request_is_nobodys() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    client.ask("/first");
    let mut program = programs[0].accept();
    program.until("\r\n\r\n");
    program.send(HELLO);
    assert_eq!(client.response().text(), "hello");
    program.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged");
    programs[0].is_known_to_have_closed();
    client.ask("/second");
    let mut next = programs[0].accept();
    next.until("\r\n\r\n");
    next.send(HELLO);
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn interim_responses_are_not_the_answer_and_do_not_reach_the_client() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = get(&front);
    let mut program = programs[0].accept();
    program.until("\r\n\r\n");
    program.send("HTTP/1.1 100 Continue\r\n\r\n");
    program.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
    program.send("HTTP/1.1 102 Processing\r\n\r\n");
    program.send(HELLO);
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "hello"));
    assert_eq!(response.header("link"), None);
    // The connection is as good as any other.
    client.ask("/next");
    program.until("\r\n\r\n");
    program.send(HELLO);
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn interim_responses_without_end_are_a_bad_response() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = get(&front);
    let mut program = programs[0].accept();
    program.until("\r\n\r\n");
    // More than is read: whoever sends it learns that the front has closed.
    let endless = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(200_000);
    let sending = program.sends_beside(endless);
    assert_eq!(client.response().status, 502);
    sending.join().expect("the front closes the connection");
}
