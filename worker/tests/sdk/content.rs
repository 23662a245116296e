//! Responses that have no content: what a client gets, over either protocol,
//! whatever the application gives.

use hyper::{Method, Response};
use nix::sys::signal::Signal;

use prefork_testkit::client::Client;
use prefork_testkit::http2::{ask, http2, runtime};
use prefork_testkit::supervisor::Worker;

fn length<B>(response: &Response<B>) -> Option<&str> {
    let length = response.headers().get("content-length")?;
    Some(length.to_str().unwrap())
}

/// Asks over HTTP/1, and then for something else on the same connection: the head
/// of the first answer, which is all that there is before the second one's.
fn head_over_http1(worker: &Worker, method: &str, target: &str) -> String {
    let mut client = Client::connect(worker.address);
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nhost: test\r\n\r\n\
         GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
    ));
    let all = String::from_utf8(client.rest()).unwrap();
    let (head, rest) = all.split_once("\r\n\r\n").unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {all}");
    assert!(rest.ends_with("ok\n"), "{target}: {all}");
    head.to_owned()
}

/// What a worker has written to stderr.
fn said(mut worker: Worker) -> String {
    worker.process.signal(Signal::SIGKILL);
    worker.process.exit();
    worker.process.stderr()
}

#[test]
fn an_answer_to_head_has_the_length_of_what_a_get_would_get_and_no_content() {
    let worker = Worker::ready();
    runtime().block_on(async {
        let (mut sender, _closed) = http2(&worker).await;
        for (target, status, told) in [
            ("/", 200, Some("3")),
            ("/status?404", 404, Some("9")),
            ("/stream?0", 200, None),
            ("/status?204", 204, None),
            ("/endless", 200, None),
        ] {
            let answer = ask(&mut sender, Method::HEAD, target).await;
            assert_eq!(answer.status(), status, "{target}");
            assert_eq!(length(&answer), told, "{target}");
            assert_eq!(answer.body().len(), 0, "{target}");
            let head = head_over_http1(&worker, "HEAD", target);
            let line = told.map(|told| format!("content-length: {told}"));
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert_eq!(head.contains("content-length"), told.is_some(), "{head}");
            assert!(line.is_none_or(|line| head.contains(&line)), "{head}");
        }
        // The connection is as good as before.
        assert_eq!(ask(&mut sender, Method::GET, "/").await.body(), "ok\n");
    });
}

#[test]
fn what_an_application_gives_with_a_status_that_has_no_content_is_dropped_and_said_once() {
    let worker = Worker::ready();
    runtime().block_on(async {
        let (mut sender, _closed) = http2(&worker).await;
        for (status, over_2, over_1) in [
            (204, None, None),
            (205, None, Some("content-length: 0")),
            (304, Some("9"), None),
        ] {
            let target = format!("/status?{status}");
            let answer = ask(&mut sender, Method::GET, &target).await;
            assert_eq!(answer.status(), status);
            assert_eq!(length(&answer), over_2, "{status}");
            assert_eq!(answer.body().len(), 0, "{status}");
            let head = head_over_http1(&worker, "GET", &target);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert_eq!(
                head.lines().find(|line| line.starts_with("content-length")),
                over_1
            );
        }
    });
    let said = said(worker);
    assert_eq!(said.matches("which has none").count(), 1, "{said}");
}

#[test]
fn a_status_that_is_no_answer_becomes_500() {
    let worker = Worker::ready();
    runtime().block_on(async {
        let (mut sender, _closed) = http2(&worker).await;
        for status in [100, 101, 103, 150] {
            let target = format!("/status?{status}");
            let answer = ask(&mut sender, Method::GET, &target).await;
            assert_eq!(answer.status(), 500, "{status}");
            let head = head_over_http1(&worker, "GET", &target);
            assert!(head.starts_with("HTTP/1.1 500 "), "{status}: {head}");
        }
    });
    let said = said(worker);
    assert_eq!(said.matches("is no answer").count(), 1, "{said}");
}
