//! Packed files that lie beside plain ones and can't be served.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{Orders, Worker};

/// Takes root's right to read everything away.
const WITHOUT_RIGHTS: &str = "exec setpriv --bounding-set=-all --inh-caps=-all \"$0\";";

/// The head and the body of an answer that is its connection's last.
fn exchange(worker: &Worker, method: &str, codings: &str) -> (String, String) {
    let mut client = Client::connect(worker.address);
    client.send(format!(
        "{method} /page.txt HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         accept-encoding: {codings}\r\n\r\n"
    ));
    let all = String::from_utf8(client.rest()).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    let head: Vec<&str> = head
        .lines()
        // The time of a file is told once its second is over.
        .filter(|line| !line.starts_with("date") && !line.starts_with("last-modified"))
        .collect();
    (head.join("\n"), body.to_owned())
}

#[test]
fn one_that_cannot_be_served_is_passed_over_for_get_as_for_head() {
    let site = tempfile::tempdir().unwrap();
    let root = site.path();
    fs::write(root.join("page.txt"), "plain").unwrap();
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut orders = Orders {
        program: "web_server",
        prefix: is_root.then_some(WITHOUT_RIGHTS),
        ..Orders::default()
    };
    orders.welcome.app = json!({ "root": root });
    let worker = Worker::with(orders);
    let unreadable = root.join("page.txt.gz");
    fs::write(&unreadable, "secret").unwrap();
    fs::set_permissions(&unreadable, PermissionsExt::from_mode(0o000)).unwrap();
    fs::create_dir(root.join("page.txt.br")).unwrap();
    for codings in ["gzip", "br", "zstd", "gzip, br, zstd", "identity"] {
        let get = exchange(&worker, "GET", codings);
        assert!(get.0.starts_with("HTTP/1.1 200 "), "{codings}: {}", get.0);
        assert!(!get.0.contains("content-encoding"), "{}", get.0);
        assert_eq!(get.1, "plain", "{codings}");
        let head = exchange(&worker, "HEAD", codings);
        assert_eq!(head, (get.0, String::new()), "{codings}");
    }
    // One that can be served is taken although others can't.
    fs::write(root.join("page.txt.zst"), "as zstd").unwrap();
    let all = "gzip, br, zstd";
    let (head, body) = exchange(&worker, "GET", all);
    assert!(head.contains("content-encoding: zstd"), "{head}");
    assert_eq!(body, "as zstd");
    assert_eq!(exchange(&worker, "HEAD", all), (head, String::new()));
    for odd in ["page.txt.gz", "page.txt.zst"] {
        fs::remove_file(root.join(odd)).unwrap();
    }
    mkfifo(&root.join("page.txt.gz"), Mode::from_bits_truncate(0o644)).unwrap();
    symlink("page.txt.zst", root.join("page.txt.zst")).unwrap();
    assert_eq!(exchange(&worker, "GET", all).1, "plain");
}
