use super::*;

fn client() -> Client {
    Client {
        address: Some([192, 0, 2, 1].into()),
        is_secure: true,
        certificate: None,
        id: HeaderValue::from_static("0123"),
    }
}

const PLAIN: Manner = Manner {
    closes: false,
    upgrades: false,
};

fn head(headers: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder()
        .uri("/shoes?size=42")
        .header(HOST, "shop");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn forwarded(headers: &[(&str, &str)], manner: Manner) -> HeaderMap {
    let request = request(&head(headers), &client(), manner);
    assert_eq!(request.uri(), "/shoes?size=42");
    request.headers().clone()
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn who_the_client_is_is_said_anew_whatever_it_says_itself() {
    for (name, said) in [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop"),
        ("forwarded", "for=192.0.2.1;proto=https;host=\"shop\""),
        ("x-request-id", "0123"),
    ] {
        let headers = forwarded(&[(name, "spoofed"), (name, "twice")], PLAIN);
        assert_eq!(all(&headers, name), [said], "{name}");
    }
    for name in [
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-real-ip",
        "proxy",
        "x_forwarded_for",
        "x-forwarded_for",
        "x_real_ip",
        "x_request_id",
        "client-cert",
        "client_cert",
        "client-cert-chain",
        "x-client-cert-subject",
        "x_client_cert_sha256",
        "x-ssl-client-verify",
        "ssl-client-subject-dn",
    ] {
        let headers = forwarded(&[(name, "spoofed")], PLAIN);
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[test]
fn an_address_that_is_none_or_has_colons_is_written_as_the_rfc_says() {
    let mut who = client();
    let said = |who: &Client| {
        let request = request(&head(&[]), who, PLAIN);
        let forwarded = request.headers()[FORWARDED].to_str().unwrap().to_owned();
        (forwarded, all(request.headers(), "x-forwarded-for").len())
    };
    who.address = Some("2001:db8::1".parse().unwrap());
    let six = "for=\"[2001:db8::1]\";proto=https;host=\"shop\"".to_owned();
    assert_eq!(said(&who), (six, 1));
    who.address = None;
    who.is_secure = false;
    let none = "for=unknown;proto=http;host=\"shop\"".to_owned();
    assert_eq!(said(&who), (none, 0));
}

#[test]
fn what_is_for_one_connection_ends_here() {
    let headers = forwarded(
        &[
            ("connection", "keep-alive, X-Hop"),
            ("connection", "cookie"),
            ("x-hop", "1"),
            ("cookie", "a=b"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic Zm9v"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("trailer", "x-checksum"),
            ("accept", "*/*"),
        ],
        PLAIN,
    );
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "accept",
        "forwarded",
        "host",
        "trailer",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
    ];
    assert_eq!(names, expected);
}

#[test]
fn nothing_that_the_front_says_can_be_taken_away_by_naming_it() {
    let named = "host, x-forwarded-for, forwarded, via, x-request-id, te";
    let headers = forwarded(&[("connection", named), ("te", "trailers")], PLAIN);
    for name in [
        "host",
        "x-forwarded-for",
        "forwarded",
        "via",
        "x-request-id",
    ] {
        assert!(headers.contains_key(name), "{name}");
    }
    assert_eq!(all(&headers, "te"), ["trailers"]);
    assert_eq!(all(&headers, "connection"), ["te"]);
}

#[test]
fn who_has_passed_a_message_on_is_added_to_those_before() {
    let headers = forwarded(&[("via", "1.0 fred")], PLAIN);
    assert_eq!(all(&headers, "via"), ["1.0 fred", "1.1 prefork"]);
    let mut second = head(&[]);
    second.version = Version::HTTP_2;
    let second = request(&second, &client(), PLAIN);
    assert_eq!(all(second.headers(), "via"), ["2.0 prefork"]);
    assert_eq!(second.version(), Version::HTTP_11);
}

#[test]
fn the_host_is_kept_and_comes_from_the_target_where_that_names_one() {
    let http2 = Request::builder().uri("https://shop.example/shoes");
    let (http2, ()) = http2.body(()).unwrap().into_parts();
    let request = request(&http2, &client(), PLAIN);
    assert_eq!(all(request.headers(), "host"), ["shop.example"]);
    assert_eq!(request.uri(), "/shoes");
}

#[test]
fn trailers_another_protocol_and_an_end_are_asked_for_where_they_may_be() {
    let asks = [("te", "trailers, deflate"), ("upgrade", "websocket")];
    let manner = |closes, upgrades| Manner { closes, upgrades };
    for (manner, connection, upgrade) in [
        (manner(false, false), "te", None),
        (manner(true, false), "close, te", None),
        (manner(false, true), "te, upgrade", Some("websocket")),
        (manner(true, true), "te, upgrade", Some("websocket")),
    ] {
        let headers = forwarded(&asks, manner);
        assert_eq!(all(&headers, "connection"), [connection], "{manner:?}");
        assert_eq!(all(&headers, "upgrade"), Vec::from_iter(upgrade));
        assert_eq!(all(&headers, "te"), ["trailers"]);
    }
}

#[test]
fn a_response_loses_what_was_for_the_connection_to_the_worker() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("trailer", "x-checksum"),
        ("content-type", "text/plain"),
    ] {
        let name = HeaderName::from_static(name);
        headers.append(name, HeaderValue::from_static(value));
    }
    let mut switched = headers.clone();
    response(&mut headers, Version::HTTP_11, false);
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "trailer", "via"]);
    response(&mut switched, Version::HTTP_11, true);
    assert_eq!(all(&switched, "upgrade"), ["h2c"]);
    assert_eq!(all(&switched, "connection"), ["upgrade"]);
}

#[test]
fn a_response_whose_length_could_be_read_in_two_ways_is_none() {
    let sound = |lines: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_static(name);
            headers.append(name, HeaderValue::from_static(value));
        }
        is_sound(StatusCode::OK, &headers)
    };
    let (length, coding) = ("content-length", "transfer-encoding");
    assert!(sound(&[]));
    assert!(sound(&[(length, "5")]));
    assert!(sound(&[(coding, "Chunked")]));
    assert!(!sound(&[(length, "5"), (coding, "chunked")]));
    assert!(!sound(&[(length, "5"), (length, "5")]));
    assert!(!sound(&[(coding, "gzip, chunked")]));
    assert!(!sound(&[(coding, "chunked"), (coding, "chunked")]));
    assert!(!sound(&[(coding, "identity")]));
}

#[test]
fn a_protocol_is_one_of_those_that_were_asked_for() {
    let asked = forwarded(
        &[("upgrade", "h2c, WebSocket")],
        Manner {
            closes: false,
            upgrades: true,
        },
    );
    let answers = |protocol| was_asked_for(Some(&HeaderValue::from_static(protocol)), &asked);
    assert!(answers("websocket") && answers("h2c"));
    assert!(!answers("ssh") && !was_asked_for(None, &asked));
}

#[test]
fn only_one_expectation_is_known() {
    let expects = |value| expects_the_unknown(&head(&[("expect", value)]).headers);
    assert!(!expects("100-Continue"));
    assert!(expects("200-ok"));
}
