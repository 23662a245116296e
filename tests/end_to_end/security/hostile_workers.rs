//! Workers that break the rules: each breach has a counted, logged reason,
//! costs the supervisor nothing and disturbs no other worker.

use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_api::{Exit, ExitReason};
use serde_json::json;

use crate::harness::deadline::{PATIENCE, eventually, eventually_some};
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, processes};

/// How much the supervisor may grow while it is attacked: its own buffers and
/// the allocator's slack, far less than what is thrown at it.
const GROWTH: u64 = 8 << 20;

/// A pool that misbehaves beside one that serves.
fn hostile_and_good() -> Prefork {
    let hostile = Pool::test_worker("odd", 1)
        .text("heartbeat_timeout", "1s")
        .text("boot_timeout", "2s");
    Prefork::start(&[hostile, Pool::bundled("web", 2)])
}

/// The reasons in `family` that have been counted for the hostile pool.
fn counted(prefork: &Prefork, family: &str) -> Vec<(String, f64)> {
    let scrape = prefork.scrape();
    let mut counted: Vec<(String, f64)> = scrape
        .matching(family, &[("pool", "odd")])
        .iter()
        .filter(|sample| sample.value > 0.0)
        .map(|sample| (sample.labels["reason"].clone(), sample.value))
        .collect();
    counted.sort_by(|a, b| a.0.cmp(&b.0));
    counted
}

/// Gives the order and wants the worker ended as a breaker of the protocol,
/// with `reason` counted once among the decode errors.
#[track_caller]
fn ends_for(prefork: &Prefork, order: &[u8], reason: &str) {
    let decode_errors = || {
        let family = "prefork_channel_decode_errors_total";
        prefork.metric(family, &[("pool", "odd"), ("reason", reason)])
    };
    let old = prefork.ready_pid("odd", 0);
    let before = decode_errors();
    prefork.order("odd", 0, order);
    prefork.replaced("odd", 0, old);

    let shown = String::from_utf8_lossy(&order[..order.len().min(60)]).into_owned();
    assert_eq!(decode_errors(), before + 1.0, "{shown}: {reason}");
    let exit = prefork.certificate("odd", 0, old);
    assert_eq!(exit.reason, ExitReason::ProtocolError, "{shown}: {exit:?}");
    assert!(!exit.detail.is_empty(), "{shown}: no rule in {exit:?}");
    prefork.logged(&[&old.to_string(), &exit.detail]);
}

#[test]
fn each_malformed_message_ends_its_sender_for_a_counted_and_logged_reason() {
    let prefork = hostile_and_good();
    let load = Load::start(prefork.address("web"), 2);
    let resident = processes::resident_bytes(prefork.pid());
    let attacks: &[(&[u8], &str)] = &[
        (b"write this is no JSON\n", "not_json"),
        (b"write \xff\xfe\xfd\n", "not_utf8"),
        (b"write [1,2,3]\n", "not_object"),
        (b"write {\"id\":1}\n", "no_type"),
        (
            b"write {\"type\":\"health\",\"seq\":\"many\"}\n",
            "bad_field",
        ),
        (
            b"write {\"type\":\"reply\",\"id\":-1,\"ok\":true}\n",
            "bad_field",
        ),
        (b"long 1048576", "too_long"),
        (b"descriptors 1", "fds_unclaimed"),
        (b"descriptors 20", "fds_truncated"),
    ];
    for (order, reason) in attacks {
        ends_for(&prefork, order, reason);
        load.serves(20);
    }
    let errors = prefork.metric(
        "prefork_worker_exits_total",
        &[("reason", "protocol_error")],
    );
    assert_eq!(
        errors,
        f64::from(u32::try_from(attacks.len()).expect("few"))
    );
    let rejected = prefork.metric("prefork_channel_fds_rejected_total", &[("pool", "odd")]);
    assert!(rejected >= 2.0, "{rejected}");
    load.stop_flawless();
    let grown = processes::resident_bytes(prefork.pid()).saturating_sub(resident);
    assert!(grown < GROWTH, "the supervisor grew by {grown} bytes");
}

#[test]
fn messages_out_of_order_end_their_sender() {
    let prefork = hostile_and_good();
    let load = Load::start(prefork.address("web"), 2);
    let hello = json!({"type": "hello", "protocol": 1, "pid": 1, "program": "odd", "version": "1"});
    let second_hello = format!("write {hello}\n");
    let reply = "write {\"type\":\"reply\",\"id\":987654321,\"ok\":true}\n";
    for (order, reason) in [
        (second_hello.as_str(), "out_of_order"),
        ("write {\"type\":\"ready\"}\n", "out_of_order"),
        ("write {\"type\":\"drained\"}\n", "out_of_order"),
        (reply, "bad_reply"),
    ] {
        ends_for(&prefork, order.as_bytes(), reason);
    }
    load.stop_flawless();
}

#[test]
fn a_hello_that_lies_or_comes_late_is_a_protocol_error() {
    let prefork = hostile_and_good();
    let load = Load::start(prefork.address("web"), 2);
    let hello = |protocol: u32, pid: i32| {
        let hello = json!({"type": "hello", "protocol": protocol, "pid": pid,
            "program": "odd", "version": "1"});
        format!("write {hello}\n")
    };
    let lies = [
        (hello(1, 1), "says pid 1,"),
        (hello(1, -1), "says pid -1,"),
        (hello(77, 1), "protocol 77"),
        (
            "write {\"type\":\"ready\"}\n".to_owned(),
            "ready out of order: hello must come first",
        ),
        (
            "write {\"type\":\"drained\"}\n".to_owned(),
            "drained out of order: hello must come first",
        ),
    ];
    for (order, rule) in lies {
        let good = prefork.ready_pid("odd", 0);
        let buried = || prefork.describe("odd", 0).exits;
        let before: Vec<i32> = buried().iter().map(|exit| exit.pid).collect();
        prefork.order_boot("odd", &order);
        processes::send(good, Signal::SIGKILL);
        let exit = eventually_some(rule, PATIENCE, || {
            let told = |exit: &Exit| exit.detail.contains(rule) && !before.contains(&exit.pid);
            buried().into_iter().find(told)
        });
        assert_eq!(exit.reason, ExitReason::ProtocolError, "{exit:?}");
        prefork.clear_boot("odd");
        prefork.ready_pid("odd", 0);
    }
    let reason = [("pool", "odd"), ("reason", "protocol_error")];
    let errors = prefork.metric("prefork_worker_exits_total", &reason);
    assert!(errors >= 5.0, "{errors}");
    load.stop_flawless();
}

#[test]
fn a_flood_neither_blocks_the_supervisor_nor_makes_it_grow() {
    let prefork = hostile_and_good();
    let load = Load::start(prefork.address("web"), 2);
    let received = || {
        let family = "prefork_channel_messages_received_total";
        prefork.metric(family, &[("pool", "odd"), ("kind", "health")])
    };
    let before = received();
    let resident = processes::resident_bytes(prefork.pid());
    let old = prefork.ready_pid("odd", 0);
    eventually("a flood is counted", PATIENCE, || {
        // A starved worker's is none, so there is one after the other.
        prefork.order("odd", 0, "flood 3000");
        let family = "prefork_channel_decode_errors_total";
        prefork.metric(family, &[("pool", "odd"), ("reason", "flood")]) >= 1.0
    });
    prefork.logged(&["odd/0", &old.to_string(), "too many messages"]);
    // Whether it is endured or ended: operators are heard and others serve.
    for _ in 0..20 {
        prefork.done(&["--timeout", "5s", "status"]);
        load.serves(5);
    }
    assert!(received() > before + 500.0, "the flood was no flood");
    prefork.ready_pid("odd", 0);
    load.stop_flawless();
    let grown = processes::resident_bytes(prefork.pid()).saturating_sub(resident);
    assert!(grown < GROWTH, "the supervisor grew by {grown} bytes");
}

#[test]
fn a_silent_worker_is_replaced_for_its_silence() {
    let prefork = hostile_and_good();
    let old = prefork.ready_pid("odd", 0);
    prefork.order("odd", 0, "silent");
    prefork.replaced("odd", 0, old);
    let exit = prefork.certificate("odd", 0, old);
    assert_eq!(exit.reason, ExitReason::HeartbeatTimeout);
    prefork.logged(&["odd/0", "heartbeat"]);
}

#[test]
fn a_worker_that_never_reads_is_treated_as_hung_though_it_reports() {
    let prefork = hostile_and_good();
    let old = prefork.ready_pid("odd", 0);
    prefork.order("odd", 0, "deaf");
    prefork.replaced("odd", 0, old);
    let exit = prefork.certificate("odd", 0, old);
    assert_eq!(exit.reason, ExitReason::HeartbeatTimeout, "{exit:?}");
}

#[test]
fn what_waits_for_a_worker_that_never_reads_is_bounded() {
    let pools = [
        Pool::test_worker("odd", 1).text("heartbeat_timeout", "60s"),
        Pool::bundled("web", 2),
    ];
    let prefork = Prefork::start(&pools);
    let load = Load::start(prefork.address("web"), 2);
    let resident = processes::resident_bytes(prefork.pid());
    prefork.order("odd", 0, "deaf");
    let long = json!("x".repeat(40_000)).to_string();
    let full = || {
        let family = "prefork_channel_send_errors_total";
        prefork.metric(family, &[("pool", "odd"), ("reason", "queue_full")])
    };
    // What the socket takes and what the queue takes, then no more.
    let mut told = 0;
    while full() == 0.0 {
        told += 1;
        assert!(told <= 40, "40 long messages wait for a deaf worker");
        let output = prefork.cli(&["--timeout", "200ms", "tell", "odd/0", "echo", &long]);
        assert!([1, 5].contains(&output.code), "it has answered: {output:?}");
    }
    let queue = prefork.metric("prefork_channel_send_queue_bytes", &[("pool", "odd")]);
    assert!(queue <= 262_144.0, "{queue}");
    load.serves(20);
    load.stop_flawless();
    let grown = processes::resident_bytes(prefork.pid()).saturating_sub(resident);
    assert!(grown < GROWTH, "the supervisor grew by {grown} bytes");
}

#[test]
fn a_worker_that_hangs_up_while_it_lives_is_replaced() {
    let prefork = Prefork::start(&[Pool::test_worker("odd", 1)]);
    let old = prefork.ready_pid("odd", 0);
    prefork.order("odd", 0, "hang-up");
    prefork.replaced("odd", 0, old);
    eventually("the old one is gone", PATIENCE, || !processes::alive(old));
    // Its last words are waited for before its certificate is made out.
    let exit = prefork.certificate("odd", 0, old);
    assert_eq!(exit.reason, ExitReason::ProtocolError);
}

#[test]
fn an_unknown_message_is_counted_and_forgiven() {
    let prefork = hostile_and_good();
    let pid = prefork.ready_pid("odd", 0);
    let unknown = || {
        let family = "prefork_channel_messages_received_total";
        prefork.metric(family, &[("pool", "odd"), ("kind", "unknown")])
    };
    prefork.order("odd", 0, "write {\"type\":\"from_the_future\",\"id\":7}\n");
    eventually("it is counted", PATIENCE, || unknown() == 1.0);
    let newer = json!({"type": "health", "seq": 1, "in_flight": 0, "connections": 0,
        "loop_lag_us": 0, "a_field_from_the_future": {"n": 1}});
    prefork.order("odd", 0, format!("write {newer}\n"));
    let told = prefork.done(&["tell", "odd/0", "who"]);
    assert!(told.contains(&pid.to_string()), "{told}");
    let errors = counted(&prefork, "prefork_channel_decode_errors_total");
    assert_eq!(errors, [("unknown_type".to_owned(), 1.0)]);
    assert_eq!(prefork.ready_pid("odd", 0), pid);
}

#[test]
fn an_endless_line_is_one_entry_is_read_on_and_kept_small() {
    let script = "yes 'an endless line of output' | tr -d '\\n' >&2 & exec \"$0\"";
    let worker = crate::harness::cli::example("test_worker");
    let worker = worker.to_str().expect("the path is text");
    let noisy = Pool::command("odd", &["/bin/sh", "-c", script, worker], 1);
    let prefork = Prefork::start(&[noisy, Pool::bundled("web", 1)]);
    let load = Load::start(prefork.address("web"), 1);
    let resident = processes::resident_bytes(prefork.pid());
    let left_out = || {
        let metric = "prefork_worker_output_dropped_bytes_total";
        prefork.metric(metric, &[("pool", "odd")])
    };
    eventually("four MiB are read", Duration::from_secs(60), || {
        left_out() > f64::from(4 << 20)
    });
    prefork.logged(&["an endless line of output", "[cut: a line is logged"]);
    let log = prefork.log();
    let entries = log.matches("[cut: a line is logged").count();
    assert_eq!(entries, 1);
    assert!(log.len() < 1 << 20, "{} bytes are logged", log.len());
    prefork.done(&["--timeout", "5s", "status"]);
    load.stop_flawless();
    let grown = processes::resident_bytes(prefork.pid()).saturating_sub(resident);
    assert!(grown < GROWTH, "the supervisor grew by {grown} bytes");
}
