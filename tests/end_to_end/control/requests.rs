//! What a worker is serving can be seen while it serves, over the supervisor's death, and
//! after its own.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::net::SocketAddr;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prefork_api::{ExitReason, RequestStage, Requests, RunningRequest};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::{self, Connection};
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, processes};

/// What nobody waits for to end.
const LONG: [&str; 3] = ["/slow/600001", "/slow/600002", "/slow/600003"];

/// A client's connection that waits for its answer.
fn waiting(address: SocketAddr, path: &str) -> Connection {
    let mut client = Connection::open(address).expect("it listens");
    client.send("GET", path, "").expect("it is taken");
    client
}

fn requests(prefork: &Prefork, args: &[&str]) -> Requests {
    let text = prefork.done(&[&["--output", "json", "requests"], args].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn targets<'a>(requests: impl IntoIterator<Item = &'a RunningRequest>) -> Vec<&'a str> {
    let mut targets: Vec<_> = requests.into_iter().map(|it| it.target.as_str()).collect();
    targets.sort_unstable();
    targets
}

/// Returns when exactly these are shown as being served by the pool.
#[track_caller]
fn shows(prefork: &Prefork, pool: &str, expected: &[&str]) {
    let what = format!("{pool} is shown to serve {expected:?}");
    eventually(&what, PATIENCE, || {
        let shown = requests(prefork, &[pool]);
        let left_out = shown.more + shown.unlisted + shown.silent_workers;
        left_out == 0 && targets(shown.requests.iter().map(|it| &it.request)) == expected
    });
}

#[test]
fn what_a_killed_worker_was_serving_is_known_whoever_died_before() {
    let mut prefork = Prefork::start(&[Pool::service("web", 1)]);
    let address = prefork.address("web");
    let with_query = LONG.map(|path| format!("{path}?token=secret"));
    let _clients = with_query.each_ref().map(|path| waiting(address, path));
    shows(&prefork, "web", &LONG);

    let shown = requests(&prefork, &["web/0"]);
    let pid = prefork.ready_pid("web", 0);
    for it in &shown.requests {
        assert_eq!((it.pool.as_str(), it.slot, it.pid), ("web", 0, pid));
        assert_eq!(it.request.method, "GET");
        assert_eq!(it.request.stage, RequestStage::Working);
        let client = it.request.client.as_deref().unwrap_or_default();
        assert!(client.starts_with("127.0.0.1:"), "{it:?}");
    }
    let table = prefork.done(&["requests"]);
    assert!(table.contains("GET /slow/600001"), "{table}");
    assert!(!table.contains("secret"), "{table}");
    let older = requests(&prefork, &["--older-than", "1h"]);
    assert_eq!(older.requests, []);
    assert_eq!(prefork.cli(&["requests", "nobody"]).code, 4);
    let described = prefork.describe("web", 0).requests;
    let described = described.expect("the worker notes its requests");
    assert_eq!(targets(described.iter().map(|it| &it.request)), LONG);

    prefork.killed();
    prefork.ready_again();
    assert_eq!(prefork.ready_pid("web", 0), pid);
    shows(&prefork, "web", &LONG);

    processes::send(pid, Signal::SIGKILL);
    prefork.logged(&["ended by signal 9", "3 in flight", &pid.to_string()]);
    prefork.replaced("web", 0, pid);
    let exit = prefork.certificate("web", 0, pid);
    assert_eq!(targets(&exit.in_flight), LONG);
    assert_eq!(exit.in_flight_unlisted, 0);
    let words = prefork.done(&["describe", "web/0"]);
    assert!(words.contains("in flight: GET /slow/600001"), "{words}");
    // Who the clients are is not told to everybody.
    let page = http::get(prefork.admin(), "/status.json").expect("it answers");
    assert!(!page.body.contains("/slow/"), "{}", page.body);

    prefork.killed();
    prefork.ready_again();
    let kept = prefork.certificate("web", 0, pid);
    assert_eq!(kept.in_flight, exit.in_flight);
    shows(&prefork, "web", &[]);
}

#[test]
fn a_crash_and_a_hang_leave_what_was_being_served() {
    let hung = Pool::service("hung", 1).text("heartbeat_timeout", "1s");
    let prefork = Prefork::start(&[Pool::service("crashed", 1), hung]);
    let ways = [
        ("crashed", Signal::SIGABRT, ExitReason::Signal),
        ("hung", Signal::SIGSTOP, ExitReason::HeartbeatTimeout),
    ];
    for (pool, signal, reason) in ways {
        let _clients = LONG.map(|path| waiting(prefork.address(pool), path));
        shows(&prefork, pool, &LONG);
        let pid = prefork.ready_pid(pool, 0);
        processes::send(pid, signal);
        let exit = prefork.certificate(pool, 0, pid);
        assert_eq!(exit.reason, reason, "{exit:?}");
        assert_eq!(targets(&exit.in_flight), LONG, "{pool}");
    }
}

/// Deaths of each kind.
const DEATHS: usize = 67;

/// Has a pool's worker die again and again with three requests open.
fn dies_again_and_again(prefork: &Prefork, pool: &str, signal: Signal, reason: ExitReason) {
    for death in 0..DEATHS {
        let _clients = LONG.map(|path| waiting(prefork.address(pool), path));
        shows(prefork, pool, &LONG);
        let pid = prefork.ready_pid(pool, 0);
        processes::send(pid, signal);
        if signal == Signal::SIGSEGV {
            // Of one that no access has raised Rust's own handler only takes itself away.
            eventually("it dies of it", PATIENCE, || {
                // It may have been reaped just now.
                let _ = kill(Pid::from_raw(pid), signal);
                !processes::alive(pid)
            });
        }
        let exit = prefork.certificate(pool, 0, pid);
        assert_eq!(exit.reason, reason, "{exit:?}");
        let named = (targets(&exit.in_flight), exit.in_flight_unlisted);
        assert_eq!(named, (LONG.to_vec(), 0), "{pool}, death {death}");
        prefork.replaced(pool, 0, pid);
    }
}

#[test]
#[ignore = "takes minutes"]
fn in_full_two_hundred_certificates_name_exactly_what_was_in_flight() {
    let hung = Pool::service("hung", 1).text("heartbeat_timeout", "1s");
    let pools = [
        Pool::service("killed", 1),
        Pool::service("crashed", 1),
        hung,
    ];
    let prefork = Prefork::start(&pools);
    std::thread::scope(|scope| {
        for (pool, signal, reason) in [
            ("killed", Signal::SIGKILL, ExitReason::Signal),
            ("crashed", Signal::SIGSEGV, ExitReason::Signal),
            ("hung", Signal::SIGSTOP, ExitReason::HeartbeatTimeout),
        ] {
            let prefork = &prefork;
            scope.spawn(move || dies_again_and_again(prefork, pool, signal, reason));
        }
    });
}

#[test]
fn an_upgrade_goes_on_showing_what_is_served() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    let _client = waiting(prefork.address("web"), LONG[0]);
    shows(&prefork, "web", &LONG[..1]);
    prefork.done(&["upgrade"]);
    shows(&prefork, "web", &LONG[..1]);
}

#[test]
fn what_there_is_no_room_for_is_counted_and_a_query_shown_where_it_is_asked_for() {
    let prefork = Prefork::launch_with(
        "[requests]\ntable = 2\nquery = true",
        &[Pool::service("web", 1)],
    );
    prefork.wait_until_ready();
    let address = prefork.address("web");
    let _first = waiting(address, "/slow/600000?a=b");
    shows(&prefork, "web", &["/slow/600000?a=b"]);
    let _others = [(); 4].map(|()| waiting(address, LONG[0]));
    eventually("the others are counted", PATIENCE, || {
        let shown = requests(&prefork, &[]);
        (shown.requests.len(), shown.unlisted) == (2, 3)
    });
    let pid = prefork.ready_pid("web", 0);
    processes::send(pid, Signal::SIGKILL);
    let exit = prefork.certificate("web", 0, pid);
    assert_eq!((exit.in_flight.len(), exit.in_flight_unlisted), (2, 3));
}

#[test]
fn a_worker_without_a_table_is_told_of_none() {
    let prefork = Prefork::launch_with("[requests]\ntable = 0", &[Pool::service("web", 1)]);
    prefork.wait_until_ready();
    let _client = waiting(prefork.address("web"), LONG[0]);
    eventually("it is in flight", PATIENCE, || {
        prefork.worker("web", 0).in_flight == 1
    });
    let shown = requests(&prefork, &[]);
    assert_eq!((shown.requests.len(), shown.silent_workers), (0, 1));
    assert_eq!(prefork.describe("web", 0).requests, None);
}

#[test]
fn what_is_noted_changes_with_the_reload_that_says_so() {
    let prefork = Prefork::start(&[Pool::service("web", 1)]);
    prefork.append_to_configuration("[requests]\nquery = true\n");
    let told = prefork.done(&["reload", "--dry-run"]);
    let why = "pool web: 1 worker would be replaced: [requests] is another\n";
    assert!(told.contains(why), "{told}");
    prefork.done(&["reload"]);
    let _client = waiting(prefork.address("web"), "/slow/600000?a=b");
    shows(&prefork, "web", &["/slow/600000?a=b"]);
}

/// Writes over a worker's whole table, from outside: the memory is the same as if it did
/// so itself.
#[track_caller]
fn scribble(pid: i32, garbage: impl Fn(usize) -> u8) {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it lives");
    let table = maps
        .lines()
        .find(|line| line.contains("prefork-requests"))
        .unwrap_or_else(|| panic!("{pid} has mapped no table: {maps}"));
    let (range, _) = table.split_once(' ').expect("a range comes first");
    let (from, to) = range.split_once('-').expect("a range has two ends");
    let [from, to] = [from, to].map(|it| u64::from_str_radix(it, 16).expect("hexadecimal"));
    let garbage: Vec<u8> = (0..(to - from) as usize).map(garbage).collect();
    let mut memory = File::options()
        .write(true)
        .open(format!("/proc/{pid}/mem"))
        .expect("it is our descendant");
    memory.seek(SeekFrom::Start(from)).expect("it is a number");
    // Its last page has more room than the table.
    memory.write_all(&garbage).expect("it is mapped");
}

#[test]
fn a_worker_that_scribbles_over_its_table_hurts_nobody() {
    let prefork = Prefork::start(&[Pool::service("odd", 1), Pool::service("web", 1)]);
    let load = Load::start(prefork.address("web"), 2);
    let _client = waiting(prefork.address("web"), LONG[0]);
    eventually("it is shown", PATIENCE, || {
        prefork.done(&["requests"]).contains(LONG[0])
    });
    let odd = prefork.ready_pid("odd", 0);
    let is_harmless = |text: &str| !text.contains(['\x1b', '\u{1}', '\u{202e}']);
    // Of each 256 bytes of an entry the stage is that of one that is served.
    let in_use = |byte: u8| {
        move |at: usize| match at.wrapping_sub(64) % 256 {
            0..8 | 17..20 => 0,
            16 => 2,
            _ => byte,
        }
    };
    let plain = |byte: u8| move |_: usize| byte;
    for byte in [0, 1, 0x1b, 0x80, 0xff] {
        for round in 0..2 {
            match round {
                0 => scribble(odd, plain(byte)),
                _ => scribble(odd, in_use(byte)),
            }
            let table = prefork.done(&["requests"]);
            assert!(is_harmless(&table), "{table:?}");
            assert!(table.contains(LONG[0]), "{table}");
            let shown = requests(&prefork, &["odd"]);
            assert!(shown.requests.len() <= 64, "{shown:?}");
            assert!(is_harmless(&prefork.done(&["describe", "odd/0"])));
        }
    }
    assert_eq!(prefork.ready_pid("odd", 0), odd, "it is no reason to die");
    processes::send(odd, Signal::SIGKILL);
    prefork.replaced("odd", 0, odd);
    let exit = prefork.certificate("odd", 0, odd);
    assert!(exit.in_flight.len() <= 16, "{exit:?}");
    load.serves(20);
    load.stop_flawless();
}
