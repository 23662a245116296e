//! Ready, degraded, not ready: the probes, the exit codes and the words agree.

use nix::sys::signal::Signal;
use prefork_api::{Readiness, SlotState};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, http, processes};

/// Kills the worker in the slot, whose successors don't come up. Returns once it is missed.
fn lose(prefork: &Prefork, slot: u32) {
    processes::send(prefork.ready_pid("app", slot), Signal::SIGKILL);
    eventually("the worker is missed", PATIENCE, || {
        prefork.worker("app", slot).state != SlotState::Ready
    });
}

/// Whoever asks how the service is hears this.
#[track_caller]
fn everybody_hears(prefork: &Prefork, readiness: Readiness, sentence: &str) {
    let (probe, health, exit) = match readiness {
        Readiness::Ready => (200, 0, 0),
        Readiness::Degraded => (200, 0, 6),
        Readiness::NotReady => (503, 1, 7),
    };
    let answer = http::get(prefork.admin(), "/readyz").expect("it answers");
    assert_eq!((answer.status, answer.body.trim_end()), (probe, sentence));
    let said = prefork.cli(&["health", "--ready"]);
    assert_eq!(said.code, health, "{said:?}");
    assert!([said.stdout, said.stderr].concat().contains(sentence));
    let status = prefork.cli(&["status", "--exit-code"]);
    assert_eq!(status.code, exit, "{status:?}");
    let headline = status.stdout.lines().next().expect("it has a headline");
    assert!(headline.ends_with(&format!(": {}", readiness.as_str())));
    let document = prefork.status();
    assert_eq!(document.readiness, Some(readiness));
    assert_eq!(document.ready, readiness == Readiness::Ready);
    let page = http::get(prefork.admin(), "/").expect("it answers");
    assert!(page.body.contains(&format!(">{sentence}</h1>")), "{page:?}");
}

#[test]
fn one_of_16_that_crashes_degrades_a_pool_and_all_of_them_end_its_service() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 16), Pool::bundled("web", 1)]);
    everybody_hears(&prefork, Readiness::Ready, "ready");
    prefork.order_boot("app", "exit 1 broken");
    lose(&prefork, 3);
    let short = "degraded: pool app: 15 of 16 workers ready";
    everybody_hears(&prefork, Readiness::Degraded, short);

    for slot in (0..16).filter(|slot| *slot != 3) {
        lose(&prefork, slot);
    }
    let none = "not ready: pool app: 0 of 16 workers ready";
    everybody_hears(&prefork, Readiness::NotReady, none);

    prefork.clear_boot("app");
    prefork.done(&["wait", "--for", "ready"]);
    everybody_hears(&prefork, Readiness::Ready, "ready");
}

#[test]
fn a_pool_needs_the_share_that_its_setting_says() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 4).text("ready", "75%")]);
    prefork.order_boot("app", "exit 1 broken");
    lose(&prefork, 0);
    let short = "degraded: pool app: 3 of 4 workers ready";
    everybody_hears(&prefork, Readiness::Degraded, short);
    lose(&prefork, 1);
    let few = "not ready: pool app: 2 of 4 workers ready, 3 needed";
    everybody_hears(&prefork, Readiness::NotReady, few);
    assert!(prefork.done(&["status"]).contains("2/4 (needed: 3)"));
    let needed = prefork.metric("prefork_workers_needed", &[("pool", "app")]);
    assert!((needed - 3.0).abs() < f64::EPSILON, "{needed}");
}

#[test]
fn another_quorum_is_in_force_without_another_worker() {
    let app = || Pool::test_worker("app", 2);
    let prefork = Prefork::start(&[app()]);
    let pids = prefork.ready_pids("app");
    prefork.configure(&[app().text("ready", "all")]);
    prefork.done(&["reload"]);
    assert_eq!(prefork.pool("app").needed, Some(2));
    assert_eq!(prefork.ready_pids("app"), pids);
}

#[test]
fn who_is_paused_is_not_missed_unless_it_is_everybody() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 2).text("ready", "all")]);
    prefork.done(&["pause", "app/1"]);
    everybody_hears(&prefork, Readiness::Ready, "ready");
    prefork.done(&["wait", "--for", "ready"]);
    assert!(prefork.done(&["status"]).contains("1/2 (paused: 1)"));
    prefork.done(&["pause", "app/0"]);
    let none = "not ready: pool app: 0 of 2 workers ready, 2 paused";
    everybody_hears(&prefork, Readiness::NotReady, none);
    prefork.done(&["resume", "app/1"]);
    everybody_hears(&prefork, Readiness::Ready, "ready");
}
