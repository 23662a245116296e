//! A worker that prints without end fills no disk, and is said once.

use std::time::{Duration, Instant};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork};

#[test]
fn of_a_worker_that_prints_without_end_a_bounded_part_is_logged_and_the_rest_counted() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1), Pool::bundled("web", 1)]);
    let line = "x".repeat(4000);
    let order = format!("start exec timeout 60 yes {line}");
    let before = prefork.log().len();
    prefork.order("app", 0, order);
    let dropped = || {
        let metric = "prefork_worker_output_dropped_bytes_total";
        prefork.metric(metric, &[("pool", "app")])
    };
    let began = Instant::now();
    eventually("what is dropped is counted", 2 * PATIENCE, || {
        dropped() > 1_000_000.0 || began.elapsed() > PATIENCE
    });
    let most_in = |time: Duration| (8.0 + time.as_secs_f64()) * 1024.0 * 1024.0;
    let logged = prefork.log().len() - before;
    if dropped() == 0.0 && (logged as f64) < most_in(began.elapsed()) {
        eprintln!("SKIPPED: a machine this busy reads less than may be logged: {logged} bytes");
        return;
    }
    assert!(dropped() > 0.0, "{logged} bytes are logged");
    // Only now: to look through a log of megabytes again and again starves what writes it.
    prefork.logged(&["app/0", "prints more than is logged"]);
    let output = prefork.cli(&["--timeout", "10s", "status"]);
    assert_eq!(output.code, 0, "{output:?}");
    // 8 MiB at once, and 1 MiB each second of the waits above.
    let log = prefork.log();
    let most = (8 + 70) * 1024 * 1024;
    assert!(log.len() - before < most, "{} bytes", log.len() - before);
    let said = log.matches("prints more than is logged").count();
    assert_eq!(said, 1);
}
