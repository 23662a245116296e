//! What the bundled web server says of a file's version: its tag and its time, and
//! what they are good for.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use prefork_proto::message::ToWorker;
use serde_json::json;
use tempfile::TempDir;

use prefork_testkit::client::{Client, Response};
use prefork_testkit::supervisor::{DEADLINE, Orders, Worker};

/// The time of every file of a release that is made the same way each time.
const RELEASE: i64 = 1_000_000_000;

/// A year's seconds.
const YEAR: i64 = 31_556_952;

fn site() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn serve(root: &Path) -> Worker {
    let mut orders = Orders {
        program: "web_server",
        ..Orders::default()
    };
    orders.welcome.app = json!({ "root": root });
    Worker::with(orders)
}

fn set_time(path: &Path, seconds: i64) {
    let epoch = SystemTime::UNIX_EPOCH;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        epoch - distance
    } else {
        epoch + distance
    };
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

/// Puts a file of this time in the place of what is there, as a deployment does.
fn deploy(root: &Path, name: &str, content: &[u8], time: i64) {
    let next = root.join("next");
    fs::write(&next, content).unwrap();
    set_time(&next, time);
    fs::rename(next, root.join(name)).unwrap();
}

fn ask(worker: &Worker, line: &str, headers: &str) -> Response {
    let mut client = Client::connect(worker.address);
    client.send(format!("{line} HTTP/1.1\r\nhost: test\r\n{headers}\r\n"));
    client.response()
}

/// Asks until the answer has a tag: one that is not made of the content has to
/// wait until the file's last change is some time ago.
fn tagged(worker: &Worker, line: &str) -> (Response, String) {
    let end = Instant::now() + DEADLINE;
    loop {
        let answer = ask(worker, line, "");
        assert_eq!(answer.status, 200);
        if let Some(tag) = answer.header("etag").map(str::to_owned) {
            return (answer, tag);
        }
        assert!(Instant::now() < end, "no tag ever");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_file_of_any_time_is_served_and_has_a_time_only_where_it_can_be_one() {
    let site = site();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_secs()).unwrap();
    let times = [
        ("plain", RELEASE, true),
        ("before-the-epoch", -1, false),
        ("long-before-it", -200 * YEAR, false),
        ("at-the-epoch", 0, false),
        ("of-a-store", 1, false),
        ("of-an-archive", 315_532_800, false),
        ("tomorrow", now + 86_400, false),
        ("year-2300", 330 * YEAR, false),
        ("year-10000", 8_031 * YEAR, false),
    ];
    for (name, time, _) in times {
        deploy(site.path(), name, b"content", time);
    }
    let mut worker = serve(site.path());
    for (name, _, is_time) in times {
        for method in ["GET", "HEAD"] {
            let mut client = Client::connect(worker.address);
            client.send(format!(
                "{method} /{name} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
            ));
            let head = client.until("\r\n\r\n");
            assert!(head.starts_with("HTTP/1.1 200 "), "{name}: {head}");
            assert!(head.contains("\r\netag: \""), "{name}: {head}");
            assert_eq!(head.contains("\r\nlast-modified"), is_time, "{head}");
        }
        let since = "if-modified-since: Sat, 01 Jan 2000 00:00:00 GMT\r\n";
        assert_eq!(ask(&worker, &format!("GET /{name}"), since).status, 200);
    }
    let health = worker.ask(|id| ToWorker::Ping { id });
    assert!(health.ok, "it lives");
}

#[test]
fn other_content_of_the_same_time_and_length_has_another_tag() {
    let site = site();
    let large = 5 << 20;
    for (name, length) in [("small", 8), ("large", large)] {
        let (line, first, second) = (
            format!("GET /{name}"),
            vec![b'a'; length],
            vec![b'b'; length],
        );
        deploy(site.path(), name, &first, RELEASE);
        let worker = serve(site.path());
        let (answer, tag) = tagged(&worker, &line);
        assert!(answer.body == first);
        let same = ask(&worker, &line, &format!("if-none-match: {tag}\r\n"));
        assert_eq!(same.status, 304);
        let changes: [&dyn Fn(); 2] = [&|| deploy(site.path(), name, &second, RELEASE), &|| {
            let path = site.path().join(name);
            fs::write(&path, &second).unwrap();
            set_time(&path, RELEASE);
        }];
        for change in changes {
            deploy(site.path(), name, &first, RELEASE);
            let (_, tag) = tagged(&worker, &line);
            change();
            for condition in ["if-none-match", "range: bytes=1-\r\nif-range"] {
                let answer = ask(&worker, &line, &format!("{condition}: {tag}\r\n"));
                assert_eq!(answer.status, 200, "{name} {condition}");
                assert!(answer.body == second, "{name} {condition}");
            }
        }
    }
}

#[test]
fn two_writes_in_a_moment_never_share_a_tag() {
    let site = site();
    let path = site.path().join("file");
    fs::write(&path, "0000").unwrap();
    let worker = serve(site.path());
    let mut client = Client::connect(worker.address);
    let mut before: Option<String> = None;
    for round in 0..300 {
        let text = format!("{round:04}");
        fs::write(&path, &text).unwrap();
        let condition = before.map(|tag| format!("if-none-match: {tag}\r\n"));
        let condition = condition.unwrap_or_default();
        client.send(format!(
            "GET /file HTTP/1.1\r\nhost: test\r\n{condition}\r\n"
        ));
        let answer = client.response();
        assert_eq!((answer.status, answer.text()), (200, &*text));
        before = answer.header("etag").map(str::to_owned);
    }
}

#[test]
fn the_same_content_has_the_same_tag_on_every_machine() {
    let (one, other) = (site(), site());
    deploy(one.path(), "app.js", b"let a = 1", RELEASE);
    deploy(other.path(), "app.js", b"let a = 1", RELEASE + 7);
    let tags = [one, other].map(|site| {
        let worker = serve(site.path());
        tagged(&worker, "GET /app.js").1
    });
    assert_eq!(tags[0], tags[1]);
    assert!(tags[0].starts_with('"'), "it is a strong one: {}", tags[0]);
}

#[test]
fn every_line_of_a_condition_counts() {
    let site = site();
    deploy(site.path(), "file", b"content", RELEASE);
    let worker = serve(site.path());
    let (_, tag) = tagged(&worker, "GET /file");
    for (headers, status) in [
        (
            format!("if-none-match: \"a\"\r\nif-none-match: {tag}\r\n"),
            304,
        ),
        (
            format!("if-none-match: {tag}\r\nif-none-match: \"a\"\r\n"),
            304,
        ),
        (
            "if-none-match: \"a\"\r\nif-none-match: \"b\"\r\n".to_owned(),
            200,
        ),
        (format!("if-match: \"a\"\r\nif-match: {tag}\r\n"), 200),
        (format!("if-match: {tag}\r\nif-match: \"a\"\r\n"), 200),
        ("if-match: \"a\"\r\nif-match: \"b\"\r\n".to_owned(), 412),
        (
            "if-none-match: \"a\"\r\nif-none-match: *\r\n".to_owned(),
            304,
        ),
        (
            format!("if-none-match:\r\nif-none-match: , {tag} ,\r\n"),
            304,
        ),
        (format!("range: bytes=99-\r\nif-none-match: {tag}\r\n"), 304),
    ] {
        let answer = ask(&worker, "GET /file", &headers);
        assert_eq!(answer.status, status, "{headers}");
    }
}
