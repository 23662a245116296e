//! How a request is written down. Whatever a client may choose is escaped, so
//! that a line is a line and a field a field; and cut, so that every line fits
//! into what a pipe takes whole (`PIPE_BUF`, 4096 bytes).

use std::fmt::Write;
use std::net::IpAddr;
use std::time::SystemTime;

use serde_json::json;

use super::{Asked, Entry, time};

/// The most that the fields may take, in bytes of the line.
const METHOD: usize = 32;
const TARGET: usize = 2048;
const REFERER: usize = 768;
const USER_AGENT: usize = 512;

/// What stands where a field was cut.
const CUT: &str = "...";

/// The worker's own fields, as JSON.
#[derive(Debug)]
pub(super) struct Worker(String);

impl Worker {
    pub(super) fn new(pool: &str, slot: u32) -> Self {
        let (pool, pid) = (json!(pool), std::process::id());
        Self(format!("\"pool\":{pool},\"slot\":{slot},\"pid\":{pid}"))
    }
}

/// The Combined Log Format of Apache, as nginx escapes it.
pub(super) fn combined(line: &mut String, entry: &Entry, client: Option<IpAddr>, now: SystemTime) {
    let _ = write!(line, "{} - - [{}] \"", Client(client), time::common(now));
    match &entry.asked {
        Some(asked) => {
            hex(line, asked.method.as_str().as_bytes(), METHOD);
            line.push(' ');
            hex(line, target(asked).as_bytes(), TARGET);
            let _ = write!(line, " {:?}", asked.version);
        }
        None => line.push('-'),
    }
    let _ = write!(line, "\" {} {}", entry.status, entry.bytes);
    let asked = entry.asked.as_ref();
    let referer = asked.and_then(|asked| asked.referer.as_ref());
    let user_agent = asked.and_then(|asked| asked.user_agent.as_ref());
    for (value, most) in [(referer, REFERER), (user_agent, USER_AGENT)] {
        line.push_str(" \"");
        match value {
            Some(value) => hex(line, value.as_bytes(), most),
            None => line.push('-'),
        }
        line.push('"');
    }
    line.push('\n');
}

/// One JSON object.
pub(super) fn json(
    line: &mut String,
    entry: &Entry,
    client: Option<IpAddr>,
    now: SystemTime,
    worker: &Worker,
) {
    let time = time::rfc3339(now);
    let _ = write!(
        line,
        "{{\"time\":\"{time}\",\"client\":\"{}\"",
        Client(client)
    );
    let mut field = |name: &str, value: &[u8], most| {
        let _ = write!(line, ",\"{name}\":\"");
        unicode(line, value, most);
        line.push('"');
    };
    let asked = entry.asked.as_ref();
    let method = asked.map_or("-", |asked| asked.method.as_str());
    field("method", method.as_bytes(), METHOD);
    field("path", asked.map_or("-", target).as_bytes(), TARGET);
    if let Some(value) = asked.and_then(|asked| asked.referer.as_ref()) {
        field("referer", value.as_bytes(), REFERER);
    }
    if let Some(value) = asked.and_then(|asked| asked.user_agent.as_ref()) {
        field("user_agent", value.as_bytes(), USER_AGENT);
    }
    // It has been found sane, or is our own.
    field("request_id", entry.id.as_bytes(), usize::MAX);
    if let Some(trace) = asked.and_then(|asked| asked.traceparent.as_ref()) {
        field("traceparent", trace.as_bytes(), usize::MAX);
    }
    line.push_str(",\"version\":\"");
    let _ = match asked {
        Some(asked) => write!(line, "{:?}", asked.version),
        None => write!(line, "-"),
    };
    let _ = writeln!(
        line,
        "\",\"status\":{},\"bytes\":{},\"duration\":{:.6},{}}}",
        entry.status,
        entry.bytes,
        entry.began.elapsed().as_secs_f64(),
        worker.0
    );
}

/// The path and query; of a CONNECT, whom it wants to reach.
fn target(asked: &Asked) -> &str {
    let uri = &asked.uri;
    let target = uri.path_and_query().map(|target| target.as_str());
    let authority = || uri.authority().map(|authority| authority.as_str());
    target.or_else(authority).unwrap_or("-")
}

struct Client(Option<IpAddr>);

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.to_canonical().fmt(f),
            None => f.write_str("unix:"),
        }
    }
}

/// Writes a field with quotes, backslashes and all that is not printable ASCII
/// as `\xHH`.
fn hex(line: &mut String, field: &[u8], most: usize) {
    let end = line.len() + most;
    for byte in field {
        let plain = matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if line.len() + if plain { 1 } else { 4 } > end {
            return line.push_str(CUT);
        }
        if plain {
            line.push(char::from(*byte));
        } else {
            let _ = write!(line, "\\x{byte:02X}");
        }
    }
}

/// Writes a field as the inside of a JSON string; what is not UTF-8 becomes
/// U+FFFD.
fn unicode(line: &mut String, field: &[u8], most: usize) {
    let end = line.len().saturating_add(most);
    for char in String::from_utf8_lossy(field).chars() {
        let escaped = char.is_control();
        let length = match char {
            '"' | '\\' => 2,
            _ if escaped => 6,
            _ => char.len_utf8(),
        };
        if line.len() + length > end {
            return line.push_str(CUT);
        }
        match char {
            '"' | '\\' => line.extend(['\\', char]),
            _ if escaped => {
                let _ = write!(line, "\\u{:04x}", u32::from(char));
            }
            _ => line.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use hyper::{Method, Version};
    use proptest::prelude::*;
    use serde_json::Value;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn entry(target: &str, referer: &[u8], agent: &[u8]) -> Entry {
        Entry {
            began: crate::runtime::moment::Moment::now(),
            asked: Some(Asked {
                method: Method::GET,
                uri: target.parse().unwrap(),
                version: Version::HTTP_11,
                referer: HeaderValue::from_bytes(referer).ok(),
                user_agent: HeaderValue::from_bytes(agent).ok(),
                traceparent: Some(HeaderValue::from_static(TRACE)),
            }),
            id: HeaderValue::from_static("7"),
            status: 200,
            bytes: 12,
        }
    }

    fn both(entry: &Entry) -> [String; 2] {
        let now = SystemTime::UNIX_EPOCH;
        let client = Some("192.0.2.1".parse().unwrap());
        let mut lines = [String::new(), String::new()];
        combined(&mut lines[0], entry, client, now);
        json(&mut lines[1], entry, client, now, &Worker::new("web", 3));
        lines
    }

    #[test]
    fn what_a_client_sends_can_neither_end_a_field_nor_a_line() {
        let [combined, json] = both(&entry(
            "/a?b=%0a",
            b"\" 200 0 \"\\",
            b"\xff\tMozilla \xc3\xa4",
        ));
        assert_eq!(
            combined,
            "192.0.2.1 - - [01/Jan/1970:00:00:00 +0000] \"GET /a?b=%0a HTTP/1.1\" 200 12 \
             \"\\x22 200 0 \\x22\\x5C\" \"\\xFF\\x09Mozilla \\xC3\\xA4\"\n"
        );
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["referer"], "\" 200 0 \"\\");
        assert_eq!(json["user_agent"], "\u{fffd}\tMozilla ä");
        assert_eq!(json["path"], "/a?b=%0a");
        assert_eq!(json["traceparent"], TRACE);
        assert_eq!((&json["pool"], &json["slot"]), (&"web".into(), &3.into()));
    }

    #[test]
    fn a_client_on_a_unix_socket_has_no_address_and_what_is_absent_is_a_dash() {
        let mut line = String::new();
        let mut entry = entry("/", b"", b"");
        let asked = entry.asked.as_mut().unwrap();
        (asked.referer, asked.user_agent) = (None, None);
        combined(&mut line, &entry, None, SystemTime::UNIX_EPOCH);
        assert!(line.starts_with("unix: - - ["), "{line}");
        assert!(line.ends_with(" 200 12 \"-\" \"-\"\n"), "{line}");
    }

    #[test]
    fn of_what_was_no_request_only_its_client_and_its_answer_are_known() {
        let mut entry = entry("/", b"", b"");
        (entry.asked, entry.status, entry.bytes) = (None, 400, 0);
        let [combined, json] = both(&entry);
        assert!(
            combined.ends_with("] \"-\" 400 0 \"-\" \"-\"\n"),
            "{combined}"
        );
        let json: Value = serde_json::from_str(&json).unwrap();
        for name in ["method", "path", "version"] {
            assert_eq!(json[name], "-", "{name}");
        }
        assert_eq!(json["status"], 400);
    }

    proptest! {
        #[test]
        fn every_line_is_whole_short_and_readable(
            path in "[a-z%\"{}|^`]{0,9000}",
            referer in proptest::collection::vec(any::<u8>(), 0..4000),
            agent in proptest::collection::vec(any::<u8>(), 0..4000),
        ) {
            let target = format!("/{}", path.replace(['"', '{', '}', '|', '^', '`'], "x"));
            let [combined, json] = both(&entry(&target, &referer, &agent));
            for line in [&combined, &json] {
                prop_assert!(line.len() <= 4096);
                prop_assert_eq!(line.matches('\n').count(), 1);
                prop_assert!(line.ends_with('\n'));
            }
            prop_assert!(combined.is_ascii());
            prop_assert_eq!(combined.matches('"').count(), 6);
            prop_assert!(serde_json::from_str::<Value>(&json).is_ok());
        }
    }
}
