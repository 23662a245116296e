//! The supervisor is killed; its workers serve on, and the next supervisor takes
//! them over.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_api::ExitReason;

use crate::harness::deadline::{eventually, eventually_some};
use crate::harness::http::get;
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork, processes};

const SOON: Duration = Duration::from_secs(20);

/// How often what is random is repeated.
fn rounds(usual: u32, full: u32) -> u32 {
    if std::env::var_os("PREFORK_TEST_FULL").is_some() {
        full
    } else {
        usual
    }
}

/// Every counter by its series, without those that live as long as a process.
fn counters(prefork: &Prefork) -> BTreeMap<String, f64> {
    let page = prefork.scrape();
    let lines = page.text().lines().filter(|line| !line.starts_with('#'));
    let samples = lines.filter_map(|line| line.rsplit_once(' '));
    samples
        .filter(|(series, _)| {
            let name = series.split('{').next().unwrap_or(series);
            ["_total", "_bucket", "_count"]
                .iter()
                .any(|suffix| name.ends_with(suffix))
        })
        .map(|(series, value)| (series.to_owned(), value.parse().expect("a number")))
        .collect()
}

#[test]
fn no_connection_breaks_and_no_counter_runs_backwards_when_the_supervisor_is_killed() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let load = Load::start(prefork.address("web"), 8);
    let workers = prefork.ready_pids("web");
    for _ in 0..rounds(3, 50) {
        load.serves(50);
        let before = counters(&prefork);
        prefork.killed();
        load.serves(50);
        prefork.ready_again();
        assert_eq!(prefork.ready_pids("web"), workers);
        let after = counters(&prefork);
        for (series, value) in before {
            assert!(after[&series] >= value, "{series} was {value}");
        }
    }
    load.stop_flawless();
    assert!(prefork.log().contains("adopted 2 workers"));
}

#[test]
fn adopted_workers_take_orders_and_are_replaced_when_they_die() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    prefork.killed();
    prefork.ready_again();
    let old = prefork.ready_pid("web", 0);
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("web", 0, old);
    let exit = &prefork.describe("web", 0).exits[0];
    // It was nobody's child here, and the kernel tells nevertheless.
    assert_eq!(exit.reason, ExitReason::Signal, "{exit:?}");
    assert_eq!(exit.signal, Some(9), "{exit:?}");
    prefork.done(&["scale", "web", "3"]);
    prefork.done(&["restart", "web"]);
    assert_eq!(prefork.pool("web").ready, 3);
    prefork.done(&["reload", "--force"]);
    prefork.done(&["stop"]);
    assert_eq!(prefork.exit_code(), 0);
}

#[test]
fn a_kill_at_any_moment_of_a_reload_leaves_one_generation_that_serves() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 2).text("min_ready", "50ms")]);
    let load = Load::start(prefork.address("web"), 4);
    for seed in 0..rounds(4, 200) {
        let mut random = fastrand::Rng::with_seed(seed.into());
        prefork.done(&["reload", "--force", "--no-wait"]);
        // Not to wait for anything: this is the moment itself.
        std::thread::sleep(Duration::from_millis(random.u64(0..400)));
        prefork.killed();
        prefork.ready_again();
        eventually("one generation serves", SOON, || {
            let status = prefork.status();
            let workers = &status.pools[0].workers;
            status.pools[0].ready == 2
                && workers.len() == 2
                && workers
                    .iter()
                    .all(|worker| worker.generation == Some(status.generation))
        });
    }
    load.stop_flawless();
}

#[test]
fn a_worker_that_hangs_at_that_moment_is_replaced_and_the_others_serve() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let load = Load::start(prefork.address("web"), 1);
    load.serves(10);
    load.stop_flawless();
    let (hung, other) = (prefork.ready_pid("web", 0), prefork.ready_pid("web", 1));
    processes::send(hung, Signal::SIGSTOP);
    prefork.killed();
    prefork.ready_again();
    assert_ne!(prefork.ready_pid("web", 0), hung);
    assert_eq!(prefork.ready_pid("web", 1), other);
    processes::gone(hung);
}

#[test]
fn a_worker_that_dies_with_the_supervisor_is_replaced() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let (dead, other) = (prefork.ready_pid("web", 0), prefork.ready_pid("web", 1));
    processes::send(dead, Signal::SIGKILL);
    prefork.killed();
    prefork.ready_again();
    assert_ne!(prefork.ready_pid("web", 0), dead);
    assert_eq!(prefork.ready_pid("web", 1), other);
}

#[test]
fn a_worker_that_has_only_just_come_up_is_known_to_the_next_supervisor() {
    let mut prefork = Prefork::start(&[Pool::service("web", 1)]);
    let address = prefork.address("web");
    let pid = || {
        let page = get(address, "/").ok()?.body;
        let (_, rest) = page.split_once("pid ")?;
        rest.split(' ').next()?.parse::<i32>().ok()
    };
    for _ in 0..rounds(5, 50) {
        let old = prefork.ready_pid("web", 0);
        processes::send(old, Signal::SIGKILL);
        // The connection waits in the listener's queue until the successor takes it.
        let new = eventually_some("it serves", SOON, || pid().filter(|new| *new != old));
        prefork.killed();
        prefork.ready_again();
        assert_eq!(prefork.ready_pid("web", 0), new);
    }
}

#[test]
fn when_everyone_is_killed_the_start_is_clean_and_the_counters_go_on() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 2)]);
    let starts = |prefork: &Prefork| prefork.metric("prefork_worker_starts_total", &[]);
    assert_eq!(starts(&prefork), 2.0);
    let workers = prefork.ready_pids("web");
    prefork.killed();
    for worker in &workers {
        processes::send(*worker, Signal::SIGKILL);
    }
    eventually("they are gone", SOON, || {
        workers.iter().all(|pid| !processes::alive(*pid))
    });
    prefork.ready_again();
    assert_eq!(starts(&prefork), 4.0);
    prefork.logged(&["its counters go on"]);
}

#[test]
fn a_state_that_is_cut_short_is_moved_aside_and_the_start_is_clean() {
    let mut prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let old = prefork.ready_pid("web", 0);
    prefork.killed();
    let state = prefork.runtime_dir().join("state.json");
    let text = fs::read(&state).unwrap();
    fs::write(&state, &text[..text.len() / 2]).unwrap();
    prefork.ready_again();
    assert_ne!(prefork.ready_pid("web", 0), old);
    assert!(prefork.runtime_dir().join("state.json.bad").exists());
    prefork.logged(&["is not used", "damaged"]);
    eventually("the old worker leaves", SOON, || !processes::alive(old));
}

#[test]
fn a_stranger_at_the_door_is_refused_and_counted() {
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let mut door = UnixStream::connect(prefork.runtime_dir().join("rejoin.sock")).unwrap();
    door.set_read_timeout(Some(SOON)).unwrap();
    let rejoin = concat!(
        r#"{"type":"rejoin","protocol":1,"secret":"guess","pid":1,"pool":"web","slot":0,"#,
        r#""generation":1,"incarnation":1,"program":"p","version":"1","listeners":0,"#,
        r#""state":"ready"}"#,
        "\n"
    );
    door.write_all(rejoin.as_bytes()).unwrap();
    let mut answer = String::new();
    door.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"refused\""), "{answer}");
    eventually("it is counted", SOON, || {
        let reason = [("reason", "secret")];
        prefork.metric("prefork_rejoins_refused_total", &reason) == 1.0
    });
}
