//! What the bundled web server answers to ranges, conditions and encodings, case
//! by case against RFC 9110; and, where nginx is there, what nginx answers.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tempfile::TempDir;

use prefork_testkit::supervisor::{DEADLINE, Orders, Process, Worker};

/// A request and what is right.
struct Case {
    /// `GET /path`.
    line: &'static str,
    /// Header lines; `{etag}` and `{modified}` are what the server says of
    /// `/plain.txt`.
    headers: &'static str,
    status: u16,
    /// Headers that the answer has, or has not where the value is "".
    has: &'static [(&'static str, &'static str)],
    body: &'static str,
    /// nginx' status, where it is another one, and why ours is right.
    nginx: Option<(u16, &'static str)>,
}

const ALL: &str = "abcdefghijklmnopqrstuvwxyz";
const MIME: &str = "text/plain";

/// Every file's time: 2001-09-09T01:46:40Z.
const TIME: u64 = 1_000_000_000;

const fn case(line: &'static str, headers: &'static str, status: u16) -> Case {
    Case {
        line,
        headers,
        status,
        has: &[],
        body: "",
        nginx: None,
    }
}

impl Case {
    const fn has(mut self, has: &'static [(&'static str, &'static str)]) -> Self {
        self.has = has;
        self
    }

    const fn body(mut self, body: &'static str) -> Self {
        self.body = body;
        self
    }

    const fn nginx(mut self, status: u16, why: &'static str) -> Self {
        self.nginx = Some((status, why));
        self
    }

    /// What is wrong with our answer.
    fn wrong_with(&self, answer: &Answer) -> Option<String> {
        let mut right = answer.status == self.status;
        for (name, value) in self.has {
            right &= answer.header(name) == *value;
        }
        right &= match answer.status {
            200 | 206 => answer.body == self.body,
            304 => {
                answer.header("etag").starts_with('"')
                    && answer.header("vary") == "accept-encoding"
                    && answer.body.is_empty()
            }
            _ => true,
        };
        (!right).then(|| self.found(answer))
    }

    /// Whether nginx answers something else than the case says.
    fn wrong_with_nginx(&self, answer: &Answer) -> Option<String> {
        let (status, why) = self.nginx.unwrap_or((self.status, "they agree"));
        let mut right = answer.status == status;
        // It has only gzip built in.
        if status == self.status && !self.body.starts_with("as ") {
            right &= !matches!(status, 200 | 206) || answer.body == self.body;
        }
        (!right).then(|| format!("nginx: {why}\n{}", self.found(answer)))
    }

    fn found(&self, answer: &Answer) -> String {
        let (line, headers) = (self.line, self.headers);
        format!("{line} {headers:?}: {}\n\n{}", answer.head, answer.body)
    }
}

const PLAIN: &str = "GET /plain.txt";
const HEAD: &str = "HEAD /plain.txt";
const PACKED: &str = "GET /packed.txt";

const RANGES: &[Case] = &[
    case(PLAIN, "", 200)
        .has(&[
            ("content-type", MIME),
            ("content-length", "26"),
            ("accept-ranges", "bytes"),
            ("content-range", ""),
        ])
        .body(ALL),
    case(PLAIN, "range: bytes=0-4", 206)
        .has(&[("content-range", "bytes 0-4/26"), ("content-length", "5")])
        .body("abcde"),
    case(PLAIN, "range: bytes=20-", 206)
        .has(&[("content-range", "bytes 20-25/26")])
        .body("uvwxyz"),
    case(PLAIN, "range: bytes=-5", 206)
        .has(&[("content-range", "bytes 21-25/26")])
        .body("vwxyz"),
    case(PLAIN, "range: bytes=25-25", 206)
        .has(&[("content-range", "bytes 25-25/26")])
        .body("z"),
    case(PLAIN, "range: bytes=20-99", 206)
        .has(&[("content-range", "bytes 20-25/26")])
        .body("uvwxyz"),
    case(PLAIN, "range: bytes=20-99999999999999999999999", 206)
        .has(&[("content-range", "bytes 20-25/26")])
        .body("uvwxyz")
        .nginx(
            416,
            "the last position may be any number (RFC 9110, 14.1.2)",
        ),
    case(PLAIN, "range: bytes=-99", 206)
        .has(&[("content-range", "bytes 0-25/26")])
        .body(ALL),
    case(PLAIN, "range: bytes=26-", 416).has(&[("content-range", "bytes */26")]),
    case(PLAIN, "range: bytes=99999999999999999999999-", 416)
        .has(&[("content-range", "bytes */26")]),
    case(PLAIN, "range: bytes=-0", 416).has(&[("content-range", "bytes */26")]),
    case(PLAIN, "range: items=0-1", 200).body(ALL),
    case(PLAIN, "range: bytes=5-4", 200).body(ALL).nginx(
        416,
        "an invalid range may be ignored (14.2), as by most servers",
    ),
    case(PLAIN, "range: bytes=a-b", 200).body(ALL).nginx(
        416,
        "an invalid range may be ignored (14.2), as by most servers",
    ),
    case(PLAIN, "range: bytes=0-1,4-5", 200).body(ALL).nginx(
        206,
        "several ranges need not be obeyed (14.2); no multipart here",
    ),
    case(HEAD, "range: bytes=0-4", 200)
        .has(&[("content-length", "26"), ("content-range", "")])
        .nginx(206, "a range is for GET only (14.2)"),
    case("GET /empty.txt", "range: bytes=0-", 200).has(&[("content-length", "0")]),
    case("GET /empty.txt", "range: bytes=-5", 200).has(&[("content-length", "0")]),
    case(PLAIN, "range: bytes=0-4\r\nif-range: {etag}", 206).body("abcde"),
    case(PLAIN, "range: bytes=0-4\r\nif-range: \"other\"", 200).body(ALL),
    case(PLAIN, "range: bytes=0-4\r\nif-range: W/{etag}", 200).body(ALL),
    case(PLAIN, "range: bytes=0-4\r\nif-range: {modified}", 206).body("abcde"),
    case(
        PLAIN,
        "range: bytes=0-4\r\nif-range: Sun, 09 Sep 2001 01:46:39 GMT",
        200,
    )
    .body(ALL),
    case(PLAIN, "range: bytes=99-\r\nif-range: \"other\"", 200).body(ALL),
    case(PLAIN, "range: bytes=99-\r\nif-range: {etag}", 416),
];

const CONDITIONS: &[Case] = &[
    case(PLAIN, "if-none-match: {etag}", 304).has(&[("content-length", "")]),
    case(HEAD, "if-none-match: {etag}", 304),
    case(PLAIN, "if-none-match: W/{etag}", 304),
    case(PLAIN, "if-none-match: \"a\", {etag}", 304),
    case(PLAIN, "if-none-match: \"a,b\", \"c\"", 200).body(ALL),
    case(PLAIN, "if-none-match: *", 304),
    case(PLAIN, "if-modified-since: {modified}", 304),
    case(
        PLAIN,
        "if-modified-since: Sun, 09 Sep 2001 01:46:39 GMT",
        200,
    )
    .body(ALL),
    case(
        PLAIN,
        "if-modified-since: Sun, 09 Sep 2001 01:46:41 GMT",
        304,
    )
    .nginx(
        200,
        "it was not modified since (13.1.3); nginx wants the very date",
    ),
    case(PLAIN, "if-modified-since: yesterday", 200).body(ALL),
    case(
        PLAIN,
        "if-none-match: \"a\"\r\nif-modified-since: {modified}",
        200,
    )
    .body(ALL),
    case(PLAIN, "if-match: {etag}", 200).body(ALL),
    case(PLAIN, "if-match: *", 200).body(ALL),
    case(PLAIN, "if-match: \"a\"", 412),
    case(PLAIN, "if-match: W/{etag}", 412),
    case(PLAIN, "if-match: \"a\"\r\nrange: bytes=0-4", 412),
    case(PLAIN, "if-unmodified-since: {modified}", 200).body(ALL),
    case(
        PLAIN,
        "if-unmodified-since: Sun, 09 Sep 2001 01:46:39 GMT",
        412,
    ),
    case(
        PLAIN,
        "if-match: {etag}\r\nif-unmodified-since: Sun, 09 Sep 2001 01:46:39 GMT",
        200,
    )
    .body(ALL)
    .nginx(412, "If-Match goes before If-Unmodified-Since (13.2.2)"),
    case(PLAIN, "range: bytes=0-4\r\nif-none-match: {etag}", 304),
];

const ENCODINGS: &[Case] = &[
    case(PACKED, "", 200)
        .has(&[("vary", "accept-encoding"), ("content-encoding", "")])
        .body("plain"),
    case(PACKED, "accept-encoding: gzip", 200)
        .has(&[
            ("vary", "accept-encoding"),
            ("content-encoding", "gzip"),
            ("content-type", MIME),
        ])
        .body("as gzip"),
    case(PACKED, "accept-encoding: GZIP", 200)
        .has(&[("content-encoding", "gzip")])
        .body("as gzip"),
    case(PACKED, "accept-encoding: br", 200)
        .has(&[("content-encoding", "br")])
        .body("as brotli"),
    case(PACKED, "accept-encoding: zstd", 200)
        .has(&[("content-encoding", "zstd")])
        .body("as zstd"),
    case(PACKED, "accept-encoding: gzip, deflate, br", 200)
        .has(&[("content-encoding", "br")])
        .body("as brotli"),
    case(PACKED, "accept-encoding: gzip;q=1.0, br;q=0.5", 200)
        .has(&[("content-encoding", "gzip")])
        .body("as gzip"),
    case(PACKED, "accept-encoding: gzip;q=0", 200)
        .has(&[("content-encoding", "")])
        .body("plain"),
    case(PACKED, "accept-encoding: deflate", 200)
        .has(&[("content-encoding", "")])
        .body("plain"),
    case(PACKED, "accept-encoding: gzip\r\nrange: bytes=3-6", 206)
        .has(&[
            ("content-range", "bytes 3-6/7"),
            ("content-encoding", "gzip"),
        ])
        .body("gzip")
        .nginx(
            200,
            "both are allowed; a download of a packed file can go on, too",
        ),
    case(PLAIN, "accept-encoding: gzip, br, zstd", 200)
        .has(&[("vary", "accept-encoding"), ("content-encoding", "")])
        .body(ALL),
];

const PATHS: &[Case] = &[
    case(HEAD, "", 200).has(&[("content-length", "26"), ("content-type", MIME)]),
    case("GET /site/", "", 200)
        .has(&[("content-type", "text/html")])
        .body("<h1>site</h1>"),
    case("GET /site", "", 307)
        .has(&[("location", "/site/")])
        .nginx(
            301,
            "a directory may become a file, so no browser should remember it",
        ),
    case("GET /site?a=b", "", 307)
        .has(&[("location", "/site/?a=b")])
        .nginx(301, "as above"),
    case("GET //site", "", 307)
        .has(&[("location", "/site/")])
        .nginx(301, "as above"),
    case("GET //plain.txt", "", 200).body(ALL),
    case("GET /site//index.html", "", 200).body("<h1>site</h1>"),
    case("GET /plain.txt/", "", 404),
    case("GET /plain.txt/more", "", 404),
    case("GET /bare/", "", 404).nginx(403, "whether there is a directory is nobody's concern"),
    case("GET /a%20name.txt", "", 200).body("spaced"),
    case("GET /plain.txt?query", "", 200).body(ALL),
    case("GET /nothing", "", 404),
    case("POST /plain.txt", "content-length: 0", 405).has(&[("allow", "GET, HEAD")]),
    case("OPTIONS /plain.txt", "", 405).has(&[("allow", "GET, HEAD")]),
    case("DELETE /plain.txt", "", 405).has(&[("allow", "GET, HEAD")]),
];

fn site() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("plain.txt", ALL),
        ("empty.txt", ""),
        ("packed.txt", "plain"),
        ("packed.txt.gz", "as gzip"),
        ("packed.txt.br", "as brotli"),
        ("packed.txt.zst", "as zstd"),
        ("a name.txt", "spaced"),
        ("site/index.html", "<h1>site</h1>"),
        ("bare/file.txt", ""),
    ] {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(TIME);
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    root
}

/// An answer to the only request of a connection.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let found = self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        found.unwrap_or("")
    }
}

fn exchange(mut stream: impl Read + Write, line: &str, headers: &str) -> Answer {
    let gap = if headers.is_empty() { "" } else { "\r\n" };
    write!(
        stream,
        "{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}{gap}\r\n"
    )
    .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// Asks for a case, with the server's own validators.
fn ask<S: Read + Write>(connect: &impl Fn() -> S, case: &Case) -> Answer {
    let plain = exchange(connect(), PLAIN, "");
    let headers = case
        .headers
        .replace("{etag}", plain.header("etag"))
        .replace("{modified}", plain.header("last-modified"));
    exchange(connect(), case.line, &headers)
}

fn check(cases: &[Case]) {
    let root = site();
    let mut orders = Orders {
        program: "web_server",
        ..Orders::default()
    };
    orders.welcome.app = json!({ "root": root.path() });
    let worker = Worker::with(orders);
    let connect = || {
        let stream = TcpStream::connect(worker.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| case.wrong_with(&ask(&connect, case)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    beside_nginx(root.path(), cases);
}

/// What nginx answers to the same; where that is another status, the case says so.
fn beside_nginx(root: &Path, cases: &[Case]) {
    let Some(nginx) = Nginx::start(root) else {
        eprintln!("SKIPPED: the answers of nginx, which is not installed");
        return;
    };
    let connect = || {
        let stream = UnixStream::connect(&nginx.socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| case.wrong_with_nginx(&ask(&connect, case)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

struct Nginx {
    _process: Process,
    _place: TempDir,
    socket: std::path::PathBuf,
}

impl Nginx {
    fn start(root: &Path) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("nginx.sock");
        let at = place.path().display();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {at};"))
            .concat();
        let text = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/log;\n\
             events {{ }}\n\
             http {{ access_log off; default_type application/octet-stream; {paths}\n\
             types {{ text/html html; text/plain txt; }} gzip_static on; gzip_vary on;\n\
             absolute_redirect off;\n\
             server {{ listen unix:{}; root {}; }} }}\n",
            socket.display(),
            root.display(),
        );
        let config = place.path().join("nginx.conf");
        fs::write(&config, text).unwrap();
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let child = Command::new("nginx")
            .env("PATH", path)
            .arg("-p")
            .arg(place.path())
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = Process(child.ok()?);
        let deadline = Instant::now() + DEADLINE;
        while UnixStream::connect(&socket).is_err() {
            let log = fs::read_to_string(place.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "nginx does not come up: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Self {
            _process: process,
            _place: place,
            socket,
        })
    }
}

#[test]
fn ranges_are_answered_as_the_standard_says() {
    check(RANGES);
}

#[test]
fn conditions_are_answered_as_the_standard_says() {
    check(CONDITIONS);
}

#[test]
fn encodings_are_negotiated_as_the_standard_says() {
    check(ENCODINGS);
}

#[test]
fn methods_directories_and_paths_are_answered_as_by_other_servers() {
    check(PATHS);
}
