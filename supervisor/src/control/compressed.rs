//! The exposition in the format that is asked for, and compressed for those who take it
//! so: it has much that repeats.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderName, HeaderValue, VARY};
use hyper::{HeaderMap, StatusCode};

use super::answer::{self, Answer, EXPOSITION, OPENMETRICS};
use crate::metrics::openmetrics;

/// The exposition, as OpenMetrics and by gzip if the request's headers say that its sender
/// wants the one and takes the other.
pub(crate) fn exposition(text: String, headers: &HeaderMap) -> Answer {
    let (kind, text) = match wants_openmetrics(headers) {
        true => (OPENMETRICS, openmetrics(&text)),
        false => (EXPOSITION, text),
    };
    let compressed = takes_gzip(headers).then(|| gzip(text.as_bytes()));
    let mut answer = match compressed {
        Some(body) => {
            let mut answer = answer::whole(StatusCode::OK, kind, body);
            let gzip = HeaderValue::from_static("gzip");
            answer.headers_mut().insert(CONTENT_ENCODING, gzip);
            answer
        }
        None => answer::whole(StatusCode::OK, kind, text),
    };
    let vary = HeaderValue::from_static("accept, accept-encoding");
    answer.headers_mut().insert(VARY, vary);
    answer
}

fn gzip(text: &[u8]) -> Vec<u8> {
    // The event loop waits meanwhile: the quickest level is a tenth of the size already.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    written.expect("a Vec takes all")
}

/// Whether OpenMetrics is in `Accept` in a version that is had here, and nothing that is
/// taken for the other format is preferred to it; RFC 9110, 12.5.1.
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let (mut wanted, mut plain) = (0.0, 0.0);
    for choice in choices(headers, ACCEPT) {
        let version = choice.version.as_deref();
        let is_known = version.is_none_or(|it| ["1.0.0", "0.0.1"].contains(&it));
        match choice.name.as_str() {
            "application/openmetrics-text" if is_known => wanted = choice.weight.max(wanted),
            "text/plain" | "text/*" | "*/*" => plain = choice.weight.max(plain),
            _ => {}
        }
    }
    wanted > 0.0 && wanted >= plain
}

/// Whether `gzip` or `*` is in `Accept-Encoding` with a weight above 0; RFC 9110, 12.5.3.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut by_any = false;
    for choice in choices(headers, ACCEPT_ENCODING) {
        let is_taken = choice.weight > 0.0;
        match choice.name.as_str() {
            "gzip" | "x-gzip" => return is_taken,
            "*" => by_any = is_taken,
            _ => {}
        }
    }
    by_any
}

/// What a client says that it takes.
struct Choice {
    /// In lower case.
    name: String,
    /// From 0 to 1; 0 where it can't be read.
    weight: f32,
    version: Option<String>,
}

/// The members of a header that lists choices with weights; RFC 9110, 12.4.2.
fn choices(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Choice> {
    let values = headers.get_all(name).into_iter();
    let lists = values.map(|value| value.to_str().unwrap_or_default());
    lists.flat_map(|list| list.split(',').map(choice))
}

fn choice(member: &str) -> Choice {
    let mut parts = member
        .split(';')
        .map(|part| part.trim().to_ascii_lowercase());
    let mut choice = Choice {
        name: parts.next().unwrap_or_default(),
        weight: 1.0,
        version: None,
    };
    for part in parts {
        match part.split_once('=') {
            Some(("q", weight)) => choice.weight = weight.trim().parse().unwrap_or(0.0),
            Some(("version", version)) => choice.version = Some(version.trim_matches('"').into()),
            _ => {}
        }
    }
    choice
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::answer::Payload;
    use super::*;

    fn asked(accept: &[&'static str]) -> HeaderMap {
        let values = accept.iter().copied().map(HeaderValue::from_static);
        values.map(|value| (ACCEPT_ENCODING, value)).collect()
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        for accept in [
            "gzip",
            "deflate, gzip;q=0.5",
            "GZIP",
            "*",
            "identity;q=1, *;q=0.1",
            "x-gzip",
        ] {
            assert!(takes_gzip(&asked(&[accept])), "{accept}");
        }
        for accept in [
            "",
            "deflate",
            "gzip;q=0",
            "gzip; q=0.0, *",
            "*;q=0",
            "gzip;q=x",
            "br",
        ] {
            assert!(!takes_gzip(&asked(&[accept])), "{accept}");
        }
        assert!(!takes_gzip(&asked(&[])));
        assert!(takes_gzip(&asked(&["br", "gzip"])));
    }

    #[test]
    fn openmetrics_is_for_those_who_would_rather_have_it() {
        let wants = |accept| {
            let headers: HeaderMap = [(ACCEPT, HeaderValue::from_static(accept))]
                .into_iter()
                .collect();
            wants_openmetrics(&headers)
        };
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0",
            // What Prometheus 2 and 3 send.
            "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ] {
            assert!(wants(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=x",
            "application/openmetrics-text;version=2.0.0",
            "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.5",
        ] {
            assert!(!wants(accept), "{accept}");
        }
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let text = "prefork_worker_up{pool=\"web\"} 1\n".repeat(1000);
        let answer = exposition(text.clone(), &asked(&["gzip"]));
        assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(answer.headers()[VARY], "accept, accept-encoding");
        let Payload::Whole(body) = answer.into_body() else {
            panic!("it streams");
        };
        assert!(body.len() * 20 < text.len(), "{}", body.len());
        let mut unpacked = String::new();
        let mut decoder = flate2::read::GzDecoder::new(&body[..]);
        decoder.read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);

        let plain = exposition(text.clone(), &asked(&[]));
        assert!(!plain.headers().contains_key(CONTENT_ENCODING));
        let Payload::Whole(body) = plain.into_body() else {
            panic!("it streams");
        };
        assert_eq!(body, text);
    }
}
