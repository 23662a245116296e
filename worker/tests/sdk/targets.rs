//! What a request over HTTP/2 may name: hosts in any form that means the same, and
//! targets that its method may have.

use prefork_testkit::http2_frames::{Event, Frames};
use prefork_testkit::supervisor::Worker;

/// The status that a request comes to, on a connection that lives on.
fn status(frames: &mut Frames, fields: &[(&str, &str)]) -> u16 {
    let stream = frames.ask(fields, true);
    match frames.next_of(stream) {
        Event::Status(status) => status,
        Event::Reset => 0,
        other => panic!("{other:?} for {fields:?}"),
    }
}

#[test]
fn a_host_may_say_the_same_as_the_authority_in_another_way() {
    let worker = Worker::ready();
    let mut frames = Frames::connect(worker.address);
    for (scheme, authority, host, wanted) in [
        ("http", "shop.example", "shop.example", 200),
        ("http", "Shop.Example", "shop.example", 200),
        ("http", "shop.example", "SHOP.EXAMPLE:80", 200),
        ("http", "shop.example:80", "shop.example", 200),
        ("https", "shop.example", "shop.example:443", 200),
        ("https", "[::1]:443", "[::1]", 200),
        ("http", "shop.example:", "shop.example", 200),
        ("http", "shop.example", "other.example", 400),
        ("http", "shop.example", "shop.example:81", 400),
        ("https", "shop.example", "shop.example:80", 400),
        ("http", "shop.example", "", 400),
        ("http", "shop.example", "shop.example/", 400),
    ] {
        let fields = [
            (":method", "GET"),
            (":scheme", scheme),
            (":path", "/host"),
            (":authority", authority),
            ("host", host),
        ];
        let found = status(&mut frames, &fields);
        assert_eq!(found, wanted, "{scheme} {authority} {host}");
    }
}

#[test]
fn the_application_finds_one_name_in_both() {
    let worker = Worker::ready();
    let mut frames = Frames::connect(worker.address);
    let stream = frames.ask(
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/host"),
            (":authority", "shop.example"),
            ("host", "SHOP.example:80"),
        ],
        true,
    );
    assert_eq!(frames.next_of(stream), Event::Status(200));
    let body = b"Some(\"shop.example\")".to_vec();
    assert_eq!(frames.next_of(stream), Event::Data(body));
}

#[test]
fn a_target_is_of_a_form_that_its_method_may_have() {
    let worker = Worker::ready();
    let mut frames = Frames::connect(worker.address);
    for (method, path, wanted) in [
        ("OPTIONS", "*", 404),
        ("GET", "*", 400),
        ("POST", "*", 400),
        ("GET", "/host", 200),
    ] {
        let fields = [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "a"),
        ];
        assert_eq!(status(&mut frames, &fields), wanted, "{method} {path}");
    }
    for (authority, wanted) in [
        ("b:443", 404),
        ("[::1]:443", 404),
        ("b", 400),
        ("b:0", 400),
        ("b:65536", 400),
    ] {
        let fields = [(":method", "CONNECT"), (":authority", authority)];
        assert_eq!(status(&mut frames, &fields), wanted, "{authority}");
    }
}
