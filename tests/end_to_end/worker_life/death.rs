//! Workers die and hang; each death is found, explained, counted and made good.

use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_api::ExitReason;

use crate::harness::deadline::eventually;
use crate::harness::{Pool, Prefork, processes};
use crate::http::serving::pid_on_page;

fn exits(prefork: &Prefork, reason: &str) -> f64 {
    prefork.metric("prefork_worker_exits_total", &[("reason", reason)])
}

#[test]
fn a_killed_worker_is_replaced_and_its_certificate_says_how_it_died() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let address = prefork.address("web");
    for _ in 0..5 {
        pid_on_page(address);
    }
    eventually("the requests are reported", Duration::from_secs(10), || {
        prefork.worker("web", 0).requests == Some(5)
    });
    let old = prefork.ready_pid("web", 0);
    processes::send(old, Signal::SIGKILL);
    let new = prefork.replaced("web", 0, old);

    assert_eq!(pid_on_page(address), new);
    let exit = prefork.certificate("web", 0, old);
    assert_eq!(exit.reason, ExitReason::Signal);
    assert_eq!((exit.signal, exit.code), (Some(9), None));
    assert_eq!((exit.requests, exit.incarnation), (5, 1));
    assert!(exit.uptime_seconds > 0.0, "{exit:?}");
    assert!(exit.peak_memory_bytes > 0, "{exit:?}");
    assert_eq!(exits(&prefork, "signal"), 1.0);
    assert_eq!(prefork.worker("web", 0).restarts, 1);

    let words = prefork.done(&["describe", "web/0"]);
    assert!(words.contains("signal"), "{words}");
    assert!(words.contains(&old.to_string()), "{words}");
}

#[test]
fn requests_that_a_killed_worker_served_stay_counted() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let address = prefork.address("web");
    let requests = || prefork.metric("prefork_http_requests_total", &[("code_class", "2xx")]);
    for round in 1..=3 {
        for _ in 0..4 {
            pid_on_page(address);
        }
        let wanted = f64::from(round) * 4.0;
        eventually("they are counted", Duration::from_secs(10), || {
            requests() == wanted
        });
        let old = prefork.ready_pid("web", 0);
        processes::send(old, Signal::SIGKILL);
        prefork.replaced("web", 0, old);
        assert_eq!(requests(), wanted);
    }
}

#[test]
fn a_stopped_worker_is_found_by_its_heartbeat_timeout_and_replaced() {
    let pool = Pool::bundled("web", 2).text("heartbeat_timeout", "1s");
    let prefork = Prefork::start(&[pool]);
    let old = prefork.ready_pid("web", 1);
    processes::send(old, Signal::SIGSTOP);
    prefork.replaced("web", 1, old);

    let exit = prefork.certificate("web", 1, old);
    assert_eq!(exit.reason, ExitReason::HeartbeatTimeout);
    assert_eq!(exit.signal, Some(9));
    // As the supervisor saw it: at the first look when that second was over, and
    // on a busy machine later. In whole milliseconds, so "1s" is an answer too.
    let silent = exit.detail.strip_prefix("was silent for ");
    let seconds = silent.and_then(|it| it.split_once('s')?.0.parse().ok());
    assert!(seconds.is_some_and(|it: f64| it >= 1.0), "{exit:?}");
    assert_eq!(exits(&prefork, "heartbeat_timeout"), 1.0);
    let missed = "prefork_channel_heartbeats_missed_total";
    assert!(prefork.metric(missed, &[("slot", "1")]) >= 1.0);
    assert!(!processes::alive(old));
}

#[test]
fn a_stopped_worker_can_leave_a_core_of_what_hangs() {
    // SIGABRT stays pending while a process is stopped, so this one is silent instead.
    let pool = Pool::test_worker("app", 1)
        .text("heartbeat_timeout", "1s")
        .set("dump_on_hang", true);
    let prefork = Prefork::start(&[pool]);
    let old = prefork.ready_pid("app", 0);
    prefork.order("app", 0, "silent");
    prefork.replaced("app", 0, old);
    let exit = prefork.certificate("app", 0, old);
    assert_eq!(exit.reason, ExitReason::HeartbeatTimeout);
    assert_eq!(exit.signal, Some(6), "{exit:?}");
}

#[test]
fn a_crash_is_told_with_its_exit_code_and_its_last_words() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    let old = prefork.ready_pid("app", 0);
    prefork.order("app", 0, "exit 3 the disk is on fire");
    prefork.replaced("app", 0, old);

    let exit = prefork.certificate("app", 0, old);
    assert_eq!((exit.reason, exit.code), (ExitReason::Crash, Some(3)));
    assert!(exit.stderr.contains("the disk is on fire"), "{exit:?}");
    assert_eq!(exits(&prefork, "crash"), 1.0);
    prefork.logged(&["the disk is on fire", &old.to_string()]);
}

#[test]
fn a_worker_that_leaves_unasked_with_zero_is_replaced_too() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    let old = prefork.ready_pid("app", 0);
    prefork.order("app", 0, "exit 0 no more work");
    prefork.replaced("app", 0, old);
    let exit = prefork.certificate("app", 0, old);
    assert_eq!((exit.reason, exit.code), (ExitReason::Clean, Some(0)));
}

#[test]
fn an_aborting_worker_is_a_death_by_signal() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    let old = prefork.ready_pid("app", 0);
    prefork.order("app", 0, "abort");
    prefork.replaced("app", 0, old);
    let exit = prefork.certificate("app", 0, old);
    assert_eq!((exit.reason, exit.signal), (ExitReason::Signal, Some(6)));
}

#[test]
fn the_last_ten_certificates_are_kept_newest_first() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    let mut dead = Vec::new();
    for _ in 0..12 {
        let old = prefork.ready_pid("app", 0);
        processes::send(old, Signal::SIGKILL);
        prefork.replaced("app", 0, old);
        dead.push(old);
    }
    dead.reverse();
    let kept = prefork.describe("app", 0).exits;
    let kept: Vec<i32> = kept.iter().map(|exit| exit.pid).collect();
    assert_eq!(kept, dead[..10]);
}

#[test]
fn a_grandchild_that_holds_the_channel_hides_no_death() {
    // The shell's child inherits stdout and stderr and outlives it.
    let script = "sleep 60 & exec \"$0\" \"$1\"";
    let worker = crate::harness::cli::example("test_worker");
    let orders = crate::harness::directory();
    let program = [
        "/bin/sh",
        "-c",
        script,
        worker.to_str().expect("the path is text"),
        orders.path().to_str().expect("the path is text"),
    ];
    let prefork = Prefork::start(&[Pool::command("app", &program, 1)]);
    let old = prefork.ready_pid("app", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("app", 0, old);
    let exit = prefork.certificate("app", 0, old);
    assert_eq!(exit.signal, Some(9));
}
