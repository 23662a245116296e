//! What a request costs at which the program fails.

use nix::sys::signal::Signal;
use serde_json::json;

use super::program::{HELLO, before, get, learn, post};
use prefork_testkit::client::Client;

#[test]
fn a_request_that_is_safe_goes_to_another_worker_once() {
    let (front, programs) = before(json!({}), 0, 3);
    let mut client = get(&front);
    let accepted = || programs.iter().find_map(|program| program.accepts());
    let next = || {
        let deadline = std::time::Instant::now() + prefork_testkit::supervisor::DEADLINE;
        loop {
            if let Some(mut program) = accepted() {
                program.until("\r\n\r\n");
                return program;
            }
            assert!(std::time::Instant::now() < deadline, "nobody is asked");
        }
    };
    drop(next());
    next().send(HELLO);
    assert_eq!(client.response().text(), "hello");
    let mut client = get(&front);
    drop(next());
    drop(next());
    let refused = client.response();
    assert_eq!(refused.status, 502);
    assert!(accepted().is_none(), "a third one was asked");
}

#[test]
fn a_request_that_is_not_safe_is_sent_once_and_its_failure_has_a_name() {
    let (front, programs) = before(json!({}), 0, 2);
    let mut client = post(&front);
    let mut program = programs
        .iter()
        .cycle()
        .find_map(|program| program.accepts())
        .unwrap();
    let head = program.until("\r\n\r\nsize");
    drop(program);
    let response = client.response();
    assert_eq!(response.status, 502);
    let id = response.header("x-request-id").unwrap();
    assert!(response.text().contains(id), "{}", response.text());
    assert!(head.contains(&format!("x-request-id: {id}\r\n")), "{head}");
    assert!(programs.iter().all(|program| program.accepts().is_none()));
    // Its connection goes on.
    client.ask("/");
    let mut program = programs.iter().cycle().find_map(|it| it.accepts()).unwrap();
    program.until("\r\n\r\n");
    program.send(HELLO);
    assert_eq!(client.response().status, 200);
}

#[test]
fn one_that_has_begun_to_answer_is_not_asked_again() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = get(&front);
    let mut program = programs[0].accept();
    program.until("\r\n\r\n");
    program.send("HTTP/1.1 200");
    drop(program);
    assert_eq!(client.response().status, 502);
    assert!(programs[0].accepts().is_none());
}

#[test]
fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    let (front, programs) = before(json!({}), 0, 1);
    for (head, part) in [
        ("content-length: 10", "half"),
        ("transfer-encoding: chunked", "4\r\nhalf\r\n"),
    ] {
        let mut client = get(&front);
        let mut program = programs[0].accept();
        program.until("\r\n\r\n");
        program.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{part}"));
        client.until("half");
        drop(program);
        let rest = String::from_utf8(client.rest()).unwrap();
        assert!(!rest.contains("0\r\n"), "{rest:?}");
    }
}

#[test]
fn what_makes_no_sense_is_answered_for() {
    let (front, programs) = before(json!({}), 0, 1);
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(1 << 20));
    for nonsense in [
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ssh\r\n\r\n",
        &endless,
    ] {
        let mut client = get(&front);
        let mut program = programs[0].accept();
        program.until("\r\n\r\n");
        program.try_send(nonsense);
        let response = client.response();
        assert_eq!(
            response.status,
            502,
            "{:?}",
            &nonsense[..30.min(nonsense.len())]
        );
    }
}

#[test]
fn one_that_says_nothing_is_given_up() {
    let (front, programs) = before(json!({ "upstream_timeout": "50ms" }), 0, 1);
    for mut client in [get(&front), post(&front)] {
        let mut program = programs[0].accept();
        program.until("\r\n\r\n");
        assert_eq!(client.response().status, 504);
        program.rest();
    }
}

#[test]
fn one_that_cannot_be_reached_has_its_requests_go_to_others() {
    let (mut front, programs) = before(json!({ "queue_timeout": "100ms" }), 0, 1);
    let gone = "unix:/nowhere/at/all".to_owned();
    learn(&mut front, 0, &[gone.clone(), programs[0].address()]);
    for _ in 0..4 {
        let mut client = post(&front);
        let mut program = programs[0].accept();
        program.until("\r\n\r\nsize");
        program.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        assert_eq!(client.response().status, 200);
    }
    learn(&mut front, 0, &[gone]);
    assert_eq!(post(&front).response().status, 502);
}

#[test]
fn a_connection_that_the_program_has_closed_is_not_used_again() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    let ask = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nsize";
    client.send(ask);
    let mut first = programs[0].accept();
    first.until("size");
    first.send(HELLO);
    client.response();
    client.send(ask);
    first.until("size");
    first.send(HELLO);
    client.response();
    assert!(
        programs[0].accepts().is_none(),
        "the first one was to be used"
    );
    drop(first);
    programs[0].is_known_to_have_closed();
    client.send(ask);
    let mut second = programs[0].accept();
    second.until("size");
    second.send(HELLO);
    assert_eq!(client.response().status, 200);
}

#[test]
fn nor_is_one_that_it_closes_at_the_very_moment() {
    let (front, programs) = before(json!({}), 0, 1);
    let mut client = Client::connect(front.address);
    let ask = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nsize";
    for _ in 0..20 {
        client.send(ask);
        let mut program = programs[0].accept();
        program.until("size");
        program.send(HELLO);
        client.response();
        // The front finds both when it runs again: a request, and a connection closed.
        front.process.signal(Signal::SIGSTOP);
        front.process.until_stopped();
        client.send(ask);
        drop(program);
        programs[0].is_known_to_have_closed();
        front.process.signal(Signal::SIGCONT);
        let mut program = programs[0].accept();
        program.until("size");
        program.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        assert_eq!(client.response().status, 200);
    }
}
