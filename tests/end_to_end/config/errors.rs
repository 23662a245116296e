//! A configuration error names the file, the place, the line and what would be right.

use std::net::{SocketAddr, TcpListener};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, cli, directory};

/// What `prefork check` says of a file, and its path.
fn check(text: &str) -> (cli::Output, String) {
    let dir = directory();
    let path = dir.path().join("prefork.toml");
    std::fs::write(&path, text).expect("it is ours");
    let path = path.to_str().expect("the path is text").to_owned();
    (
        cli::run_alone(dir.path(), &["check", "--config", &path]),
        path,
    )
}

/// Wants the file refused at this place, with all of `words`.
#[track_caller]
fn refused(text: &str, line: usize, column: usize, words: &[&str]) {
    let (output, path) = check(text);
    assert_eq!(output.code, 78, "{text}: {output:?}");
    let place = format!("{path}:{line}:{column}");
    assert!(
        output.stderr.contains(&place),
        "no {place} in {}",
        output.stderr
    );
    let source = text.lines().nth(line - 1).expect("the line is there");
    assert!(
        output.stderr.contains(source),
        "no source line in {}",
        output.stderr
    );
    for word in words {
        assert!(
            output.stderr.contains(word),
            "no {word:?} in {}",
            output.stderr
        );
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    let text = "[pool.web]\nlisten = [\"127.0.0.1:0\"]\nworker = 2\n";
    refused(text, 3, 1, &["worker", "workers"]);
    let text = "[supervisor]\nruntimedir = \"/tmp/x\"\n[pool.web]\nlisten = [\"127.0.0.1:0\"]\n";
    refused(text, 2, 1, &["runtime_dir"]);
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_what_would_be_right() {
    let base = "[pool.web]\nlisten = [\"127.0.0.1:0\"]\n";
    refused(&format!("{base}boot_timeout = 30\n"), 3, 16, &["30s"]);
    refused(
        &format!("{base}max_rss = \"1 elephant\"\n"),
        3,
        11,
        &["elephant"],
    );
    refused(&format!("{base}workers = \"lots\"\n"), 3, 11, &["auto"]);
    refused(
        "[pool.web]\nlisten = [\"localhost\"]\n",
        2,
        11,
        &["localhost"],
    );
}

#[test]
fn broken_toml_is_refused_at_its_place() {
    let (output, path) = check("[pool.web]\nlisten = [\n");
    assert_eq!(output.code, 78, "{output:?}");
    assert!(
        output.stderr.contains(&format!("{path}:2:"))
            || output.stderr.contains(&format!("{path}:3:")),
        "{output:?}"
    );
}

#[test]
fn every_error_of_a_file_is_told_at_once() {
    let text =
        "[pool.web]\nlisten = [\"127.0.0.1:0\"]\nworker = 2\nboot_timeout = 30\nmax_surge = 0\n";
    let (output, path) = check(text);
    assert_eq!(output.code, 78);
    for line in [3, 4, 5] {
        let place = format!("{path}:{line}:");
        assert!(
            output.stderr.contains(&place),
            "no {place} in {}",
            output.stderr
        );
    }
}

#[test]
fn a_program_that_is_not_there_is_refused_before_anything_starts() {
    let text = "[pool.web]\nlisten = [\"127.0.0.1:0\"]\nprogram = [\"/nowhere/shop\"]\n";
    refused(text, 3, 12, &["/nowhere/shop"]);
}

#[test]
fn two_pools_cannot_listen_on_one_address() {
    let text = "[pool.a]\nlisten = [\"127.0.0.1:8080\"]\n[pool.b]\nlisten = [\"0.0.0.0:8080\"]\n";
    refused(text, 4, 11, &["8080"]);
}

#[test]
fn a_good_file_is_summed_up() {
    let text = "[pool.web]\nlisten = [\"127.0.0.1:8080\"]\nworkers = 3\n";
    let (output, _) = check(text);
    assert_eq!(output.code, 0, "{output:?}");
    for word in ["web", "3", "127.0.0.1:8080"] {
        assert!(output.stdout.contains(word), "no {word} in {output:?}");
    }
}

#[test]
fn flags_and_a_file_exclude_each_other() {
    let dir = directory();
    let path = dir.path().join("prefork.toml");
    std::fs::write(&path, "[pool.web]\nlisten = [\"127.0.0.1:0\"]\n").expect("it is ours");
    let path = path.to_str().expect("the path is text");
    let args = ["run", "--config", path, "--workers", "2"];
    let output = cli::run_alone(dir.path(), &args);
    assert_eq!(output.code, 2, "{output:?}");
}

fn listening_at(address: SocketAddr) -> String {
    format!("[supervisor]\nadmin = \"\"\n[pool.web]\nlisten = [\"{address}\"]\n")
}

#[test]
fn a_check_tells_that_an_address_is_in_use_and_by_whom() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    let (output, _) = check(&listening_at(address));
    assert_eq!(output.code, 0, "{output:?}");
    let warning = format!("warning: {address} is in use: ");
    assert!(output.stderr.contains(&warning), "{output:?}");
    assert!(output.stderr.contains(" (pid "), "{output:?}");
}

#[test]
fn a_check_takes_the_running_supervisors_addresses_for_its_own() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let file = prefork.dir().join("another.toml");
    std::fs::write(&file, listening_at(prefork.address("web"))).expect("it is ours");
    let file = file.to_str().expect("the path is text");
    let is_warned = |prefork: &Prefork| {
        let output = prefork.cli(&["check", "--config", file]);
        assert_eq!(output.code, 0, "{output:?}");
        output.stderr.contains("is in use")
    };
    eventually("its own address is not warned of", PATIENCE, || {
        !is_warned(&prefork)
    });
    // Its workers wait for the next one, which is to listen there again.
    prefork.killed();
    assert!(!is_warned(&prefork));
}
