//! Streams of HTTP/2 that stand, drip, or come by the hundred: each is judged by
//! itself, and none by what else is on its connection.

use std::time::{Duration, Instant};

use prefork_proto::message::HttpLimits;

use prefork_testkit::client::Client;
use prefork_testkit::raw_http2::{Raw, Said};
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

const WIDE: u32 = 1 << 30;

fn limited(http: HttpLimits) -> Worker {
    let mut orders = Orders::default();
    orders.welcome.http = Box::new(http);
    Worker::with(orders)
}

/// A worker with this time for everything that a body does.
fn hurried() -> Worker {
    limited(HttpLimits {
        body_timeout_ms: Some(400),
        write_timeout_ms: Some(400),
        ..HttpLimits::default()
    })
}

/// Does this now and then, until the stream is reset. What comes besides is taken.
fn until_reset(raw: &mut Raw, stream: u32, mut now_and_then: impl FnMut(&mut Raw)) {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < DEADLINE, "it stands for ever");
        if !raw.hears_within(Duration::from_millis(50)) {
            now_and_then(raw);
            continue;
        }
        match raw.hear() {
            Said::Reset(id) => {
                assert_eq!(id, stream);
                return;
            }
            Said::Closed => panic!("the connection has ended"),
            _ => {}
        }
    }
}

fn is_answered(raw: &mut Raw, stream: u32) {
    raw.ask(stream, "/");
    assert_eq!(raw.rest(stream, Vec::new()).unwrap(), b"ok\n");
}

#[test]
fn a_stream_that_takes_nothing_is_reset_whatever_else_is_on_its_connection() {
    let mut worker = hurried();
    for path in ["/endless", "/large"] {
        let mut raw = Raw::connect(worker.address, 1000, WIDE);
        raw.ask(1, path);
        let mut next = 3;
        until_reset(&mut raw, 1, |raw| {
            raw.ping();
            raw.settings();
            raw.ask(next, "/");
            next += 2;
        });
        is_answered(&mut raw, next);
        worker.in_flight(0);
    }
}

#[test]
fn a_stream_that_takes_a_byte_now_and_then_is_reset_as_one_that_stands() {
    let mut worker = hurried();
    let mut raw = Raw::connect(worker.address, 1000, WIDE);
    raw.ask(1, "/endless");
    until_reset(&mut raw, 1, |raw| {
        raw.ping();
        raw.want(1, 1);
    });
    is_answered(&mut raw, 3);
    worker.in_flight(0);
}

#[test]
fn a_stream_that_takes_little_goes_on_where_that_is_enough() {
    let worker = limited(HttpLimits {
        write_timeout_ms: Some(400),
        min_rate: Some(0),
        ..HttpLimits::default()
    });
    let mut raw = Raw::connect(worker.address, 1000, WIDE);
    raw.ask(1, "/endless");
    let begun = Instant::now();
    let mut taken = 0;
    while begun.elapsed() < Duration::from_millis(1500) {
        raw.want(1, 1);
        taken += raw.until(|said| match said {
            Said::Data(1, bytes, false) => Some(bytes.len()),
            Said::Reset(1) => panic!("it is reset"),
            _ => None,
        });
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(taken > 1000, "{taken}");
}

#[test]
fn a_body_that_comes_by_a_byte_now_and_then_is_408() {
    let worker = hurried();
    let mut raw = Raw::connect(worker.address, WIDE, WIDE);
    raw.post(1, "/echo");
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < DEADLINE, "it drips for ever");
        if !raw.hears_within(Duration::from_millis(50)) {
            raw.data(1, b"x", false);
        } else if let Said::Head(1, well, _) = raw.hear() {
            assert!(!well);
            break;
        }
    }
    is_answered(&mut raw, 3);
    for head in ["content-length: 8000", "transfer-encoding: chunked"] {
        let mut client = Client::connect(worker.address);
        client.send(format!("POST /echo HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n"));
        let begun = Instant::now();
        while !client.hears_within(Duration::from_millis(50)) {
            assert!(begun.elapsed() < DEADLINE, "it drips for ever");
            let chunk = if head.ends_with("chunked") {
                "1\r\nx\r\n"
            } else {
                "x"
            };
            client.send(chunk);
        }
        assert_eq!(client.response().status, 408, "{head}");
    }
}

#[test]
fn a_body_that_comes_as_fast_as_it_has_to_is_taken_however_long_it_lasts() {
    let worker = hurried();
    let mut raw = Raw::connect(worker.address, WIDE, WIDE);
    raw.post(1, "/echo");
    for _ in 0..30 {
        raw.data(1, &[b'x'; 200], false);
        std::thread::sleep(Duration::from_millis(50));
    }
    raw.data(1, b"", true);
    assert_eq!(raw.rest(1, Vec::new()).unwrap().len(), 6000);
}

#[test]
fn requests_with_bodies_are_served_however_many_come_at_once() {
    let worker = limited(HttpLimits {
        http2_max_streams: Some(1000),
        ..HttpLimits::default()
    });
    let mut raw = Raw::connect(worker.address, WIDE, WIDE);
    raw.post_at_once(600, "/echo");
    for stream in (1..1200).step_by(2) {
        raw.data(stream, b"hello", true);
    }
    let (mut well, mut heads) = (0, 0);
    while heads < 600 {
        raw.until(|said| match said {
            Said::Head(_, is_200, _) => {
                heads += 1;
                well += u32::from(is_200);
                Some(())
            }
            _ => None,
        });
    }
    assert_eq!(well, 600);
}

#[test]
fn what_asks_for_nothing_keeps_no_connection_open() {
    let mut worker = limited(HttpLimits {
        idle_timeout_ms: Some(400),
        ..HttpLimits::default()
    });
    let mut raw = Raw::connect(worker.address, WIDE, WIDE);
    is_answered(&mut raw, 1);
    let begun = Instant::now();
    let mut open = true;
    while open {
        assert!(begun.elapsed() < DEADLINE, "it is kept");
        raw.ping();
        raw.settings();
        raw.want(0, 1);
        // All that they are answered with, or the end would come after ever more.
        while open && raw.hears_within(Duration::from_millis(50)) {
            open = raw.hear() != Said::Closed;
        }
    }
    assert!(begun.elapsed() >= Duration::from_millis(300));
    worker.connections(0);
}

#[test]
fn a_connection_of_http_2_in_use_outlives_the_time_for_idle_ones() {
    let worker = limited(HttpLimits {
        idle_timeout_ms: Some(600),
        ..HttpLimits::default()
    });
    let mut raw = Raw::connect(worker.address, WIDE, WIDE);
    for stream in (1..61).step_by(2) {
        is_answered(&mut raw, stream);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_body_that_the_application_does_not_take_is_no_fault_of_its_clients() {
    let mut worker = limited(HttpLimits {
        body_timeout_ms: Some(1000),
        request_timeout_ms: Some(2000),
        ..HttpLimits::default()
    });
    // More than is read before the application asks for it.
    let body = "x".repeat(4 << 20);
    for head in ["content-length: 8000000", "transfer-encoding: chunked"] {
        let mut client = Client::connect(worker.address);
        client.send(format!("POST /never HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n"));
        worker.in_flight(1);
        let begun = Instant::now();
        let sender = client.sends_beside(format!("{:x}\r\n{body}", body.len()));
        assert_eq!(client.response().status, 503, "{head}");
        assert!(begun.elapsed() >= Duration::from_millis(1900));
        drop(client);
        sender.join().unwrap();
        worker.in_flight(0);
    }
}
