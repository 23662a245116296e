//! Programs that do not speak the channel are workers all the same.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use prefork_api::{Exit, ExitReason, SlotState};

use crate::harness::deadline::{PATIENCE, eventually, eventually_some};
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, cli, http, processes};

/// A pool `app` of the plain program with these arguments, behind nothing.
fn behind(args: &[&str]) -> Pool {
    plain(args).without_listeners().text("min_ready", "50ms")
}

fn plain(args: &[&str]) -> Pool {
    let program = cli::example("plain_http");
    let program = program.to_str().expect("the path is text");
    Pool::command("app", &[&[program], args].concat(), 1).set("adapter", "{}")
}

/// Where the process in the slot takes requests.
#[track_caller]
fn upstream(prefork: &Prefork) -> String {
    let worker = prefork.worker("app", 0);
    worker.upstream.expect("it has an address of its own")
}

#[track_caller]
fn socket(prefork: &Prefork) -> PathBuf {
    let upstream = upstream(prefork);
    upstream
        .strip_prefix("unix:")
        .expect("a unix socket")
        .into()
}

/// What the program answers on its own socket.
#[track_caller]
fn page(prefork: &Prefork) -> String {
    http::get_unix(&socket(prefork), "/")
        .expect("it answers")
        .body
}

/// The value of a line of the program's page.
#[track_caller]
fn fact<'a>(page: &'a str, name: &str) -> &'a str {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {name} in {page}"))
}

#[track_caller]
fn program_pid(prefork: &Prefork) -> i32 {
    fact(&page(prefork), "pid").parse().expect("a number")
}

/// How the slot's last process ended.
#[track_caller]
fn last_exit(prefork: &Prefork) -> Exit {
    eventually_some("it has ended", PATIENCE, || {
        prefork.worker("app", 0).last_exit
    })
}

#[test]
fn a_program_that_binds_its_socket_is_ready_when_it_listens() {
    let prefork =
        Prefork::start(&[behind(&["--uds", "{socket}"]).set("env", "{ WHERE = \"at {socket}\" }")]);
    let socket = socket(&prefork);
    let page = page(&prefork);
    assert_eq!(fact(&page, "WHERE"), format!("at {}", socket.display()));
    assert_eq!(fact(&page, "LISTEN_FDS"), "0");
    assert!(!page.contains("PREFORK_CHANNEL_FD"), "{page}");
    assert_eq!(
        fact(&page, "fds"),
        "[0, 1, 2, 3, 4]",
        "its own listener and connection"
    );
    // The process in the slot is the adapter; the program is its child.
    assert_ne!(fact(&page, "pid"), prefork.ready_pid("app", 0).to_string());

    let old = prefork.ready_pid("app", 0);
    prefork.done(&["reload"]);
    let new = prefork.ready_pid("app", 0);
    assert_ne!(new, old);
    eventually("the old one's socket is removed", PATIENCE, || {
        !socket.exists()
    });
    let exit = last_exit(&prefork);
    assert_eq!(exit.signal, Some(15), "as the program ended");
    assert_eq!(exit.reason, ExitReason::Reload, "and as it was asked to");
    let refused = prefork.cli(&["pause", "app/0"]);
    assert_ne!(refused.code, 0, "{refused:?}");
}

/// Whether a program of the machine runs; those that it lacks are skipped aloud.
fn is_there(program: &str) -> bool {
    let there = std::process::Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("SKIPPED: there is no {program} here");
    }
    there
}

#[test]
fn pythons_own_web_server_is_a_worker() {
    if !is_there("/usr/bin/python3") {
        return;
    }
    let words = [
        "/usr/bin/python3",
        "-m",
        "http.server",
        "--bind",
        "{host}",
        "{port}",
    ];
    let pool = Pool::command("app", &words, 1).set("adapter", "{ health = \"http:/\" }");
    let prefork = Prefork::start(&[pool.without_listeners()]);
    let ask = || {
        let mut stream = TcpStream::connect(upstream(&prefork)).expect("it listens");
        // It answers in HTTP/1.0, which the harness does not read.
        write!(stream, "GET / HTTP/1.0\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    };
    ask();
    prefork.done(&["reload"]);
    ask();
}

#[test]
fn a_port_is_the_processes_own() {
    let prefork = Prefork::start(&[behind(&["--port", "{host}:{port}"]).set("workers", 2)]);
    let at = |slot| -> SocketAddr {
        let upstream = prefork.worker("app", slot).upstream.expect("an address");
        upstream.parse().expect("an address with a port")
    };
    assert_ne!(at(0), at(1));
    for slot in 0..2 {
        assert!(at(slot).ip().is_loopback());
        http::get(at(slot), "/").expect("it answers");
    }
}

#[test]
fn a_program_with_a_listener_of_the_pool_inherits_it_as_descriptor_3() {
    let prefork = Prefork::launch_in(
        |dir| fs::write(dir.join("go"), "").expect("writable"),
        &[plain(&["--notify-after", "go", "--fd", "{fd}"])],
    );
    prefork.wait_until_ready();
    let page = http::get(prefork.address("app"), "/")
        .expect("it answers")
        .body;
    assert_eq!(fact(&page, "LISTEN_FDS"), "1");
    assert_eq!(fact(&page, "LISTEN_PID"), fact(&page, "pid"));
    assert_eq!(
        fact(&page, "fds"),
        "[0, 1, 2, 3, 4]",
        "the listener and a connection"
    );
    assert_eq!(prefork.worker("app", 0).upstream, None);
    prefork.done(&["reload"]);
    http::get(prefork.address("app"), "/").expect("its successor answers");
}

#[test]
fn the_adapter_ends_as_its_program_does() {
    let prefork = Prefork::start(&[behind(&["--uds", "{socket}"])]);
    let old = prefork.ready_pid("app", 0);
    let _ = http::get_unix(&socket(&prefork), "/exit/7");
    prefork.replaced("app", 0, old);
    let exit = last_exit(&prefork);
    assert_eq!(
        (exit.code, exit.reason),
        (Some(7), ExitReason::Crash),
        "{exit:?}"
    );

    let old = prefork.ready_pid("app", 0);
    processes::send(program_pid(&prefork), Signal::SIGKILL);
    prefork.replaced("app", 0, old);
    let exit = last_exit(&prefork);
    assert_eq!(
        (exit.signal, exit.reason),
        (Some(9), ExitReason::Signal),
        "{exit:?}"
    );
}

#[test]
fn whatever_the_program_has_started_goes_with_the_adapter() {
    let program = cli::example("plain_http");
    let script = format!(
        "setsid sh -c 'sleep 4711 & exit' & wait; exec {} --uds \"$1\"",
        program.display()
    );
    let pool = Pool::command("app", &["/bin/sh", "-c", &script, "sh", "{socket}"], 1)
        .set("adapter", "{}")
        .without_listeners();
    let prefork = Prefork::start(&[pool]);
    let (adapter, program) = (prefork.ready_pid("app", 0), program_pid(&prefork));
    let sleeper = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\x004711\0")
    };
    let stray = prefork.processes().into_iter().find(sleeper);
    let stray = stray.expect("it has forked away");
    processes::send(adapter, Signal::SIGKILL);
    prefork.replaced("app", 0, adapter);
    eventually("all has gone", PATIENCE, || {
        !processes::alive(program) && !processes::alive(stray)
    });
}

#[test]
fn the_program_outlives_the_supervisor_and_is_adopted() {
    let mut prefork = Prefork::start(&[behind(&["--uds", "{socket}"])]);
    let before = (
        prefork.ready_pid("app", 0),
        program_pid(&prefork),
        upstream(&prefork),
    );
    prefork.killed();
    let socket = PathBuf::from(before.2.strip_prefix("unix:").expect("a unix socket"));
    http::get_unix(&socket, "/").expect("it answers without a supervisor");
    prefork.ready_again();
    let after = (
        prefork.ready_pid("app", 0),
        program_pid(&prefork),
        upstream(&prefork),
    );
    assert_eq!(after, before);
    prefork.done(&["reload"]);
    assert_ne!(program_pid(&prefork), before.1);
}

#[test]
fn a_drain_sends_the_stop_signal() {
    let pool = behind(&["--uds", "{socket}"]).set("adapter", "{ stop_signal = \"QUIT\" }");
    let prefork = Prefork::start(&[pool.set("rlimits", "{ core = 0 }")]);
    prefork.done(&["restart", "app"]);
    assert_eq!(last_exit(&prefork).signal, Some(3));
}

#[test]
fn a_program_that_never_listens_is_told_of_in_words() {
    let pool = behind(&["--deaf", "--uds", "{socket}"]).text("boot_timeout", "1s");
    let mut prefork = Prefork::launch(&[pool]);
    assert_eq!(prefork.exit_code(), 1);
    prefork.logged(&[
        "not ready yet: it neither listens on unix:",
        "nor has said READY=1",
    ]);
}

#[test]
fn only_the_programs_own_tree_may_say_that_it_is_ready() {
    let pool = behind(&["--notify-after", "go", "--uds", "{socket}"]);
    let prefork = Prefork::launch(&[pool.set("adapter", "{ ready = \"notify\" }")]);
    let notify = prefork.runtime_dir().join("upstream/app/0.1.notify");
    eventually("it is told where to say so", PATIENCE, || notify.exists());
    let stranger = UnixDatagram::unbound().expect("a socket");
    // The queue has room for fewer by far, so that the first has been heard by then.
    for _ in 0..2000 {
        stranger.send_to(b"READY=1", &notify).expect("it is sent");
    }
    assert_eq!(prefork.worker("app", 0).state, SlotState::Starting);
    fs::write(prefork.dir().join("go"), "").expect("the directory is writable");
    prefork.wait_until_ready();
    eventually("its words are shown", PATIENCE, || {
        prefork.worker("app", 0).status == "warm"
    });
}

#[test]
fn a_program_that_is_stopped_is_found_and_replaced() {
    let pool = behind(&["--uds", "{socket}"]).text("heartbeat_timeout", "1s");
    let prefork = Prefork::start(&[pool]);
    let (old, program) = (prefork.ready_pid("app", 0), program_pid(&prefork));
    processes::send(program, Signal::SIGSTOP);
    prefork.replaced("app", 0, old);
    let exit = last_exit(&prefork);
    assert_eq!(exit.reason, ExitReason::HeartbeatTimeout, "{exit:?}");
    processes::gone(program);
    prefork.logged(&["its program is not well: it was stopped by a signal"]);
}

#[test]
fn one_command_line_is_a_front_and_the_program_behind_it() {
    let program = cli::example("plain_http");
    let program = program.to_str().expect("the path is text");
    let words = [
        "--admin",
        "127.0.0.1:0",
        "--workers",
        "2",
        "--listen",
        "127.0.0.1:0",
        "--",
        program,
        "--uds",
        "{socket}",
    ];
    let prefork = Prefork::launch_args(&words);
    prefork.wait_until_ready();
    assert_eq!(prefork.pool("app").ready, 2);
    let page = http::get(prefork.address("web"), "/")
        .expect("the front answers")
        .body;
    assert_eq!(fact(&page, "LISTEN_FDS"), "0");
    let load = Load::start(prefork.address("web"), 4);
    load.serves(50);
    prefork.done(&["reload"]);
    load.serves(50);
    load.stop_flawless();
}
