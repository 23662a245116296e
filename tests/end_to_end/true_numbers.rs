//! Numbers that would say something else than what is so: a limit below what a program
//! needs is no leak, and what nobody counts is not zero.

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork, processes};

#[test]
fn a_worker_that_is_over_its_limit_at_birth_is_said_once_and_not_recycled() {
    let pool = Pool::bundled("app", 1).text("max_rss", "1MiB");
    let prefork = Prefork::start(&[pool]);
    let pid = prefork.ready_pid("app", 0);
    let line = prefork.logged(&["app/0", "from the beginning", "max_rss is"]);
    assert!(line.contains("WARN"), "{line}");
    // Its memory is looked at once a second.
    eventually("it has been looked at", PATIENCE, || {
        let uptime = prefork.worker("app", 0).uptime_seconds;
        uptime.is_some_and(|uptime| uptime > 5.0)
    });
    assert_eq!(prefork.ready_pid("app", 0), pid);
    assert_eq!(prefork.log().matches("from the beginning").count(), 1);
    let recycled = [("pool", "app"), ("reason", "max_rss")];
    assert_eq!(prefork.metric("prefork_worker_exits_total", &recycled), 0.0);
}

#[test]
fn a_worker_that_counts_no_http_has_no_totals_rather_than_none_served() {
    let prefork = Prefork::launch(&[Pool::test_worker("app", 1), Pool::bundled("web", 1)]);
    prefork.order_boot("app", "uncounted");
    prefork.wait_until_ready();
    let old = prefork.ready_pid("app", 0);
    prefork.done(&["restart", "app"]);
    prefork.replaced("app", 0, old);
    let has = |pool: &str, name: &str| {
        !prefork
            .scrape()
            .matching(name, &[("pool", pool)])
            .is_empty()
    };
    for name in [
        "prefork_http_requests_total",
        "prefork_http_connections_accepted_total",
        "prefork_http_request_duration_seconds_count",
    ] {
        assert!(has("web", name), "{name}");
        assert!(!has("app", name), "{name}");
    }
    assert!(has("app", "prefork_worker_up"));
    let described = prefork.done(&["describe", "app/0"]);
    assert!(
        described.contains("lived") && !described.contains("served"),
        "{described}"
    );
    assert_eq!(prefork.describe("app", 0).exits[0].served(), None);
    let line = prefork.logged(&["app/0", "exited with code"]);
    assert!(!line.contains("requests"), "{line}");
    assert_eq!(prefork.worker("app", 0).requests, None);
    assert_eq!(prefork.worker("web", 0).requests, Some(0));
}

#[test]
fn what_a_worker_will_count_is_not_known_before_it_has_said_hello() {
    let prefork = Prefork::launch(&[
        Pool::command("mute", &["/bin/sleep", "600"], 1).text("boot_timeout", "10m"),
        Pool::bundled("web", 1),
    ]);
    prefork.logged(&["web/0", "ready after"]);
    eventually("it has been started", PATIENCE, || {
        prefork.worker("mute", 0).pid.is_some()
    });
    assert_eq!(prefork.worker("mute", 0).requests, None);
    let scrape = prefork.scrape();
    let family = "prefork_http_requests_total";
    assert!(!scrape.matching(family, &[("pool", "web")]).is_empty());
    assert!(scrape.matching(family, &[("pool", "mute")]).is_empty());
    // One that died without a word has served nobody knows what.
    processes::send(
        prefork.worker("mute", 0).pid.expect("it runs"),
        Signal::SIGKILL,
    );
    eventually("its certificate is written", PATIENCE, || {
        !prefork.describe("mute", 0).exits.is_empty()
    });
    assert_eq!(prefork.describe("mute", 0).exits[0].served(), None);
}
