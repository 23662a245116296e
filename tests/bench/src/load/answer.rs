//! Telling whether an answer is whole and right.

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

/// What has come of an answer. Its body is compared as it comes and not kept.
#[derive(Debug, Default)]
pub(super) struct Judge {
    head: Vec<u8>,
    body: Option<Body>,
}

/// A body on its way.
#[derive(Debug, Clone, Copy)]
struct Body {
    received: usize,
    closes: bool,
}

impl Judge {
    /// For the next answer.
    pub(super) fn begin_anew(&mut self) {
        self.head.clear();
        self.body = None;
    }

    /// Takes more bytes of an answer that is to have this body.
    pub(super) fn take(&mut self, bytes: &[u8], expected: &[u8]) -> Answer {
        if let Some(body) = self.body {
            return self.take_body(body, bytes, expected);
        }
        self.head.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; 24];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(&self.head) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Answer::Partial,
            Err(_) => return Answer::Wrong("not HTTP"),
        };
        let body = match judge_head(&response, expected.len()) {
            Ok(closes) => Body {
                received: 0,
                closes,
            },
            Err(why) => return Answer::Wrong(why),
        };
        let head = std::mem::take(&mut self.head);
        let answer = self.take_body(body, &head[length..], expected);
        self.head = head;
        answer
    }

    fn take_body(&mut self, mut body: Body, bytes: &[u8], expected: &[u8]) -> Answer {
        let end = body.received + bytes.len();
        if expected.get(body.received..end) != Some(bytes) {
            return Answer::Wrong("other bytes than expected");
        }
        body.received = end;
        self.body = Some(body);
        if end < expected.len() {
            return Answer::Partial;
        }
        let closes = body.closes;
        Answer::Right { closes }
    }
}

/// Whether the server closes the connection, or what is wrong.
fn judge_head(
    response: &httparse::Response<'_, '_>,
    expected: usize,
) -> Result<bool, &'static str> {
    if response.code != Some(200) {
        return Err("another status than 200");
    }
    let header = |name: &str| {
        let found = response.headers.iter();
        let mut found = found.filter(|header| header.name.eq_ignore_ascii_case(name));
        found.next().map(|header| header.value)
    };
    if header("content-length") != Some(expected.to_string().as_bytes()) {
        return Err("another length than expected");
    }
    Ok(header("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"hello, world\n";
    const RIGHT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nhello, world\n";

    fn judge(bytes: &[u8]) -> Answer {
        Judge::default().take(bytes, BODY)
    }

    #[test]
    fn an_answer_is_right_only_when_it_is_whole_however_it_is_cut() {
        for length in 0..RIGHT.len() {
            let mut judge = Judge::default();
            let (first, rest) = RIGHT.as_bytes().split_at(length);
            assert_eq!(judge.take(first, BODY), Answer::Partial);
            assert_eq!(judge.take(rest, BODY), Answer::Right { closes: false });
            judge.begin_anew();
            assert_eq!(judge.take(first, BODY), Answer::Partial);
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
        for other in [
            RIGHT.replace("world", "wurst"),
            format!("{RIGHT}!"),
            RIGHT.replace("200", "404"),
            RIGHT.replace("13", "14"),
        ] {
            assert!(
                matches!(judge(other.as_bytes()), Answer::Wrong(_)),
                "{other}"
            );
        }
    }
}
