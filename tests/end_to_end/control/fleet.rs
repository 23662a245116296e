//! Many supervisors in one table, by their admin addresses.

use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use crate::harness::{Pool, Prefork, cli};

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// What `prefork status` answers for these, whoever runs here.
fn status(urls: &[&str], flags: &[&str]) -> cli::Output {
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    let mut args = vec!["status"];
    args.extend(flags);
    for url in urls {
        args.extend(["--url", url]);
    }
    cli::run_alone(dir.path(), &args)
}

#[test]
fn supervisors_elsewhere_are_shown_in_one_table() {
    let first = Prefork::start(&[Pool::bundled("web", 2)]);
    let second = Prefork::start(&[Pool::bundled("web", 1), Pool::bundled("api", 1)]);
    let urls = [url(first.admin()), url(second.admin())];
    let urls = urls.each_ref().map(String::as_str);

    let shown = status(&urls, &["--exit-code"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let rows: Vec<&str> = shown.stdout.lines().collect();
    // A heading, a row for each pool of each, a blank and the sum.
    assert_eq!(rows.len(), 6, "{}", shown.stdout);
    let names = rows[1..4].iter().map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        (words[0].to_owned(), words[1], words[5])
    });
    let [one, two] = [first.admin(), second.admin()].map(|it| it.to_string());
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            (one, "ready", "web"),
            (two.clone(), "ready", "web"),
            (two, "ready", "api")
        ],
        "{}",
        shown.stdout
    );
    assert!(rows[5].starts_with("2 instances: 2 ready; version "));

    let document = status(&urls, &["--output", "json"]);
    let document: Value = serde_json::from_str(&document.stdout).expect("it is JSON");
    let pids = document["instances"].as_array().expect("it has them");
    let pids = pids.iter().map(|it| it["status"]["pid"].as_i64());
    let expected = [first.pid(), second.pid()].map(|pid| Some(i64::from(pid)));
    assert_eq!(pids.collect::<Vec<_>>(), expected);
}

#[test]
fn who_does_not_answer_has_a_row_and_makes_the_exit_code() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let lives = url(prefork.admin());
    // Takes connections, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let silent = url(listener.local_addr().expect("it has one"));
    // Nobody listens on tcpmux any more.
    let gone = "http://127.0.0.1:1";

    let shown = status(&[&lives, gone], &[]);
    assert_eq!(shown.code, 1, "{}", shown.stderr);
    assert!(shown.stdout.contains("Connection refused"));
    let sum = "1 ready, 1 unknown";
    assert!(shown.stdout.contains(sum), "{}", shown.stdout);
    assert_eq!(status(&[&lives, gone], &["--exit-code"]).code, 7);

    // Alone: whoever lives may take longer than that on a busy machine.
    let shown = status(&[&silent], &["--timeout", "1s"]);
    assert_eq!(shown.code, 1, "{}", shown.stderr);
    assert!(shown.stdout.contains("no answer within 1"));
    let secure = status(&["https://127.0.0.1:9919"], &[]);
    assert_eq!(secure.code, 2);
    assert!(secure.stderr.contains("TLS is not spoken here"));
}
