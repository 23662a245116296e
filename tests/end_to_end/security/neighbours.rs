//! Others on the same machine: what is theirs is left alone, and what is
//! another supervisor's is not taken from it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::cli::Output;
use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http;
use crate::harness::load::mixed::Mixed;
use crate::harness::{Mode, Pool, Prefork};

/// Starts a second supervisor of the first one's configuration, with more flags.
#[track_caller]
fn second_run(prefork: &Prefork, flags: &[&str]) -> Output {
    let config = prefork.dir().join("prefork.toml");
    let config = config.to_str().expect("the path is text");
    prefork.cli(&[&["run", "--config", config], flags].concat())
}

/// Whether whoever connects to the path is greeted by our own server there.
fn greets(path: &Path, server: &UnixListener) -> bool {
    let Ok(mut client) = UnixStream::connect(path) else {
        return false;
    };
    // Others may have looked whether somebody listens, and left.
    while {
        let (mut served, _) = server.accept().expect("somebody has connected");
        served.write_all(b"hello").is_err()
    } {}
    let mut said = String::new();
    client.read_to_string(&mut said).expect("it is closed");
    said == "hello"
}

/// Another server takes the path, as one does that replaces the file.
fn take_path(path: &Path) -> UnixListener {
    fs::remove_file(path).expect("there is a socket");
    UnixListener::bind(path).expect("the path is free")
}

#[test]
fn a_supervisor_whose_lock_file_was_removed_is_left_in_peace() {
    let prefork = Prefork::start(&[Pool::service("web", 2)]);
    let load = Mixed::start(prefork.address("web"), 1);
    load.serves(10);
    let workers = prefork.ready_pids("web");
    let run = prefork.runtime_dir();
    let names = |files: &[&str]| files.iter().map(|it| run.join(it)).collect::<Vec<_>>();
    // As cleaners do: the oldest file, or all that looks like one.
    for removed in [names(&["lock"]), names(&["lock", "state.json"])] {
        for file in removed {
            let _ = fs::remove_file(file);
        }
        let refused = second_run(&prefork, &[]);
        assert_eq!(refused.code, 1, "{refused:?}");
        let words = format!("another supervisor (pid {}) runs on", prefork.pid());
        assert!(refused.stderr.contains(&words), "{refused:?}");
        assert_eq!(prefork.ready_pids("web"), workers);
        load.serves(10);
    }
    load.stop_flawless();
}

#[test]
fn a_run_that_fails_takes_nothing_with_it() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    let worker = prefork.ready_pid("web", 0);
    let run = prefork.runtime_dir();
    let files = fs::read_dir(&run).expect("it is there");
    for file in files.flatten().filter(|file| file.path().is_file()) {
        fs::remove_file(file.path()).expect("it is ours");
    }
    let refused = second_run(&prefork, &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("another supervisor"), "{refused:?}");
    assert_eq!(prefork.ready_pid("web", 0), worker);
    prefork.done(&["reload"]);
}

#[test]
fn a_supervisor_that_stops_leaves_the_control_socket_of_another() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let path = prefork.control_socket();
    let server = take_path(&path);
    prefork.signal(Signal::SIGTERM);
    assert_eq!(prefork.exit_code(), 0);
    assert!(greets(&path, &server));
}

#[test]
fn a_path_that_another_server_has_bound_meanwhile_is_left_to_it() {
    let pool = |file: &str| Pool::service("web", 2).set("listen", format!("[\"unix:./{file}\"]"));
    let mut prefork = Prefork::start(&[pool("web.sock")]);
    let path = prefork.dir().join("web.sock");

    // By a reload that takes the listener away,
    let server = take_path(&path);
    prefork.configure(&[pool("other.sock")]);
    prefork.done(&["reload"]);
    assert!(greets(&path, &server));
    // by a supervisor that took over from another and stops,
    let path = prefork.dir().join("other.sock");
    prefork.killed();
    let server = take_path(&path);
    prefork.ready_again();
    prefork.signal(Signal::SIGTERM);
    assert_eq!(prefork.exit_code(), 0);
    assert!(greets(&path, &server));
}

#[test]
fn a_path_that_somebody_listens_at_is_not_taken_from_him() {
    let pool = |file: &str| Pool::service("web", 1).set("listen", format!("[\"unix:./{file}\"]"));
    let prefork = Prefork::start(&[pool("web.sock")]);
    let path = prefork.dir().join("taken.sock");
    let server = UnixListener::bind(&path).expect("the path is free");
    prefork.configure(&[pool("taken.sock")]);
    let refused = prefork.cli(&["reload"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let words = format!("pid {}", std::process::id());
    assert!(refused.stderr.contains(&words), "{refused:?}");
    assert!(greets(&path, &server));
}

#[test]
fn who_holds_an_address_is_named() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = holder.local_addr().expect("it is bound").port();
    for host in ["127.0.0.1", "0.0.0.0"] {
        let listen = format!("[\"{host}:{port}\"]");
        prefork.configure(&[Pool::service("web", 1).set("listen", listen)]);
        let refused = prefork.cli(&["reload"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        let words = format!("(pid {})", std::process::id());
        assert!(refused.stderr.contains(&words), "{refused:?}");
        let us = fs::read_to_string("/proc/self/comm").expect("we live");
        assert!(refused.stderr.contains(us.trim()), "{refused:?}");
    }
}

#[test]
fn a_second_instance_on_the_same_port_is_refused_with_a_listener_each_as_well() {
    for mode in Mode::ALL {
        let prefork = Prefork::start(&[Pool::service("web", 2).mode(mode)]);
        let address = prefork.address("web");
        let load = Mixed::start(address, 1);
        load.serves(10);
        let listen = format!(
            "[{{ address = \"{address}\", mode = {:?} }}]",
            mode.as_str()
        );
        prefork.configure(&[Pool::service("web", 2).set("listen", listen)]);
        let other = prefork.dir().join("other-run");
        let other = other.to_str().expect("the path is text");
        let refused = second_run(&prefork, &["--runtime-dir", other]);
        assert_eq!(refused.code, 1, "{mode:?}: {refused:?}");
        let words = format!("cannot listen on {address}");
        assert!(refused.stderr.contains(&words), "{mode:?}: {refused:?}");
        load.serves(10);
        load.stop_flawless();
        // The pool itself may still grow.
        prefork.done(&["scale", "web", "4"]);
        eventually("the new slots serve", PATIENCE, || {
            http::get(address, "/")
                .expect("it serves")
                .body
                .contains("slot 3")
        });
    }
}
