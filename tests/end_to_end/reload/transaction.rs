//! Reloads that succeed: what they change, who waits for whom, and what stays.

use std::net::{SocketAddr, TcpListener, TcpStream};

use nix::sys::signal::Signal;
use prefork_api::{JobLine, JobResult};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::{self, Connection};
use crate::harness::load::mixed::Mixed;
use crate::harness::{Mode, Pool, Prefork, processes};

/// The body of `GET /`.
fn page(address: SocketAddr) -> String {
    let answer = http::get(address, "/").expect("the page is served");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    free.local_addr().expect("it is bound")
}

fn listen(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("{addresses:?}")
}

#[test]
fn a_reload_replaces_every_worker_and_says_which_generation_is_in_force() {
    let prefork = Prefork::start(&[Pool::service("web", 3)]);
    let before = prefork.ready_pids("web");
    let output = prefork.cli(&["reload", "--force"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(output.stdout, "generation 2 is in force\n");
    for slot in 0..3 {
        let words = format!("web/{slot}:");
        assert!(output.stderr.contains(&words), "no progress: {output:?}");
    }
    let after = prefork.ready_pids("web");
    assert!(before.iter().all(|pid| !after.contains(pid)));
    assert!(page(prefork.address("web")).contains("generation 2"));

    let status = prefork.status();
    let last = status.last_reload.expect("there was one");
    assert!(last.ok, "{last:?}");
    assert_eq!((last.generation, status.generation), (2, 2));
    eventually("the old ones are gone", PATIENCE, || {
        !before.iter().any(|pid| processes::alive(*pid))
    });
    eventually("they are counted", PATIENCE, || {
        prefork.metric("prefork_worker_exits_total", &[("reason", "reload")]) == 3.0
    });
    let ok = |name: &str| prefork.metric(name, &[]);
    assert_eq!(ok("prefork_config_last_reload_successful"), 1.0);
    assert_eq!(ok("prefork_config_reload_failures_total"), 0.0);
}

#[test]
fn sighup_reloads() {
    let prefork = Prefork::start(&[Pool::service("web", 2)]);
    for generation in 2..=3 {
        let changed = Pool::service("web", 2).set("max_requests", 1_000_000 + generation);
        prefork.configure(&[changed]);
        prefork.signal(Signal::SIGHUP);
        prefork.done(&["wait", "--for", &format!("generation={generation}")]);
    }
    assert!(page(prefork.address("web")).contains("generation 3"));
}

#[test]
fn ready_workers_never_fall_below_the_desired_number_in_a_reload() {
    let prefork = Prefork::start(&[Pool::service("web", 4)]);
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| prefork.cli(&["reload", "--force"]));
        let mut looks = 0;
        while !reload.is_finished() {
            let pool = prefork.pool("web");
            assert!(pool.ready >= 4, "{pool:#?}");
            looks += 1;
        }
        assert_eq!(reload.join().expect("no panic").code, 0);
        assert!(looks > 3, "looked only {looks} times");
    });
}

#[test]
fn a_reload_that_nobody_waits_for_is_done_all_the_same() {
    let prefork = Prefork::start(&[Pool::service("web", 2)]);
    prefork.done(&["reload", "--force", "--no-wait"]);
    prefork.done(&["wait", "--for", "generation=2"]);
    assert!(page(prefork.address("web")).contains("generation 2"));
}

#[test]
fn a_dry_run_shows_what_would_change_and_changes_nothing() {
    let (old, new) = (free_address(), free_address());
    let web = |workers, address| Pool::service("web", workers).set("listen", listen(&[address]));
    let prefork = Prefork::start(&[web(2, old)]);
    let before = prefork.ready_pids("web");
    prefork.configure(&[
        web(3, new).text("drain_timeout", "77s"),
        Pool::service("more", 1),
    ]);
    let shown = prefork.done(&["reload", "--dry-run"]);
    let wanted = [
        "77s",
        "more",
        &old.to_string(),
        &new.to_string(),
        "3 workers",
    ];
    for word in wanted.iter().take(4) {
        assert!(shown.contains(word), "no {word} in {shown}");
    }
    assert_eq!(prefork.ready_pids("web"), before);
    let status = prefork.status();
    assert_eq!((status.generation, status.pools.len()), (1, 1));
    assert!(status.last_reload.is_none(), "{status:?}");
    assert!(TcpStream::connect(new).is_err(), "the listener was bound");
}

#[test]
fn pools_listeners_and_workers_come_and_go_by_reload_without_a_lost_request() {
    for mode in Mode::ALL {
        let web = |workers| Pool::service("web", workers).mode(mode);
        let prefork = Prefork::start(&[web(2)]);
        let load = Mixed::start(prefork.address("web"), 2);
        load.serves(10);

        prefork.configure(&[web(4), Pool::service("more", 2)]);
        prefork.done(&["reload"]);
        assert_eq!(prefork.pool("web").ready, 4);
        let more = prefork.address("more");
        assert!(page(more).contains("pool more"));
        load.serves(10);

        prefork.configure(&[web(1)]);
        prefork.done(&["reload"]);
        load.serves(10);
        assert_eq!(prefork.pool("web").ready, 1);
        eventually("the other pool is gone", PATIENCE, || {
            prefork.status().pools.len() == 1
        });
        eventually("nobody listens there any more", PATIENCE, || {
            TcpStream::connect(more).is_err()
        });
        load.stop_flawless();
    }
}

#[test]
fn a_listener_is_added_and_another_closed_after_the_commit() {
    let (old, kept, new) = (free_address(), free_address(), free_address());
    let web = |addresses: &[SocketAddr]| Pool::service("web", 2).set("listen", listen(addresses));
    let prefork = Prefork::start(&[web(&[old, kept])]);
    let load = Mixed::start(kept, 2);
    load.serves(10);
    prefork.configure(&[web(&[kept, new])]);
    prefork.done(&["reload"]);
    assert!(page(new).contains("generation 2"));
    assert!(page(kept).contains("generation 2"));
    eventually("the old address is closed", PATIENCE, || {
        TcpStream::connect(old).is_err()
    });
    load.serves(10);
    load.stop_flawless();
}

#[test]
fn the_mode_of_a_listener_that_is_bound_cannot_change() {
    let address = free_address();
    let web = |mode: Mode| {
        let mode = mode.as_str();
        let listen = format!("[{{ address = \"{address}\", mode = {mode:?} }}]");
        Pool::service("web", 2).set("listen", listen)
    };
    let prefork = Prefork::start(&[web(Mode::Shared)]);
    let before = prefork.ready_pids("web");
    let load = Mixed::start(address, 2);
    load.serves(10);
    prefork.configure(&[web(Mode::PerSlot)]);
    let output = prefork.cli(&["reload"]);
    assert_eq!(output.code, 1, "{output:?}");
    let why = format!("the mode of listener {address} cannot change");
    assert!(output.stderr.contains(&why), "{output:?}");
    assert_eq!(prefork.ready_pids("web"), before);
    load.serves(10);
    load.stop_flawless();
}

#[test]
fn settings_of_the_application_are_taken_in_place_by_the_same_processes() {
    let prefork = Prefork::start(&[Pool::service("web", 2)]);
    let before = prefork.ready_pids("web");
    prefork.append_to_configuration("\n[pool.web.app]\nversion = 2\n");
    prefork.done(&["reload"]);
    assert_eq!(prefork.ready_pids("web"), before);
    let address = prefork.address("web");
    let pages: Vec<String> = (0..8).map(|_| page(address)).collect();
    assert!(
        pages.iter().all(|page| page.contains("version 2")),
        "{pages:?}"
    );
    let old = before[0];
    processes::send(old, Signal::SIGKILL);
    prefork.replaced("web", 0, old);
    let pages: Vec<String> = (0..8).map(|_| page(address)).collect();
    assert!(
        pages.iter().all(|page| page.contains("version 2")),
        "{pages:?}"
    );
}

#[test]
fn twenty_five_reloads_asked_for_at_once_are_all_answered_with_one_final_generation() {
    let prefork = Prefork::start(&[Pool::service("web", 2)]);
    let load = Mixed::start(prefork.address("web"), 2);
    load.serves(10);
    let socket = prefork.control_socket();
    let mut askers: Vec<_> = (0..25)
        .map(|_| Connection::open_unix(&socket).expect("the control socket listens"))
        .collect();
    // However slow this is to ask, all of it is there when the supervisor looks.
    prefork.signal(Signal::SIGSTOP);
    for asker in &mut askers {
        asker.send("POST", "/v1/reload", "{}").expect("it is sent");
    }
    prefork.signal(Signal::SIGCONT);
    let mut generations: Vec<u64> = askers.iter_mut().map(committed).collect();
    generations.sort_unstable();

    let status = prefork.status();
    let last = *generations.last().expect("there were 25");
    assert_eq!(status.generation, last, "{generations:?}");
    // The first ask begins one, and the others have one more, unless it ends before
    // they are read.
    let most = 4;
    assert!(
        last <= most,
        "they were not joined: {} generations",
        last - 1
    );
    let workers = &status.pools[0].workers;
    assert!(workers.iter().all(|w| w.generation == Some(last)));
    load.serves(10);
    load.stop_flawless();
}

/// The generation that this reload ended in; panics if it was not done.
fn committed(asker: &mut Connection<std::os::unix::net::UnixStream>) -> u64 {
    let answer = asker.receive().expect("it is answered");
    let last = answer.body.lines().last().expect("it has lines");
    match serde_json::from_str(last).expect("lines are JSON") {
        JobLine::Result(JobResult {
            ok: true,
            generation: Some(generation),
            ..
        }) => generation,
        other => panic!("{other:?}"),
    }
}
