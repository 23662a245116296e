//! The supervisor is killed at any moment of what it does: the next one finds a
//! fleet that it can go on with, and no client notices.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::deadline::eventually;
use crate::harness::http::Connection;
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork};

const SOON: Duration = Duration::from_secs(30);

/// How many moments there are.
fn moments() -> u64 {
    match std::env::var_os("PREFORK_TEST_FULL") {
        Some(_) => 200,
        None => 4,
    }
}

/// Lets a random part of `longest` pass, and has another supervisor after that.
fn kill_within(prefork: &mut Prefork, random: &mut fastrand::Rng, longest: Duration) {
    // Not to wait for anything: this is the moment itself.
    std::thread::sleep(longest.mul_f64(random.f64()));
    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    prefork.start_again();
    prefork.wait_until_ready();
}

/// Returns when there are as many workers as are desired, each of them ready,
/// and no process besides.
#[track_caller]
fn consistent(prefork: &Prefork, seed: u64) {
    eventually(&format!("all is well after {seed}"), SOON, || {
        let web = prefork.pool("web");
        let pids: BTreeSet<i32> = web.workers.iter().filter_map(|it| it.pid).collect();
        let mut expected = pids.clone();
        expected.insert(prefork.pid());
        let processes: BTreeSet<i32> = prefork.processes().into_iter().collect();
        web.ready == web.desired
            && pids.len() == usize::try_from(web.desired).expect("there are few")
            && web.workers.len() == pids.len()
            && processes == expected
    });
}

#[test]
fn a_kill_at_any_moment_of_a_scale_leaves_the_old_number_or_the_new_one() {
    let mut prefork = Prefork::start(&[Pool::service("web", 2)]);
    let load = Load::start(prefork.address("web"), 4);
    let mut taken = 0;
    for seed in 0..moments() {
        let mut random = fastrand::Rng::with_seed(seed);
        let before = prefork.pool("web").desired;
        let wanted = if before == 1 { 4 } else { 1 };
        // A client that waits for the end would fail at the kill.
        let mut client = Connection::open_unix(&prefork.control_socket()).unwrap();
        let order = format!("{{\"workers\":{wanted}}}");
        client.send("POST", "/v1/pools/web/scale", &order).unwrap();
        kill_within(&mut prefork, &mut random, Duration::from_millis(300));
        consistent(&prefork, seed);
        let now = prefork.pool("web").desired;
        assert!(now == before || now == wanted, "{before} → {now}, {seed}");
        taken += u64::from(now == wanted);
        load.serves(10);
    }
    assert!(taken > 0, "every kill came too early");
    load.stop_flawless();
}

#[test]
fn a_kill_at_any_moment_of_an_upgrade_leaves_every_worker_as_it_was() {
    let mut prefork = Prefork::start(&[Pool::service("web", 2)]);
    let workers = prefork.ready_pids("web");
    let load = Load::start(prefork.address("web"), 4);
    for seed in 0..moments() {
        let mut random = fastrand::Rng::with_seed(seed);
        prefork.signal(Signal::SIGUSR2);
        kill_within(&mut prefork, &mut random, Duration::from_millis(300));
        consistent(&prefork, seed);
        assert_eq!(prefork.ready_pids("web"), workers, "{seed}");
        load.serves(10);
    }
    prefork.done(&["upgrade"]);
    assert_eq!(prefork.ready_pids("web"), workers);
    load.stop_flawless();
}
