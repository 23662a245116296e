//! What Prometheus sees.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::exposition::Exposition;
use crate::harness::http;
use crate::harness::{Pool, Prefork, processes};

/// Families by type, without their prefix.
const COUNTERS: &[&str] = &[
    "channel_messages_sent_total",
    "channel_messages_received_total",
    "channel_sent_bytes_total",
    "channel_received_bytes_total",
    "channel_fds_sent_total",
    "channel_fds_received_total",
    "channel_fds_rejected_total",
    "channel_decode_errors_total",
    "channel_send_errors_total",
    "channel_heartbeats_missed_total",
    "worker_starts_total",
    "worker_exits_total",
    "worker_cpu_seconds_total",
    "http_requests_total",
    "http_connections_accepted_total",
    "http_received_bytes_total",
    "http_sent_bytes_total",
    "config_reloads_total",
    "config_reload_failures_total",
    "upgrades_total",
    "upgrade_failures_total",
    "supervisor_state_write_failures_total",
    "control_commands_total",
    "control_command_failures_total",
];
const GAUGES: &[&str] = &[
    "channel_up",
    "channel_send_queue_bytes",
    "channel_last_heartbeat_timestamp_seconds",
    "worker_state",
    "worker_up",
    "worker_pid",
    "worker_generation",
    "worker_start_time_seconds",
    "worker_restart_backoff_seconds",
    "worker_resident_memory_bytes",
    "worker_open_fds",
    "worker_loop_lag_seconds",
    "http_requests_in_flight",
    "http_connections_active",
    "build_info",
    "workers_desired",
    "config_last_reload_successful",
    "config_last_reload_success_timestamp_seconds",
];
const HISTOGRAMS: &[&str] = &[
    "channel_round_trip_seconds",
    "worker_boot_duration_seconds",
    "worker_drain_duration_seconds",
    "http_request_duration_seconds",
    "supervisor_loop_lag_seconds",
];

/// The supervisor's own, under the names that every process exports.
const PROCESS: &[&str] = &[
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

#[test]
fn every_family_is_there_from_the_first_scrape() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let scrape = prefork.scrape();
    let families = [
        (COUNTERS, "counter", ""),
        (GAUGES, "gauge", ""),
        (HISTOGRAMS, "histogram", "_count"),
    ];
    for (names, kind, suffix) in families {
        for name in names {
            let family = format!("prefork_{name}");
            assert_eq!(scrape.type_of(&family), Some(kind), "{family}");
            let samples = scrape.matching(&format!("{family}{suffix}"), &[]);
            assert!(!samples.is_empty(), "{family} has no sample");
        }
    }
    for name in PROCESS {
        // A young supervisor may not have used a hundredth of a second yet.
        let least = if name.contains("cpu") { 0.0 } else { 1.0 };
        assert!(scrape.sum(name, &[]) >= least, "{name}");
    }
}

#[test]
fn every_label_value_is_there_with_zero_before_it_is_needed() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let scrape = prefork.scrape();
    for slot in ["0", "1"] {
        for reason in [
            "crash",
            "signal",
            "heartbeat_timeout",
            "protocol_error",
            "oom",
        ] {
            let labels = [("pool", "web"), ("slot", slot), ("reason", reason)];
            assert_eq!(scrape.sum("prefork_worker_exits_total", &labels), 0.0);
        }
        for class in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
            let labels = [("pool", "web"), ("slot", slot), ("code_class", class)];
            assert_eq!(scrape.sum("prefork_http_requests_total", &labels), 0.0);
        }
        let ready = [("slot", slot), ("state", "ready")];
        assert_eq!(scrape.sum("prefork_worker_state", &ready), 1.0);
        let any = [("slot", slot)];
        assert_eq!(
            scrape.sum("prefork_worker_state", &any),
            1.0,
            "one state at a time"
        );
        assert_eq!(
            scrape.label_values("prefork_worker_state", "state").len(),
            7
        );
    }
    for command in ["scale", "restart", "tell", "stop"] {
        let labels = [("command", command)];
        assert_eq!(scrape.sum("prefork_control_commands_total", &labels), 0.0);
    }
}

#[test]
fn no_label_holds_a_process_id() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let pid = prefork.ready_pid("web", 0).to_string();
    let scrape = prefork.scrape();
    for sample in scrape.samples() {
        assert!(
            !sample.labels.values().any(|value| *value == pid),
            "{sample:?}"
        );
        for label in ["pid", "generation", "incarnation"] {
            assert!(!sample.labels.contains_key(label), "{sample:?}");
        }
    }
}

#[test]
fn promtool_has_nothing_to_say() {
    let mut promtool = match Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(promtool) => promtool,
        Err(error) => {
            eprintln!("SKIPPED: promtool cannot be run ({error}); it comes with prometheus");
            return;
        }
    };
    let prefork = Prefork::start(&[
        Pool::bundled("web", 2),
        Pool::test_worker("app", 2),
        Pool::test_worker("other", 1),
    ]);
    // One name, and other labels and buckets.
    for (pool, labels, bounds) in [
        ("app", r#"{"till":"1"}"#, "[1.0,1]"),
        ("other", "{}", "[5.0,1]"),
    ] {
        let report = format!(
            r#"write {{"type":"metrics","seq":1,"families":[{{"name":"jobs_total","help":"Jobs.","type":"counter","series":[{{"labels":{labels},"value":3.0}}]}},{{"name":"job_seconds","help":"Times.","type":"histogram","series":[{{"buckets":[{bounds}],"sum":0.5,"count":1}}]}}]}}"#
        );
        prefork.order(pool, 0, report + "\n");
        eventually("it is exported", PATIENCE, || {
            prefork.metric("job_seconds_count", &[("pool", pool)]) == 1.0
        });
    }
    let old = prefork.ready_pid("web", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("web", 0, old);
    let scrape = prefork.scrape();
    let mut stdin = promtool.stdin.take().expect("stdin is piped");
    stdin
        .write_all(scrape.text().as_bytes())
        .expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_admin_address_answers_probes_and_refuses_the_rest() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let admin = prefork.admin();
    let metrics = http::get(admin, "/metrics").expect("it answers");
    let kind = metrics.header("content-type").expect("it has a type");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/", 200),
        ("/nope", 404),
    ] {
        assert_eq!(
            http::get(admin, path).expect("it answers").status,
            status,
            "{path}"
        );
    }
    let mut connection = http::Connection::open(admin).expect("it listens");
    let posted = connection
        .ask("POST", "/metrics", "{}")
        .expect("it answers");
    assert_eq!(posted.status, 405);

    prefork.done(&["pause", "web/0"]);
    let unready = http::get(admin, "/readyz").expect("it answers");
    assert_eq!(unready.status, 503, "{unready:?}");
    assert!(
        unready.body.contains("web"),
        "says what is missing: {unready:?}"
    );
    assert_eq!(http::get(admin, "/livez").expect("it answers").status, 200);
}

#[test]
fn the_admin_address_answers_while_every_worker_hangs() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    for slot in 0..2 {
        processes::send(prefork.ready_pid("web", slot), Signal::SIGSTOP);
    }
    assert_eq!(
        http::get(prefork.admin(), "/livez")
            .expect("it answers")
            .status,
        200
    );
    assert!(prefork.metric("prefork_worker_up", &[]) >= 1.0);
    prefork.done(&["--timeout", "5s", "status"]);
}

#[test]
fn the_channel_is_measured() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let web = |name: &str| prefork.metric(name, &[("pool", "web"), ("slot", "0")]);
    // Its scoreboard, its request table, its listener, the reading ends of what it prints to,
    // and, once it is ready, the way on for its connections.
    eventually("all are sent", PATIENCE, || {
        web("prefork_channel_fds_sent_total") == 6.0
    });
    let kinds = [
        "welcome",
        "scoreboard",
        "requests",
        "listener",
        "start",
        "passage",
    ];
    for kind in kinds {
        let sent = "prefork_channel_messages_sent_total";
        assert_eq!(prefork.metric(sent, &[("kind", kind)]), 1.0, "{kind}");
    }
    let received = "prefork_channel_messages_received_total";
    assert_eq!(prefork.metric(received, &[("kind", "hello")]), 1.0);
    eventually("reports and pings go on", PATIENCE, || {
        prefork.metric(received, &[("kind", "health")]) >= 3.0
            && web("prefork_channel_round_trip_seconds_count") >= 1.0
    });
    assert!(web("prefork_channel_last_heartbeat_timestamp_seconds") > 1e9);
    assert_eq!(web("prefork_channel_up"), 1.0);
    let channels = prefork.done(&["channels"]);
    assert!(channels.contains("web/0"), "{channels}");
}

#[test]
fn counters_outlive_their_workers_and_their_slots() {
    let prefork = Prefork::start(&[Pool::bundled("web", 3)]);
    let address = prefork.address("web");
    for _ in 0..30 {
        crate::http::serving::pid_on_page(address);
    }
    let requests = || prefork.metric("prefork_http_requests_total", &[("code_class", "2xx")]);
    eventually("they are counted", PATIENCE, || requests() == 30.0);
    prefork.done(&["scale", "web", "1"]);
    assert_eq!(requests(), 30.0);
    prefork.done(&["restart", "web"]);
    assert_eq!(requests(), 30.0);
    prefork.done(&["scale", "web", "3"]);
    assert_eq!(requests(), 30.0);
    assert_eq!(
        prefork.metric("prefork_workers_desired", &[("pool", "web")]),
        3.0
    );
}

/// The head of the answer to somebody who takes gzip, and its bytes.
fn scrape_by_gzip(admin: SocketAddr) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(admin).expect("it listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("it is an option");
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\
        Accept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    stream
        .write_all(request.as_bytes())
        .expect("it takes requests");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let blank = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let body = answer.split_off(blank.expect("a head has an end") + 4);
    let head = String::from_utf8(answer).expect("a head is text");
    (head.to_ascii_lowercase(), body)
}

#[test]
fn who_takes_gzip_gets_the_same_metrics_in_a_fraction_of_the_bytes() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    for _ in 0..7 {
        crate::http::serving::pid_on_page(prefork.address("web"));
    }
    eventually("they are counted", PATIENCE, || {
        prefork.metric("prefork_http_requests_total", &[]) == 7.0
    });
    let (head, compressed) = scrape_by_gzip(prefork.admin());
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for line in [
        "content-encoding: gzip",
        "content-type: text/plain; version=0.0.4",
        "vary: accept, accept-encoding",
        &format!("content-length: {}", compressed.len()),
    ] {
        assert!(head.contains(line), "no {line} in {head}");
    }
    let mut text = String::new();
    let inflated = GzDecoder::new(compressed.as_slice()).read_to_string(&mut text);
    inflated.expect("it is gzip, whole and with its checksum");
    let plain = prefork.scrape();
    assert!(
        compressed.len() * 4 < text.len(),
        "{} bytes",
        compressed.len()
    );
    let inflated = Exposition::parse(&text);
    // Time goes on between the two, so that not every value can be the same.
    let series = |scrape: &Exposition| -> Vec<String> {
        let samples = scrape.samples().iter();
        samples
            .map(|sample| format!("{}{:?}", sample.name, sample.labels))
            .collect()
    };
    assert_eq!(series(&inflated), series(&plain));
    for name in ["prefork_http_requests_total", "prefork_worker_pid"] {
        assert_eq!(inflated.matching(name, &[]), plain.matching(name, &[]));
    }
}
