//! Which trace a request belongs to (W3C Trace Context, 3.2).

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// The header that says so.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// How long a version, a trace's id, a parent's id and flags are, in hexadecimal digits.
const PARTS: [usize; 4] = [2, 32, 16, 2];

/// What a request says of its trace, where that makes sense; what is not of the form is
/// to be ignored by the standard.
pub(super) fn of(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(TRACEPARENT)?;
    is_valid(value.as_bytes()).then(|| value.clone())
}

/// Whether it has the form of the versions that are known: four parts, the ids not all 0.
fn is_valid(value: &[u8]) -> bool {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut parts = value.split(|byte| *byte == b'-');
    let has_form = PARTS.iter().all(|length| {
        let part = parts.next().unwrap_or_default();
        part.len() == *length
            && part.iter().all(is_hex)
            && (*length == 2 || part.iter().any(|digit| *digit != b'0'))
    });
    has_form && parts.next().is_none() && !value.starts_with(b"ff")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_form_is_taken_and_nothing_else() {
        assert!(is_valid(
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        ));
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736\"00f067aa0ba902b7-01",
        ] {
            assert!(!is_valid(wrong.as_bytes()), "{wrong}");
        }
    }
}
