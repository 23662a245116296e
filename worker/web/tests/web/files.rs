//! What the bundled web server serves, and what it does not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use tempfile::TempDir;

use prefork_testkit::client::{Client, Response};
use prefork_testkit::supervisor::{Orders, Worker};

/// A directory with a root in it, and something beside the root.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    write(&place, "outside.txt", "outside");
    write(&place, "outside/secret.txt", "secret");
    write(&place, "root/index.html", "<h1>home</h1>");
    write(&place, "root/file.txt", "inside");
    place
}

fn write(place: &TempDir, name: &str, text: impl AsRef<[u8]>) {
    let path = place.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A worker that serves `root` of the place, with more settings.
fn serve(place: &TempDir, more: Value) -> Worker {
    let mut app = json!({ "root": place.path().join("root") });
    app.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let mut orders = Orders {
        program: "web_server",
        ..Orders::default()
    };
    orders.welcome.app = app;
    Worker::with(orders)
}

fn ask(worker: &Worker, path: impl AsRef<[u8]>, headers: &str) -> Response {
    let mut client = Client::connect(worker.address);
    let mut request = b"GET ".to_vec();
    request.extend_from_slice(path.as_ref());
    request.extend_from_slice(format!(" HTTP/1.1\r\nhost: test\r\n{headers}\r\n").as_bytes());
    client.send(request);
    client.response()
}

fn status(worker: &Worker, path: impl AsRef<[u8]>) -> u16 {
    ask(worker, path, "").status
}

#[test]
fn no_path_leads_out_of_the_root_or_to_what_is_hidden() {
    let place = place();
    write(&place, "root/.git/config", "hidden");
    write(&place, "root/.env", "hidden");
    write(&place, "root/a/b.txt", "inside");
    write(&place, "root/a/.well-known/c", "hidden");
    write(&place, "root/.well-known/security.txt", "known");
    write(&place, "root/.well-known/.hidden", "hidden");
    write(&place, "root/back\\slash.txt", "hidden");
    let worker = serve(&place, json!({}));
    assert_eq!(ask(&worker, "/a/b.txt", "").text(), "inside");
    assert_eq!(
        ask(&worker, "/.well-known/security.txt", "").text(),
        "known"
    );
    let paths: [&[u8]; 24] = [
        b"/../outside.txt",
        b"/a/../../outside.txt",
        b"/a/../file.txt",
        b"/./file.txt",
        b"/%2e%2e/outside.txt",
        b"/%2E%2E%2Foutside.txt",
        b"/..%2foutside.txt",
        b"/a%2fb.txt",
        b"/a%2F..%2F..%2Foutside.txt",
        b"/%252e%252e/outside.txt",
        b"/..%c0%afoutside.txt",
        b"/%c0%ae%c0%ae/outside.txt",
        b"/..%5coutside.txt",
        b"/back%5cslash.txt",
        b"/....//outside.txt",
        b"/..;/outside.txt",
        b"/file.txt%00",
        b"/file.txt%00.html",
        b"/file.txt%0a",
        b"/.env",
        b"/%2egit/config",
        b"/.git/config",
        b"/a/.well-known/c",
        b"/.well-known/.hidden",
    ];
    for path in paths {
        let answer = ask(&worker, path, "");
        let path = String::from_utf8_lossy(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(
            answer.text().starts_with("404"),
            "{path}: {}",
            answer.text()
        );
    }
    // What no request target may have in it.
    for path in [&b"/..\\outside.txt"[..], b"/file.txt\0", b"/\xff\xfe"] {
        let status = ask(&worker, path, "").status;
        let path = String::from_utf8_lossy(path);
        assert!(matches!(status, 400 | 404), "{path:?}: {status}");
    }
}

#[test]
fn symbolic_links_are_followed_inside_the_root_and_not_out_of_it() {
    let place = place();
    let root = place.path().join("root");
    fs::create_dir(root.join("releases")).unwrap();
    write(&place, "root/releases/1/page.html", "one");
    let links = [
        ("current", "releases/1"),
        ("near.txt", "file.txt"),
        ("out.txt", "../outside.txt"),
        ("out", "../outside"),
        ("up", ".."),
        ("round", "round"),
        ("nowhere", "nothing"),
        ("proc", "/proc/self/root/etc"),
    ];
    for (name, target) in links {
        symlink(target, root.join(name)).unwrap();
    }
    symlink(place.path().join("outside.txt"), root.join("absolute.txt")).unwrap();
    symlink("../outside.txt", root.join("file.txt.gz")).unwrap();
    let worker = serve(&place, json!({}));
    assert_eq!(ask(&worker, "/current/page.html", "").text(), "one");
    assert_eq!(ask(&worker, "/near.txt", "").text(), "inside");
    for path in [
        "/out.txt",
        "/out/secret.txt",
        "/out/",
        "/up/outside.txt",
        "/round",
        "/nowhere",
        "/proc/passwd",
        "/absolute.txt",
    ] {
        assert_eq!(status(&worker, path), 404, "{path}");
    }
    let packed = ask(&worker, "/file.txt", "accept-encoding: gzip\r\n");
    assert_eq!((packed.status, packed.text()), (200, "inside"));

    let worker = serve(&place, json!({ "symlinks": "anywhere" }));
    for (path, text) in [
        ("/current/page.html", "one"),
        ("/out.txt", "outside"),
        ("/out/secret.txt", "secret"),
        ("/absolute.txt", "outside"),
    ] {
        assert_eq!(ask(&worker, path, "").text(), text, "{path}");
    }
    assert_eq!(status(&worker, "/../outside.txt"), 404);
}

/// Tells a thread to end, also when the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_link_that_is_switched_out_of_the_root_and_back_never_leads_out() {
    let place = place();
    let root = place.path().join("root");
    write(&place, "root/in/name.txt", "inside");
    write(&place, "outside/name.txt", "secret");
    let worker = serve(&place, json!({}));
    let done = AtomicBool::new(false);
    let switch = |target: &Path| {
        symlink(target, root.join("new")).unwrap();
        fs::rename(root.join("new"), root.join("link")).unwrap();
    };
    switch(Path::new("in"));
    std::thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            while !done.load(Relaxed) {
                switch(Path::new("../outside"));
                switch(Path::new("in"));
            }
        });
        let mut client = Client::connect(worker.address);
        for _ in 0..2_000 {
            let answer = client.get("/link/name.txt");
            assert!(matches!(answer.status, 200 | 404), "{}", answer.status);
            assert!(answer.status == 404 || answer.text() == "inside");
        }
    });
}

#[test]
fn what_is_no_file_or_not_readable_is_not_there() {
    let place = place();
    let root = place.path().join("root");
    mkfifo(&root.join("pipe"), Mode::from_bits_truncate(0o644)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    fs::create_dir_all(root.join("odd/index.html")).unwrap();
    let worker = serve(&place, json!({}));
    // A pipe without a writer would hold a reader for ever.
    for path in ["/pipe", "/socket", "/odd/"] {
        assert_eq!(status(&worker, path), 404, "{path}");
    }
    let long = "x".repeat(300);
    assert_eq!(status(&worker, format!("/{long}")), 404);
    assert_eq!(status(&worker, "/file.txt"), 200);
}

#[test]
fn the_sites_own_page_is_shown_where_nothing_is() {
    let place = place();
    write(&place, "root/errors/gone.html", "<h1>gone</h1>");
    write(&place, "root/errors/gone.html.gz", "packed");
    let worker = serve(&place, json!({ "not_found": "errors/gone.html" }));
    for path in ["/nothing", "/nothing.js", "/.env", "/deep/er/", "/%00"] {
        let answer = ask(&worker, path, "range: bytes=0-1\r\nif-none-match: *\r\n");
        assert_eq!((answer.status, answer.text()), (404, "<h1>gone</h1>"));
        assert_eq!(answer.header("content-type"), Some("text/html"));
        assert_eq!(answer.header("etag"), None);
    }
    let packed = ask(&worker, "/nothing", "accept-encoding: gzip\r\n");
    assert_eq!((packed.status, packed.text()), (404, "packed"));
    let mut client = Client::connect(worker.address);
    client.send("HEAD /nothing HTTP/1.1\r\nhost: test\r\n\r\n");
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 404") && head.contains("content-length: 13"));
    assert_eq!(client.get("/file.txt").text(), "inside");
    // A page that has gone itself is no reason for anything worse.
    fs::remove_dir_all(place.path().join("root/errors")).unwrap();
    let answer = ask(&worker, "/nothing", "");
    assert!(answer.status == 404 && answer.text().starts_with("404"));
}

#[test]
fn a_single_page_application_answers_for_its_routes_and_not_for_files() {
    let place = place();
    write(&place, "root/404.html", "gone");
    let app = json!({ "fallback": "index.html", "not_found": "404.html",
        "cache_control": { "/": "no-cache", "/assets/": "immutable" } });
    let worker = serve(&place, app);
    write(&place, "root/assets/app.js", "js");
    let route = ask(&worker, "/users/7", "");
    assert_eq!((route.status, route.text()), (200, "<h1>home</h1>"));
    assert_eq!(route.header("cache-control"), Some("no-cache"));
    let tag = route.header("etag").unwrap().to_owned();
    let again = ask(&worker, "/users/7", &format!("if-none-match: {tag}\r\n"));
    assert_eq!(again.status, 304);
    assert_eq!(again.header("cache-control"), Some("no-cache"));
    let part = ask(&worker, "/users/7", "range: bytes=0-3\r\n");
    assert_eq!((part.status, part.text()), (200, "<h1>home</h1>"));
    let asset = ask(&worker, "/assets/app.js", "");
    assert_eq!(asset.header("cache-control"), Some("immutable"));
    let missing = ask(&worker, "/assets/old.js", "");
    assert_eq!((missing.status, missing.text()), (404, "gone"));
    assert_eq!(missing.header("cache-control"), None);
    assert_eq!(status(&worker, "/.git"), 404);
}

/// A file's content that says of every part which version it belongs to.
fn version(number: usize) -> Vec<u8> {
    // Of different lengths, and longer than what is sent at a time.
    vec![b'a' + u8::try_from(number % 26).unwrap(); 600_000 + number * 1_000]
}

#[test]
fn a_file_that_is_replaced_under_load_is_never_served_half_old_half_new() {
    let place = place();
    let root = place.path().join("root");
    write(&place, "root/big", version(0));
    let worker = serve(&place, json!({}));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            for number in (0..26).cycle() {
                if done.load(Relaxed) {
                    return;
                }
                fs::write(root.join("next"), version(number)).unwrap();
                fs::rename(root.join("next"), root.join("big")).unwrap();
            }
        });
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(worker.address);
                    let mut tags = std::collections::HashMap::new();
                    for _ in 0..20 {
                        let whole = client.get("/big");
                        assert_eq!(whole.status, 200);
                        let letter = whole.body[0];
                        assert_eq!(whole.body, version(usize::from(letter - b'a')));
                        // One tag never stands for two versions.
                        let tag = whole.header("etag").unwrap().to_owned();
                        assert_eq!(*tags.entry(tag.clone()).or_insert(letter), letter);
                        let rest = format!("range: bytes=1000-\r\nif-range: {tag}\r\n");
                        client.send(format!("GET /big HTTP/1.1\r\nhost: test\r\n{rest}\r\n"));
                        let rest = client.response();
                        let same = rest.status == 206;
                        assert_eq!(same, rest.header("etag") == Some(&tag));
                        assert_eq!(same, rest.body == whole.body[1000..]);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
    });
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_breaks_the_connection_and_not_the_worker() {
    let place = place();
    write(&place, "root/big", vec![b'x'; 32 << 20]);
    let worker = serve(&place, json!({}));
    let mut client = Client::connect(worker.address);
    client.ask("/big");
    client.until("\r\n\r\n");
    // Longer than what sockets and buffers hold, so most of it is not sent yet.
    write(&place, "root/big", "short");
    assert!(client.rest().len() < 32 << 20);
    assert_eq!(ask(&worker, "/big", "").text(), "short");
}

#[test]
fn what_is_not_in_memory_is_read_from_the_disk() {
    let place = place();
    let body: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    write(&place, "root/big", &body);
    let file = fs::File::open(place.path().join("root/big")).unwrap();
    let worker = serve(&place, json!({}));
    for _ in 0..3 {
        file.sync_all().unwrap();
        nix::fcntl::posix_fadvise(
            &file,
            0,
            0,
            nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        )
        .unwrap();
        assert!(ask(&worker, "/big", "").body == body);
        let part = ask(&worker, "/big", "range: bytes=5000001-11000000\r\n");
        assert!(part.body == body[5_000_001..=11_000_000]);
    }
}

#[test]
fn a_page_that_is_not_there_keeps_the_worker_from_starting() {
    let place = place();
    for (app, why) in [
        (
            json!({ "root": place.path().join("root"), "not_found": "404.html" }),
            "`not_found`: cannot open \"404.html\" in the root",
        ),
        (
            json!({ "root": place.path().join("root"), "symlinks": true }),
            "`symlinks` is \"inside\" or \"anywhere\", not true",
        ),
        (
            json!({ "not_found": "404.html" }),
            "`not_found` needs `root`",
        ),
    ] {
        let mut worker = serve(&place, json!({}));
        let reply = worker.ask(|id| prefork_proto::message::ToWorker::Reload { id, app });
        let message = reply.error.unwrap().message;
        assert!(message.contains(why), "{message}");
        assert_eq!(status(&worker, "/file.txt"), 200);
    }
}
