//! Between the order to stop and the drain: probes hear no, and everybody is served.

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::{Connection, get};
use crate::harness::load::Failure;
use crate::harness::load::mixed::Mixed;
use crate::harness::{Pool, Prefork, processes};

/// A delay that ends within no test.
const LONG: &str = "stop_delay = \"10m\"";

fn start(supervisor: &str) -> Prefork {
    let prefork = Prefork::launch_with(supervisor, &[Pool::service("web", 2)]);
    prefork.wait_until_ready();
    prefork
}

fn told_to_stop(prefork: &Prefork) {
    prefork.signal(Signal::SIGTERM);
    eventually("it is stopping", PATIENCE, || prefork.status().stopping);
}

/// Waits until one more order is not taken for the first one passed on twice.
fn one_more_is_another(prefork: &Prefork) {
    eventually("the first order is a second old", PATIENCE, || {
        let left = prefork.status().drains_in_seconds;
        left.is_some_and(|left| left < 599.0)
    });
}

/// Wants clients to have been served, then refused, and nothing else.
#[track_caller]
fn only_refused(load: Mixed) {
    for (kind, outcomes) in load.stop() {
        let context = format!("{kind:?}: {outcomes:#?}");
        let only = |failure: &Failure| *failure == Failure::Refused;
        assert!(outcomes.failures.keys().all(only), "{context}");
        assert_eq!(outcomes.served_after_refusal, 0, "{context}");
    }
}

#[test]
fn in_the_delay_probes_hear_no_and_all_is_served_and_a_second_order_drains() {
    let mut prefork = start(LONG);
    let load = Mixed::start(prefork.address("web"), 2);
    load.serves(20);
    told_to_stop(&prefork);

    let answer = get(prefork.admin(), "/readyz").expect("it answers");
    assert_eq!((answer.status, answer.body.trim()), (503, "stopping"));
    assert_eq!(prefork.cli(&["health", "--ready"]).code, 1);
    let live = get(prefork.admin(), "/livez").expect("it answers");
    assert_eq!(live.status, 200);
    let shown = prefork.done(&["status"]);
    assert!(shown.contains(": stopping, drains in "), "{shown}");

    // Whoever comes is served, on connections old and new, and stays welcome.
    load.serves(20);
    let mut connection = Connection::open(prefork.address("web")).expect("it listens");
    let answer = connection.get("/").expect("it answers");
    assert_eq!((answer.status, answer.closes()), (200, false));
    // What dies is replaced as before.
    let old = prefork.ready_pid("web", 0);
    prefork.done(&["restart", "web/0"]);
    assert_ne!(prefork.ready_pid("web", 0), old);

    one_more_is_another(&prefork);
    prefork.signal(Signal::SIGTERM);
    eventually("clients of every kind are refused", PATIENCE, || {
        load.all_fail()
    });
    assert_eq!(prefork.exit_code(), 0);
    only_refused(load);
}

#[test]
fn the_delay_ends_by_itself_in_a_drain() {
    let mut prefork = start("stop_delay = \"300ms\"");
    let load = Mixed::start(prefork.address("web"), 2);
    load.serves(20);
    prefork.signal(Signal::SIGTERM);
    eventually("clients of every kind are refused", PATIENCE, || {
        load.all_fail()
    });
    assert_eq!(prefork.exit_code(), 0);
    only_refused(load);
}

#[test]
fn whoever_asks_by_the_socket_waits_for_the_end_and_may_hasten_it() {
    let mut prefork = start(LONG);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| prefork.cli(&["stop"]));
        eventually("it is stopping", PATIENCE, || prefork.status().stopping);
        prefork.done(&["stop"]);
        let first = first.join().expect("it ends");
        assert_eq!(first.code, 0, "{}", first.stderr);
    });
    assert_eq!(prefork.exit_code(), 0);

    let mut prefork = start(LONG);
    prefork.done(&["stop", "--now"]);
    assert_eq!(prefork.exit_code(), 0);
}

#[test]
fn no_other_program_takes_over_in_the_delay_and_the_next_supervisor_is_ready() {
    let mut prefork = start(LONG);
    let workers = prefork.ready_pids("web");
    told_to_stop(&prefork);
    let refused = prefork.cli(&["upgrade"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("a stop is in progress"));

    // The order was this supervisor's: whoever starts another wants to serve.
    prefork.killed();
    assert!(workers.iter().all(|pid| processes::alive(*pid)));
    prefork.ready_again();
    assert!(!prefork.status().stopping);
    assert_eq!(prefork.ready_pids("web"), workers);
}
