//! The bundled web server.

use std::fs;

use hyper::Method;
use hyper::header::{CONTENT_LENGTH, HeaderMap};
use prefork_proto::message::{ToSupervisor, ToWorker};
use serde_json::{Value, json};
use tempfile::TempDir;

use prefork_testkit::client::{Client, Response};
use prefork_testkit::door::Door;
use prefork_testkit::http2::{self, http2, runtime};
use prefork_testkit::supervisor::{Orders, Worker};

fn orders(app: Value) -> Orders {
    let mut orders = Orders {
        program: "web_server",
        ..Orders::default()
    };
    orders.welcome.app = app;
    orders
}

fn site() -> (TempDir, Worker) {
    site_with(json!({}))
}

fn site_with(mut app: Value) -> (TempDir, Worker) {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("index.html", "<h1>home</h1>");
    write("data.txt", "0123456789");
    write("data.txt.gz", "pretend this is gzip");
    write(".secret", "secret");
    app["root"] = json!(directory.path());
    let worker = Worker::with(orders(app));
    (directory, worker)
}

fn ask(worker: &Worker, line: &str, headers: &str) -> Response {
    let mut client = Client::connect(worker.address);
    client.send(format!("{line} HTTP/1.1\r\nhost: test\r\n{headers}\r\n"));
    client.response()
}

#[test]
fn without_a_root_the_welcome_page_names_its_worker() {
    let worker = Worker::with(orders(json!({})));
    let pid = worker.process.pid().to_string();
    let page = ask(&worker, "GET /", "accept: text/html,*/*;q=0.8\r\n");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    for part in [
        "<dt>pool</dt><dd>web</dd>",
        "<dt>slot</dt><dd>3</dd>",
        "<dt>generation</dt><dd>7</dd>",
        &format!("<dt>pid</dt><dd>{pid}</dd>"),
    ] {
        assert!(page.text().contains(part), "{part} in {}", page.text());
    }
    let text = ask(&worker, "GET /", "accept: */*\r\n");
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(text.text().contains(&format!("pid         {pid}\n")));
    assert_eq!(ask(&worker, "GET /elsewhere", "").status, 404);
    assert_eq!(ask(&worker, "POST /", "").status, 405);
}

#[test]
fn a_root_is_served_with_types_ranges_and_encodings() {
    let (_directory, worker) = site();
    let home = ask(&worker, "GET /", "");
    assert_eq!((home.status, home.text()), (200, "<h1>home</h1>"));
    assert_eq!(home.header("content-type"), Some("text/html"));
    let part = ask(&worker, "GET /data.txt", "range: bytes=2-4\r\n");
    assert_eq!((part.status, part.text()), (206, "234"));
    let packed = ask(&worker, "GET /data.txt", "accept-encoding: gzip\r\n");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(packed.text(), "pretend this is gzip");
    let mut client = Client::connect(worker.address);
    client.send("HEAD /data.txt HTTP/1.1\r\nhost: test\r\n\r\n");
    assert!(client.until("\r\n\r\n").contains("content-length: 10"));
    assert_eq!(client.get("/data.txt").text(), "0123456789");
}

#[test]
fn what_is_missing_hidden_or_no_reading_is_refused() {
    let (_directory, worker) = site();
    let missing = ask(&worker, "GET /nothing", "accept: text/html\r\n");
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("there is nothing here"));
    for path in ["/.secret", "/%2esecret", "/../etc/passwd", "/%2e%2e%2fetc"] {
        assert_eq!(ask(&worker, &format!("GET {path}"), "").status, 404);
    }
    let refused = ask(&worker, "DELETE /data.txt", "");
    assert_eq!(refused.status, 405);
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
}

#[test]
fn it_knows_two_commands() {
    let mut worker = Worker::with(orders(json!({})));
    assert_eq!(worker.tell("echo", json!([1])).data, json!([1]));
    let status = worker.tell("status", Value::Null).data;
    assert_eq!(
        status,
        "serving the welcome page; 0 connections, 0 requests in flight"
    );
    let unknown = worker.tell("dance", Value::Null);
    assert_eq!(unknown.error.unwrap().code, "unknown_command");
}

#[test]
fn a_new_root_is_taken_in_place_and_a_bad_one_refused() {
    let (directory, mut worker) = site_with(json!({ "confine": false }));
    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("index.html"), "other").unwrap();
    let bad = json!({ "root": directory.path().join("absent") });
    let reply = worker.ask(|id| ToWorker::Reload { id, app: bad });
    assert!(!reply.ok);
    assert_eq!(ask(&worker, "GET /", "").text(), "<h1>home</h1>");
    let app = json!({ "root": other, "confine": false });
    assert!(worker.ask(|id| ToWorker::Reload { id, app }).ok);
    assert_eq!(ask(&worker, "GET /", "").text(), "other");
}

#[test]
fn one_that_is_confined_takes_no_other_root_but_says_that_it_needs_a_restart() {
    let (directory, mut worker) = site();
    let root = directory.path();
    let status = worker.health(|health| !health.status.is_empty()).status;
    if status.contains("not confined") {
        eprintln!("SKIPPED: {status}");
        return;
    }
    let mut code = |app| {
        let reply = worker.ask(|id| ToWorker::Reload { id, app });
        reply.error.map(|error| error.code)
    };
    assert_eq!(code(json!({ "root": root })), None);
    assert_eq!(
        code(json!({ "root": root, "confine": 1 })).as_deref(),
        Some("invalid_settings")
    );
    for app in [
        json!({ "root": "/usr" }),
        json!({ "root": root, "confine": false }),
    ] {
        assert_eq!(code(app).as_deref(), Some("needs_restart"));
    }
    assert_eq!(ask(&worker, "GET /", "").text(), "<h1>home</h1>");
}

#[test]
fn settings_that_make_no_sense_keep_it_from_starting() {
    for (app, why) in [
        (json!({ "rooot": "." }), "did you mean \"root\"?"),
        (json!({ "root": "/nowhere/at/all" }), "cannot serve root"),
    ] {
        let orders = orders(app);
        let mut worker = Worker::spawned(&orders);
        worker.hello();
        worker.say(&ToWorker::Welcome(orders.welcome));
        worker.offer();
        worker.say(&ToWorker::Start);
        let bye = worker.until(Some);
        assert!(matches!(&bye, ToSupervisor::Bye { reason } if reason.contains(why)));
        assert_eq!(worker.process.exit().code(), Some(1));
        assert!(worker.process.stderr().contains(why));
    }
}

#[test]
fn its_own_pages_have_no_content_for_head() {
    let worker = Worker::with(Orders {
        program: "web_server",
        ..Orders::default()
    });
    let length = |headers: &HeaderMap| headers.get(CONTENT_LENGTH).cloned();
    runtime().block_on(async {
        let (mut sender, _closed) = http2(&worker).await;
        for (target, status) in [("/", 200), ("/missing", 404)] {
            let head = http2::ask(&mut sender, Method::HEAD, target).await;
            assert_eq!((head.status().as_u16(), head.body().len()), (status, 0));
            let whole = http2::ask(&mut sender, Method::GET, target).await;
            assert_eq!(length(head.headers()), length(whole.headers()));
            assert_eq!(
                length(head.headers()).unwrap(),
                whole.body().len().to_string()
            );
        }
    });
}

#[test]
fn it_outlives_its_supervisor_and_the_readers_of_its_output() {
    let door = Door::opened("s1");
    let mut worker = Worker::with(Orders {
        program: "web_server",
        keeps_output: true,
        ..door.orders()
    });
    let mut client = Client::connect(worker.address);
    assert_eq!(client.get("/").status, 200);
    // As a killed supervisor does: the readers of its output are gone, too.
    drop(worker.process.0.stdout.take());
    drop(worker.process.0.stderr.take());
    worker.abandon();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(door.let_in(&mut worker).outputs.len(), 2);
    worker.say(&ToWorker::Refused {
        reason: "nobody reads this".to_owned(),
    });
    assert!(client.get("/").status == 200);
    drop(client);
    assert_eq!(worker.process.exit().code(), Some(0));
}
