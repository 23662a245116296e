//! The control socket under strain, and commands to the workers themselves.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use prefork_api::{SlotState, Status, TellOutcome, TellReply};
use serde_json::Value;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::{self, Connection};
use crate::harness::{Pool, Prefork, cli, processes};

/// Opens a new connection for each of at least `number` requests, `per_second`, until 50
/// workers were killed, and gives what failed.
fn connections(prefork: &Prefork, number: u32, per_second: u32, killed: &AtomicU32) -> Vec<String> {
    let socket = prefork.control_socket();
    let pace = Duration::from_secs(1) / per_second;
    let began = Instant::now();
    (0..20 * number)
        .take_while(|index| *index < number || killed.load(Ordering::Relaxed) < 50)
        .filter_map(|index| {
            let due = began + pace * index;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            match http::get_unix(&socket, "/v1/status") {
                Ok(answer) if answer.status == 200 && is_whole(&answer.body) => None,
                Ok(answer) => Some(format!("status {}: {}", answer.status, answer.body)),
                Err(error) => Some(error.to_string()),
            }
        })
        .collect()
}

/// Whether it is all of a status. Reading every one in full would cost the
/// machine more than making them does.
fn is_whole(body: &str) -> bool {
    body.starts_with("{\"schema\":1,") && body.trim_end().ends_with("]}")
}

#[test]
fn two_hundred_connections_a_second_are_answered_while_50_workers_crash() {
    let pool = Pool::test_worker("app", 50)
        .text("backoff_initial", "10ms")
        .text("backoff_max", "100ms");
    let prefork = Prefork::start(&[pool]);
    let over = AtomicBool::new(false);
    let killed = AtomicU32::new(0);
    let (failures, took) = std::thread::scope(|scope| {
        scope.spawn(|| crash_all_the_time(&prefork, &over, &killed));
        let began = Instant::now();
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| connections(&prefork, 250, 50, &killed)))
            .collect();
        let failures: Vec<String> = clients
            .into_iter()
            .flat_map(|client| client.join().expect("clients don't panic"))
            .collect();
        let took = began.elapsed();
        over.store(true, Ordering::Relaxed);
        (failures, took)
    });
    let killed = killed.into_inner();
    assert!(
        failures.is_empty(),
        "{} failed: {failures:#?}",
        failures.len()
    );
    println!("the connections in {took:?} while {killed} workers were killed");
    assert!(killed >= 50, "only {killed} workers were killed");
    prefork.done(&["wait", "--for", "ready"]);
    eventually("every death is counted", PATIENCE, || {
        let crashes = prefork.metric("prefork_worker_exits_total", &[("reason", "signal")]);
        crashes >= f64::from(killed)
    });
}

/// Kills one worker after another, every slot's in turn, and counts them.
fn crash_all_the_time(prefork: &Prefork, over: &AtomicBool, killed: &AtomicU32) {
    for slot in (0..50).cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let worker = prefork.worker("app", slot);
        if let (SlotState::Ready, Some(pid)) = (worker.state, worker.pid) {
            processes::send(pid, Signal::SIGKILL);
            killed.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The replies of `tell --output json`, in whichever JSON they are wrapped.
#[track_caller]
pub(crate) fn replies(stdout: &str) -> Vec<TellReply> {
    let mut found = Vec::new();
    for value in serde_json::Deserializer::from_str(stdout).into_iter::<Value>() {
        let value = value.unwrap_or_else(|error| panic!("{error} in {stdout}"));
        let rows = match value {
            Value::Array(rows) => rows,
            row => vec![row],
        };
        found.extend(
            rows.into_iter()
                .filter_map(|row| serde_json::from_value(row).ok()),
        );
    }
    found
}

#[test]
fn tell_reaches_every_worker_and_says_which_one_stayed_silent() {
    let prefork = Prefork::start(&[Pool::bundled("web", 4)]);
    let stopped = prefork.ready_pid("web", 2);
    processes::send(stopped, Signal::SIGSTOP);

    let args = [
        "--timeout",
        "2s",
        "--output",
        "json",
        "tell",
        "web",
        "echo",
        "{\"n\":7}",
    ];
    let told = prefork.cli(&args);
    assert_eq!(told.code, 5, "{told:?}");
    let replies = replies(&told.stdout);
    assert_eq!(replies.len(), 4, "{told:?}");
    for reply in replies {
        if reply.slot == 2 {
            assert_eq!(reply.outcome, TellOutcome::Timeout);
            assert_eq!(reply.pid, Some(stopped));
        } else {
            assert_eq!(reply.outcome, TellOutcome::Ok, "{reply:?}");
            assert_eq!(reply.data["n"], 7);
        }
    }

    processes::send(stopped, Signal::SIGCONT);
    assert_eq!(prefork.ready_pid("web", 2), stopped);
    let told = prefork.done(&["tell", "web", "status"]);
    for slot in 0..4 {
        assert!(told.contains(&format!("web/{slot}")), "{told}");
    }
}

#[test]
fn tell_says_what_a_worker_refused() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 2)]);
    let failed = prefork.cli(&["tell", "app", "fail"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    let said = failed.stdout + &failed.stderr;
    assert!(said.contains("failed as it was told to"), "{said}");
    let unknown = prefork.cli(&["tell", "app/1", "dance"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    let said = unknown.stdout + &unknown.stderr;
    assert!(said.contains("no command dance"), "{said}");
}

#[test]
fn every_way_to_the_status_shows_the_same_shape() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let cli = prefork.done(&["--output", "json", "status"]);
    let socket = http::get_unix(&prefork.control_socket(), "/v1/status").expect("it answers");
    let admin = http::get(prefork.admin(), "/status.json").expect("it answers");
    for text in [&cli, &socket.body, &admin.body] {
        let status: Status = serde_json::from_str(text).expect("it is a status");
        assert_eq!((status.schema, status.pid), (1, prefork.pid()));
        assert!(status.ready);
        assert_eq!(status.pools[0].workers.len(), 2);
    }
}

#[test]
fn curl_can_speak_to_the_control_socket() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let mut connection = Connection::open_unix(&prefork.control_socket()).expect("it listens");
    let scaled = connection
        .ask("POST", "/v1/pools/web/scale", "{\"workers\":2}")
        .expect("it answers");
    assert_eq!(scaled.status, 200, "{scaled:?}");
    let last = scaled
        .body
        .lines()
        .last()
        .expect("a job ends with its result");
    let result: Value = serde_json::from_str(last).expect("a job speaks JSON lines");
    assert_eq!(result["type"], "result");
    assert_eq!(result["ok"], true, "{result}");
    assert_eq!(prefork.pool("web").ready, 2);

    for (method, path, body, status) in [
        ("GET", "/v1/nothing", "", 404),
        ("POST", "/v1/pools/nope/scale", "{\"workers\":2}", 404),
        ("POST", "/v1/pools/web/scale", "{\"workers\":", 400),
        ("POST", "/v1/pools/web/scale", "{\"wokers\":2}", 400),
        ("POST", "/v1/status", "{}", 405),
        ("POST", "/v1/workers/web/77/kill", "{}", 404),
    ] {
        let mut connection = Connection::open_unix(&prefork.control_socket()).expect("it listens");
        let answer = connection.ask(method, path, body).expect("it answers");
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        let error: Value = serde_json::from_str(&answer.body).expect("errors are JSON");
        assert!(error["message"].is_string(), "{method} {path}: {error}");
    }
}

#[test]
fn every_command_leaves_an_audit_line_and_a_count() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let counted = |family: &str| prefork.metric(family, &[("command", "scale")]);
    prefork.done(&["scale", "web", "2"]);
    prefork.logged(&["scale", "uid", "pid"]);
    assert_eq!(counted("prefork_control_commands_total"), 1.0);
    assert_eq!(counted("prefork_control_command_failures_total"), 0.0);
    assert_eq!(prefork.cli(&["scale", "nope", "2"]).code, 4);
    assert_eq!(counted("prefork_control_commands_total"), 2.0);
    assert_eq!(counted("prefork_control_command_failures_total"), 1.0);
}

#[test]
fn a_client_that_goes_away_does_not_cancel_its_command() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 1)]);
    prefork.order_boot("app", "slow 1000");
    let mut connection = Connection::open_unix(&prefork.control_socket()).expect("it listens");
    connection
        .send("POST", "/v1/pools/app/scale", "{\"workers\":3}")
        .expect("it is sent");
    eventually("the command has been taken", PATIENCE, || {
        prefork.pool("app").desired == 3
    });
    drop(connection);
    eventually("it is carried out", PATIENCE, || {
        prefork.pool("app").ready == 3
    });
}

#[test]
fn clients_that_send_nothing_do_not_keep_others_out() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let idle: Vec<_> = (0..100)
        .map(|_| Connection::open_unix(&prefork.control_socket()).expect("it listens"))
        .collect();
    prefork.done(&["--timeout", "5s", "status"]);
    assert_eq!(idle.len(), 100);
    let idle: Vec<_> = (0..100)
        .map(|_| Connection::open(prefork.admin()).expect("it listens"))
        .collect();
    prefork.scrape();
    assert_eq!(idle.len(), 100);
}

#[test]
fn events_tell_what_happened_in_order() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let old = prefork.ready_pid("web", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("web", 0, old);
    let lines = prefork.done(&["--output", "json", "events"]);
    let events: Vec<prefork_api::Event> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert!(events.windows(2).all(|two| two[0].seq < two[1].seq));
    let exit = events.iter().find(|event| event.kind == "exit");
    let exit = exit.unwrap_or_else(|| panic!("no exit in {lines}"));
    assert_eq!(exit.pid, Some(old));
    assert_eq!(exit.exit.as_ref().and_then(|exit| exit.signal), Some(9));
    let ready = events.iter().filter(|event| event.kind == "ready").count();
    assert!(ready >= 2, "{lines}");
}

#[test]
fn output_is_plain_and_may_be_cut_short() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let mut command = std::process::Command::new("/bin/sh");
    let script =
        "\"$0\" --runtime-dir \"$1\" status; \"$0\" --runtime-dir \"$1\" metrics | head -n 1";
    command
        .args(["-c", script])
        .arg(cli::binary())
        .arg(prefork.runtime_dir())
        .env_remove("NO_COLOR");
    let output = cli::finish(&mut command, PATIENCE);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    assert!(output.stdout.contains("web/1"), "{output:?}");
    assert!(output.stdout.contains("# HELP"), "{output:?}");
    assert!(
        !output.stdout.contains('\u{1b}'),
        "colours in a pipe: {output:?}"
    );
}

/// Runs a script of the shell: `$0` is prefork, `$1` its runtime directory.
fn shell(prefork: &Prefork, script: &str) -> cli::Output {
    let mut command = std::process::Command::new("/bin/sh");
    command
        .args(["-c", script])
        .arg(cli::binary())
        .arg(prefork.runtime_dir());
    cli::finish(&mut command, PATIENCE)
}

#[test]
fn who_follows_ends_when_nobody_reads_on() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    for command in ["events --follow", "--output json status --watch"] {
        // Nothing happens meanwhile that would be written to the closed pipe.
        let script = format!("\"$0\" --runtime-dir \"$1\" {command} | head -n 1");
        let output = shell(&prefork, &script);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
        assert_eq!(output.stdout.lines().count(), 1, "{output:?}");
    }
}

#[test]
fn a_jobs_end_decides_the_exit_code_also_when_nobody_reads_on() {
    let prefork = Prefork::start(&[Pool::test_worker("app", 2)]);
    let orders = [
        ("tell app no-such-command", 1),
        ("--output json tell app no-such-command", 1),
        ("--output json restart app", 0),
        ("--output json reload", 0),
    ];
    for (order, code) in orders {
        let script =
            format!("{{ \"$0\" --runtime-dir \"$1\" {order}; echo \"code $?\" >&2; }} | head -n 0");
        let output = shell(&prefork, &script);
        let end = output.stderr.lines().last().map(str::to_owned);
        assert_eq!(end, Some(format!("code {code}")), "{order}: {output:?}");
    }
}
