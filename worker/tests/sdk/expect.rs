//! Clients of HTTP/2 that keep a body back until they are told to go on
//! (RFC 9110, 10.1.1).

use prefork_proto::message::HttpLimits;

use prefork_testkit::http2_frames::{Event, Frames};
use prefork_testkit::raw_http2::{Raw, Said};
use prefork_testkit::supervisor::{Orders, Worker};

/// The head of a POST whose body waits.
fn head(path: &str) -> [(&str, &str); 5] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "test"),
        (":path", path),
        ("expect", "100-Continue"),
    ]
}

/// All that happens on a stream to its end.
fn events(frames: &mut Frames, stream: u32) -> Vec<Event> {
    let mut events = Vec::new();
    while !matches!(events.last(), Some(Event::End | Event::Reset)) {
        events.push(frames.next_of(stream));
    }
    events
}

#[test]
fn a_client_that_waits_is_told_to_go_on_where_its_body_is_wanted() {
    let worker = Worker::ready();
    let mut frames = Frames::connect(worker.address);
    let streams = [(); 20].map(|()| frames.ask(&head("/echo"), false));
    for stream in streams {
        assert_eq!(frames.next_of(stream), Event::Status(100));
    }
    for stream in streams {
        frames.data(stream, &stream.to_be_bytes(), true);
        let echo = Event::Data(stream.to_be_bytes().to_vec());
        let expected = [Event::Status(200), echo, Event::End];
        assert_eq!(events(&mut frames, stream), expected);
    }
}

#[test]
fn a_client_that_waits_is_answered_at_once_where_nobody_reads_its_body() {
    let mut orders = Orders::default();
    orders.welcome.http = Box::new(HttpLimits {
        max_body_size: Some(1000),
        ..HttpLimits::default()
    });
    let worker = Worker::with(orders);
    for (path, more, status) in [
        ("/", None, 200),
        ("/refuse", None, 413),
        ("/missing", None, 404),
        ("/panic", None, 500),
        ("/echo", Some(("content-length", "1001")), 413),
    ] {
        let mut frames = Frames::connect(worker.address);
        let fields = [&head(path)[..], more.as_slice()].concat();
        let stream = frames.ask(&fields, false);
        let events = events(&mut frames, stream);
        assert_eq!(events[0], Event::Status(status), "{path}: {events:?}");
    }
}

#[test]
fn who_has_begun_to_send_is_not_told_to_go_on() {
    let worker = Worker::ready();
    let mut frames = Frames::connect(worker.address);
    let stream = frames.ask_with(&head("/echo"), b"body");
    frames.data(stream, b"", true);
    let expected = [
        Event::Status(200),
        Event::Data(b"body".to_vec()),
        Event::End,
    ];
    assert_eq!(events(&mut frames, stream), expected);
}

#[test]
fn a_client_is_told_to_go_on_amid_a_response_that_it_does_not_take() {
    let mut worker = Worker::ready();
    let mut raw = Raw::connect(worker.address, 1 << 30, 1 << 30);
    // It fills the socket, which hardly ends with a frame then.
    raw.ask(1, "/endless");
    worker.in_flight(1);
    let streams = [3, 5, 7];
    for stream in streams {
        raw.post_if_wanted(stream, "/echo");
    }
    for stream in streams {
        let told = raw.until(|said| match said {
            Said::Head(id, is_200, ends) if id != 1 => Some((id, is_200, ends)),
            _ => None,
        });
        assert_eq!(told, (stream, false, false));
    }
    for stream in streams {
        raw.data(stream, b"body", true);
        assert_eq!(raw.rest(stream, Vec::new()).unwrap(), b"body");
    }
}
