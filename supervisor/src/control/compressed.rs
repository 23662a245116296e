//! The exposition, compressed for those who take it so: it has much that repeats.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};
use hyper::{HeaderMap, StatusCode};

use super::answer::{self, Answer, EXPOSITION};

/// The exposition, by gzip if the request's headers say that its sender takes that.
pub(crate) fn exposition(text: String, headers: &HeaderMap) -> Answer {
    let compressed = takes_gzip(headers).then(|| gzip(text.as_bytes()));
    let mut answer = match compressed {
        Some(body) => {
            let mut answer = answer::whole(StatusCode::OK, EXPOSITION, body);
            let gzip = HeaderValue::from_static("gzip");
            answer.headers_mut().insert(CONTENT_ENCODING, gzip);
            answer
        }
        None => answer::whole(StatusCode::OK, EXPOSITION, text),
    };
    let vary = HeaderValue::from_static("accept-encoding");
    answer.headers_mut().insert(VARY, vary);
    answer
}

fn gzip(text: &[u8]) -> Vec<u8> {
    // The event loop waits meanwhile: the quickest level is a tenth of the size already.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    written.expect("a Vec takes all")
}

/// Whether `gzip` or `*` is in `Accept-Encoding` with a weight above 0; RFC 9110, 12.5.3.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut by_any = false;
    for value in headers.get_all(ACCEPT_ENCODING) {
        for coding in value.to_str().unwrap_or_default().split(',') {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
            let taken = weight.trim().parse().is_ok_and(|weight: f32| weight > 0.0);
            match name.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => return taken,
                "*" => by_any = taken,
                _ => {}
            }
        }
    }
    by_any
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
    fn what_is_unpacked_is_what_was_packed() {
        let text = "prefork_worker_up{pool=\"web\"} 1\n".repeat(1000);
        let answer = exposition(text.clone(), &asked(&["gzip"]));
        assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(answer.headers()[VARY], "accept-encoding");
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
