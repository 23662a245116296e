//! Bodies of HTTP/2 requests, each on a stream of its own: measured and waited
//! for as those of HTTP/1 are, and the other streams go on.

use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prefork_proto::message::HttpLimits;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use prefork_testkit::client::Client;
use prefork_testkit::http2::runtime;
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

/// A body whose length nobody is told.
struct Parts(mpsc::Receiver<Bytes>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.0.poll_recv(cx);
        part.map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

type Sender = hyper::client::conn::http2::SendRequest<Parts>;
type Answer = tokio::task::JoinHandle<hyper::Result<Response<hyper::body::Incoming>>>;

async fn connect(worker: &Worker) -> Sender {
    let stream = TcpStream::connect(worker.address).await.unwrap();
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Begins a POST; its body is what is sent.
fn post(sender: &Sender, path: &str) -> (mpsc::Sender<Bytes>, Answer) {
    let (body, parts) = mpsc::channel(1);
    let request = Request::post(format!("http://test{path}"))
        .version(Version::HTTP_2)
        // Nobody is to take it for what the library writes there.
        .header("prefork-stream", "1")
        .body(Parts(parts))
        .unwrap();
    let mut sender = sender.clone();
    let answer = tokio::spawn(async move { sender.send_request(request).await });
    (body, answer)
}

async fn send(body: &mpsc::Sender<Bytes>, bytes: usize) -> bool {
    body.send(vec![b'x'; bytes].into()).await.is_ok()
}

async fn end(answer: Answer) -> (u16, hyper::Result<Bytes>) {
    let answer = timeout(DEADLINE, answer).await.expect("no answer");
    let answer = answer.unwrap().unwrap();
    let status = answer.status().as_u16();
    let body = timeout(DEADLINE, answer.into_body().collect()).await;
    (status, body.expect("no end").map(|body| body.to_bytes()))
}

/// A whole request with a body of so many parts of so many bytes.
async fn whole(sender: &Sender, parts: usize, bytes: usize) -> (u16, usize) {
    let (body, answer) = post(sender, "/echo");
    for _ in 0..parts {
        if !send(&body, bytes).await {
            break;
        }
    }
    drop(body);
    let (status, echo) = end(answer).await;
    (status, echo.unwrap().len())
}

fn limited(http: HttpLimits) -> Worker {
    let mut orders = Orders::default();
    orders.welcome.http = Box::new(http);
    Worker::with(orders)
}

#[test]
fn a_body_that_comes_to_be_too_large_is_413_and_the_other_streams_go_on() {
    let mut worker = limited(HttpLimits {
        max_body_size: Some(10_000),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let sender = connect(&worker).await;
        let (other, others) = post(&sender, "/echo");
        assert!(send(&other, 4000).await);
        assert_eq!(whole(&sender, 10, 1000).await, (200, 10_000));
        assert_eq!(whole(&sender, 1, 10_001).await, (413, 0));
        assert_eq!(whole(&sender, 1000, 1000).await, (413, 0));
        assert_eq!(whole(&sender, 1, 0).await, (200, 0));
        assert!(send(&other, 6000).await);
        drop(other);
        let (status, echo) = end(others).await;
        assert_eq!((status, echo.unwrap().len()), (200, 10_000));
    });
    worker.health(|health| {
        health.in_flight == 0 && health.http.as_ref().unwrap().requests == [0, 3, 0, 2, 0]
    });
}

#[test]
fn many_uploads_at_a_time_are_told_apart() {
    let worker = limited(HttpLimits {
        max_body_size: Some(100_000),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let sender = connect(&worker).await;
        let asked: Vec<_> = (0..100)
            .map(|number| {
                let sender = sender.clone();
                let parts = if number % 3 == 0 { 11 } else { 10 };
                tokio::spawn(async move { whole(&sender, parts, 10_000).await })
            })
            .collect();
        for (number, answer) in asked.into_iter().enumerate() {
            let expected = if number % 3 == 0 {
                (413, 0)
            } else {
                (200, 100_000)
            };
            assert_eq!(answer.await.unwrap(), expected, "{number}");
        }
    });
}

#[test]
fn a_body_of_any_size_is_taken_where_none_is_too_large() {
    let worker = limited(HttpLimits {
        max_body_size: Some(0),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let sender = connect(&worker).await;
        assert_eq!(whole(&sender, 50, 1 << 20).await, (200, 50 << 20));
    });
}

#[test]
fn a_response_that_has_begun_breaks_off_where_the_body_is_too_large() {
    let mut worker = limited(HttpLimits {
        max_body_size: Some(10_000),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let sender = connect(&worker).await;
        for (bytes, sound) in [(10_000, true), (10_001, false)] {
            let (body, answer) = post(&sender, "/mirror");
            let answer = timeout(DEADLINE, answer).await.unwrap().unwrap().unwrap();
            assert_eq!(answer.status(), 200);
            for bytes in [5000, bytes - 5000] {
                assert!(send(&body, bytes).await);
            }
            drop(body);
            let echo = timeout(DEADLINE, answer.into_body().collect()).await;
            let echo = echo.expect("no end").map(|echo| echo.to_bytes().len());
            assert_eq!(echo.as_ref().ok(), sound.then_some(&10_000), "{echo:?}");
        }
        assert_eq!(whole(&sender, 1, 10).await, (200, 10));
    });
    worker.in_flight(0);
}

#[test]
fn what_reads_on_without_its_request_is_held_to_the_limit_and_what_was_on_its_way() {
    let mut worker = limited(HttpLimits {
        max_body_size: Some(10_000),
        http2_stream_window: Some(100_000),
        ..HttpLimits::default()
    });
    let stdout = worker.process.0.stdout.take().unwrap();
    let mut lines = BufReader::new(stdout).lines();
    runtime().block_on(async {
        let sender = connect(&worker).await;
        let (body, answer) = post(&sender, "/detached");
        assert!(send(&body, 1000).await);
        // A request whose body is too large before it has begun is never begun.
        assert_eq!(lines.next().unwrap().unwrap(), "reads");
        let (status, _) = async {
            while !answer.is_finished() && send(&body, 1000).await {}
            end(answer).await
        }
        .await;
        assert_eq!(status, 413);
        // hyper's client goes on with it, as a hostile one would.
        let begun = Instant::now();
        while send(&body, 1000).await {
            assert!(begun.elapsed() < DEADLINE, "it is never ended");
        }
        assert_eq!(whole(&sender, 1, 10).await, (200, 10));
    });
    let said = lines.next().unwrap().unwrap();
    let read = said.strip_suffix(" bytes to an error");
    let read: u64 = read
        .and_then(|it| it.strip_prefix("read "))
        .expect(&said)
        .parse()
        .unwrap();
    // A window that had come before it was answered, and one that was on its way.
    assert!((10_000..=200_000).contains(&read), "{said}");
}

#[test]
fn a_body_that_does_not_go_on_is_408_and_the_other_streams_go_on() {
    let mut worker = limited(HttpLimits {
        body_timeout_ms: Some(400),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let sender = connect(&worker).await;
        let begun = Instant::now();
        let (_silent, none) = post(&sender, "/echo");
        let (body, some) = post(&sender, "/echo");
        assert!(send(&body, 10).await);
        // One that is there as a whole is not late, however long its answer takes.
        let (ended, slow) = post(&sender, "/slow?1500");
        assert!(send(&ended, 10).await);
        drop(ended);
        for late in [none, some] {
            assert_eq!(end(late).await.0, 408);
            assert!(begun.elapsed() >= Duration::from_millis(400));
        }
        assert_eq!(end(slow).await.0, 200);
        assert_eq!(whole(&sender, 2, 10).await, (200, 20));
    });
    worker.health(|health| {
        health.in_flight == 0 && health.http.as_ref().unwrap().requests == [0, 2, 0, 2, 0]
    });
}

#[test]
fn a_body_that_other_streams_keep_busy_is_late_all_the_same() {
    let worker = limited(HttpLimits {
        body_timeout_ms: Some(600),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let sender = connect(&worker).await;
        let begun = Instant::now();
        let (silent, late) = post(&sender, "/echo");
        assert!(send(&silent, 10).await);
        let (busy, goes_on) = post(&sender, "/echo");
        let mut sent = 0;
        while !late.is_finished() {
            assert!(begun.elapsed() < DEADLINE, "it is waited for");
            assert!(send(&busy, 100).await);
            sent += 100;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(end(late).await.0, 408);
        drop(busy);
        let (status, echo) = end(goes_on).await;
        assert_eq!((status, echo.unwrap().len()), (200, sent));
    });
}

#[test]
fn the_time_for_an_answer_begins_when_the_body_is_there() {
    let worker = limited(HttpLimits {
        request_timeout_ms: Some(1000),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let sender = connect(&worker).await;
        let (body, answer) = post(&sender, "/echo");
        // Nothing else tells that it is the body which is waited for.
        for pause in [1800, 10] {
            assert!(send(&body, 10).await);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        drop(body);
        assert_eq!(end(answer).await.0, 200);
        let (body, never) = post(&sender, "/never");
        drop(body);
        assert_eq!(end(never).await.0, 503);
    });
}

#[test]
fn a_client_of_http_2_that_does_not_finish_a_head_is_let_go() {
    let mut worker = limited(HttpLimits {
        header_timeout_ms: Some(400),
        ..HttpLimits::default()
    });
    let mut client = Client::connect(worker.address);
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    // 16,000 bytes of headers, of which one comes now and then.
    client.send([0, 62, 128, 1, 5, 0, 0, 0, 1]);
    let begun = Instant::now();
    // A report may still be of the time before.
    worker.connections(1);
    worker.health(|health| {
        assert!(begun.elapsed() < DEADLINE, "it is kept");
        if health.connections > 0 {
            client.try_send(b"\0");
        }
        health.connections == 0
    });
    assert!(begun.elapsed() >= Duration::from_millis(400));
}

#[test]
fn a_long_head_and_a_mark_of_the_clients_own_change_nothing() {
    let worker = limited(HttpLimits {
        max_header_size: Some(200_000),
        max_headers: Some(1),
        max_body_size: Some(1000),
        ..HttpLimits::default()
    });
    runtime().block_on(async {
        let sender = connect(&worker).await;
        // `CONTINUATION`s, and one frame that is nearly full.
        for length in [10, 16_300, 50_000, 100_000] {
            for (bytes, status) in [(1000, 200), (1001, 413)] {
                let (body, parts) = mpsc::channel(1);
                let request = Request::post("http://test/echo")
                    .version(Version::HTTP_2)
                    .header("x", "y".repeat(length))
                    .header("prefork-stream", "0")
                    .body(Parts(parts))
                    .unwrap();
                let mut sender = sender.clone();
                let answer = tokio::spawn(async move { sender.send_request(request).await });
                send(&body, bytes).await;
                drop(body);
                assert_eq!(end(answer).await.0, status, "{length}");
            }
        }
    });
}
