//! Telling whether an answer is whole and right.

use super::BODY;

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The beginning of one.
    Partial,
    /// The right one; whether the server closes the connection after it.
    Right { closes: bool },
    /// Something else, and why it is wrong.
    Wrong(&'static str),
}

/// Judges what has come since the request was sent.
pub(super) fn judge(bytes: &[u8]) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Answer::Partial,
        Err(_) => return Answer::Wrong("not HTTP"),
    };
    if response.code != Some(200) {
        return Answer::Wrong("another status than 200");
    }
    let header = |name: &str| {
        let found = response.headers.iter();
        let mut found = found.filter(|header| header.name.eq_ignore_ascii_case(name));
        found.next().map(|header| header.value)
    };
    if header("content-length") != Some(BODY.len().to_string().as_bytes()) {
        return Answer::Wrong("another length than expected");
    }
    let body = &bytes[head..];
    if body.len() < BODY.len() {
        return Answer::Partial;
    }
    if body != BODY.as_bytes() {
        return Answer::Wrong("other bytes than expected");
    }
    let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Answer::Right { closes }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nhello, world\n";

    #[test]
    fn an_answer_is_right_only_when_it_is_whole() {
        for length in 0..RIGHT.len() {
            assert_eq!(judge(&RIGHT.as_bytes()[..length]), Answer::Partial);
        }
        assert_eq!(judge(RIGHT.as_bytes()), Answer::Right { closes: false });
    }

    #[test]
    fn a_server_that_closes_says_so() {
        let closing = RIGHT.replace("200 OK", "200 OK\r\nConnection: Close");
        assert_eq!(judge(closing.as_bytes()), Answer::Right { closes: true });
    }

    #[test]
    fn other_bytes_are_wrong() {
        let other = RIGHT.replace("world", "wurst");
        assert!(matches!(judge(other.as_bytes()), Answer::Wrong(_)));
        let more = format!("{RIGHT}!");
        assert!(matches!(judge(more.as_bytes()), Answer::Wrong(_)));
    }
}
