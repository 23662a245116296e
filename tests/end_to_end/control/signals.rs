//! What a signal is taken for: an order, the same order again, or none.

use std::fs;
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http;
use crate::harness::{Pool, Prefork};

#[test]
fn two_orders_to_stop_at_once_are_one_and_the_first_says_what_the_next_will_do() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let mut prefork = Prefork::start(&[Pool::service("web", 1)]);
        let address = prefork.address("web");
        let slow = thread::spawn(move || http::get(address, "/slow/2000"));
        eventually("it is in flight", PATIENCE, || {
            prefork.worker("web", 0).in_flight == 1
        });
        prefork.signal(Signal::SIGTERM);
        prefork.logged(&[
            "asked to stop by SIGTERM",
            "draining 1 request; again ends them",
        ]);
        prefork.signal(second);
        prefork.logged(&[
            "asked to stop by",
            second.as_str(),
            "that is the same order",
        ]);
        let answer = slow.join().expect("it asks").expect("it is answered");
        assert_eq!(answer.status, 200);
        assert_eq!(prefork.exit_code(), 0);
    }
}

#[test]
fn a_later_order_to_stop_ends_what_is_in_flight() {
    let pool = Pool::service("web", 1).text("drain_timeout", "10m");
    let mut prefork = Prefork::start(&[pool]);
    let address = prefork.address("web");
    let slow = thread::spawn(move || http::get(address, "/slow/600000"));
    eventually("it is in flight", PATIENCE, || {
        prefork.worker("web", 0).in_flight == 1
    });
    prefork.signal(Signal::SIGTERM);
    prefork.logged(&["draining 1 request"]);
    eventually("one more ends it", PATIENCE, || {
        prefork.has_ended() || {
            prefork.signal(Signal::SIGTERM);
            false
        }
    });
    prefork.logged(&["asked to stop again by SIGTERM", "ending 1 request"]);
    slow.join().expect("it asks").expect_err("it was cut");
    assert_eq!(prefork.processes(), Vec::<i32>::new());
}

#[test]
fn an_ignored_hangup_stays_ignored() {
    let script = "trap '' HUP; exec \"$@\"";
    let prefork = Prefork::launch_by_script(script, "", &[Pool::bundled("web", 1)]);
    prefork.wait_until_ready();
    prefork.logged(&["SIGHUP is ignored", "prefork reload"]);
    prefork.signal(Signal::SIGHUP);
    prefork.signal(Signal::SIGTTIN);
    eventually("what came later is heard", PATIENCE, || {
        prefork.pool("web").desired == 2
    });
    prefork.done(&["wait", "--for", "ready"]);
    assert_eq!(prefork.metric("prefork_config_reloads_total", &[]), 0.0);
    // Also after another program has taken its place.
    prefork.done(&["upgrade"]);
    prefork.signal(Signal::SIGHUP);
    prefork.done(&["reload"]);
    assert_eq!(prefork.status().generation, 2);
}

#[test]
fn a_limit_of_file_sizes_is_an_error_like_any_other() {
    // Two blocks of 512 bytes: the state has no room, nor has an access log.
    let script = "ulimit -f 2; exec \"$@\"";
    let log = "access_log.log";
    let pool = Pool::bundled("web", 2).set("access_log", format!("{{ path = {log:?} }}"));
    let mut prefork = Prefork::launch_by_script(script, "", &[pool]);
    prefork.wait_until_ready();
    prefork.logged(&["cannot write", "state.json", "File too large"]);
    prefork.logged(&["what it serves will not be shown", "File too large"]);
    let workers = prefork.ready_pids("web");
    let address = prefork.address("web");
    for _ in 0..50 {
        assert_eq!(http::get(address, "/").expect("it is served").status, 200);
    }
    let written = || fs::metadata(prefork.dir().join(log)).map_or(0, |it| it.len());
    eventually("the log is full", PATIENCE, || written() > 900);
    assert_eq!(prefork.ready_pids("web"), workers);
    prefork.signal(Signal::SIGTERM);
    assert_eq!(prefork.exit_code(), 0);
}
