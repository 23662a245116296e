//! Programs that speak HTTP and nothing else, behind a front: what an operator does
//! breaks no request, and what dies costs what it was executing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http::{Connection, get};
use crate::harness::load::mixed::Mixed;
use crate::harness::load::{Failure, Kind, Load};
use crate::harness::{Pool, Prefork, processes};

/// A front of two processes, before programs each of which gets so many requests at
/// a time (0 for any number), and says 500 to one more. A program drops everything when it
/// is told to leave.
fn pools(programs: u32, concurrency: u32) -> [Pool; 2] {
    let front = Pool::bundled("web", 2)
        .set("app", "{ forward = \"shop\", queue_timeout = \"20s\" }")
        .text("idle_grace", "5s");
    let most = concurrency.to_string();
    let most = (concurrency > 0).then_some(most.as_str());
    let program = Pool::behind("shop", most.as_slice(), programs)
        .set("adapter", format!("{{ concurrency = {concurrency} }}"))
        .text("min_ready", "50ms");
    [front, program]
}

fn page(address: SocketAddr) -> String {
    let answer = get(address, "/").expect("there is an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

#[test]
fn a_program_answers_through_the_front_and_is_counted_there() {
    let prefork = Prefork::start(&pools(2, 1));
    let mut answered: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..40 {
        *answered.entry(page(prefork.address("web"))).or_default() += 1;
    }
    assert_eq!(answered.len(), 2, "{answered:?}");
    let requests = || {
        let page = prefork.scrape();
        let counted = page.samples().iter();
        let counted = counted.filter(|it| it.name == "prefork_upstream_requests_total");
        counted.map(|it| it.value).collect::<Vec<_>>()
    };
    // By pool, the one behind, and its slot.
    eventually("what was counted is reported", PATIENCE, || {
        let requests = requests();
        requests.len() == 2 && requests.iter().sum::<f64>() == 40.0
    });
}

#[test]
fn what_an_operator_does_to_programs_and_fronts_breaks_no_request() {
    let prefork = Prefork::start(&pools(2, 4));
    let load = Mixed::start(prefork.address("web"), 2);
    load.serves(20);
    for command in [
        &["reload", "--force"][..],
        &["restart", "shop"],
        &["scale", "shop", "4"],
        &["scale", "shop", "1"],
        // The only one: its successor is there before it gets nothing more.
        &["drain", "shop/0"],
        &["restart", "web"],
        &["scale", "shop", "2"],
        // The front stays, and its programs are others.
        &["reload"],
    ] {
        prefork.done(command);
        load.serves(10);
    }
    load.stop_flawless();
}

#[test]
fn a_program_stays_until_it_has_answered_what_it_was_given() {
    let prefork = Prefork::start(&pools(1, 0));
    let mut connection = Connection::open(prefork.address("web")).expect("it is accepted");
    for slowly in [
        &["restart", "shop"][..],
        &["reload", "--force"],
        &["restart", "web"],
    ] {
        connection
            .send("POST", "/slow/4000", "")
            .expect("it is sent");
        eventually_busy(&prefork);
        prefork.done(slowly);
        let answer = connection.receive().expect("there is an answer");
        assert_eq!(answer.status, 200, "{slowly:?}: {answer:?}");
        if answer.closes() {
            connection = Connection::open(prefork.address("web")).expect("it is accepted");
        }
    }
}

#[test]
fn a_killed_program_costs_no_safe_request_and_of_the_others_what_it_had() {
    let prefork = Prefork::start(&pools(3, 4));
    let safe = Load::of(Kind::KeepAlive, prefork.address("web"), 4);
    let other = Load::of(Kind::Digest, prefork.address("web"), 2);
    for _ in 0..5 {
        safe.serves(20);
        other.serves(5);
        let killed = prefork.ready_pid("shop", 0);
        // The program goes with its adapter, and so do both ways to find it.
        processes::send(killed, Signal::SIGKILL);
        prefork.replaced("shop", 0, killed);
    }
    safe.serves(20);
    safe.stop_flawless();
    let other = other.stop();
    assert!(other.served > 0, "{other:#?}");
    let only_answers = other.failures.keys().all(|it| *it == Failure::Status);
    assert!(only_answers, "{other:#?}");
    assert!(other.of(Failure::Status) <= 5 * 2, "{other:#?}");
}

#[test]
fn single_requests_are_spread_evenly_over_all_fronts_and_never_two_at_a_time() {
    let prefork = Prefork::start(&pools(5, 1));
    let address = prefork.address("web");
    let ask = || {
        let mut connection = Connection::open(address).expect("it is accepted");
        let answer = connection.get("/slow/200").expect("there is an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let answers: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
        asked
            .into_iter()
            .map(|it| it.join().expect("it is answered"))
            .collect()
    });
    let mut by_program: BTreeMap<String, u32> = BTreeMap::new();
    for answer in answers {
        *by_program.entry(answer).or_default() += 1;
    }
    assert_eq!(by_program.len(), 5, "{by_program:?}");
    let is_even = |requests: &u32| (19..=21).contains(requests);
    assert!(by_program.values().all(is_even), "{by_program:?}");
}

#[test]
fn what_a_killed_front_had_at_programs_is_given_back() {
    let prefork = Prefork::start(&pools(1, 1));
    let address = prefork.address("web");
    for _ in 0..4 {
        let mut connection = Connection::open(address).expect("it is accepted");
        connection
            .send("GET", "/slow/20000", "")
            .expect("it is sent");
        let front = eventually_busy(&prefork);
        processes::send(prefork.ready_pid("web", front), Signal::SIGKILL);
        drop(connection);
        // The only program takes one request at a time, and it has none now.
        let killed = prefork.ready_pid("shop", 0);
        processes::send(killed, Signal::SIGKILL);
        prefork.replaced("shop", 0, killed);
        page(address);
        eventually("the front is there again", PATIENCE, || {
            prefork.pool("web").ready == 2
        });
    }
}

/// The slot of the front that has a request.
fn eventually_busy(prefork: &Prefork) -> u32 {
    let mut busy = None;
    eventually("a front has the request", PATIENCE, || {
        let mut slots = (0..2).map(|slot| prefork.worker("web", slot));
        busy = slots.find(|it| it.in_flight > 0).map(|it| it.slot);
        busy.is_some()
    });
    busy.expect("it was found")
}

#[test]
fn a_killed_supervisor_breaks_no_request_and_the_next_one_goes_on() {
    let mut prefork = Prefork::start(&pools(2, 4));
    let programs = prefork.ready_pids("shop");
    let load = Mixed::start(prefork.address("web"), 2);
    for _ in 0..3 {
        load.serves(10);
        prefork.killed();
        load.serves(10);
        prefork.ready_again();
        assert_eq!(prefork.ready_pids("shop"), programs);
    }
    // Its fronts know what it knows.
    prefork.done(&["restart", "shop"]);
    load.serves(10);
    load.stop_flawless();
}

#[test]
fn an_upgrade_breaks_no_request_and_departures_go_on() {
    let prefork = Prefork::start(&pools(2, 4));
    let load = Mixed::start(prefork.address("web"), 2);
    for _ in 0..3 {
        load.serves(10);
        prefork.done(&["upgrade"]);
        // The fronts know where those are that were there before.
        load.serves(10);
        assert!(prefork.worker("shop", 0).upstream.is_some());
        prefork.done(&["restart", "shop"]);
    }
    load.serves(10);
    load.stop_flawless();
}

#[test]
fn a_stop_finishes_what_fronts_have_at_programs() {
    let mut prefork = Prefork::start(&pools(1, 0));
    let mut connection = Connection::open(prefork.address("web")).expect("it is accepted");
    connection
        .send("GET", "/slow/4000", "")
        .expect("it is sent");
    eventually_busy(&prefork);
    prefork.signal(Signal::SIGTERM);
    let answer = connection.receive().expect("there is an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(prefork.exit_code(), 0);
}

#[test]
fn a_front_that_hangs_holds_no_departure_up() {
    let [front, program] = pools(2, 0);
    let prefork = Prefork::start(&[
        front.text("heartbeat_timeout", "60s"),
        program.text("drain_timeout", "2s"),
    ]);
    let hung = prefork.ready_pid("web", 0);
    processes::send(hung, Signal::SIGSTOP);
    let before = prefork.ready_pids("shop");
    prefork.done(&["restart", "shop"]);
    let after = prefork.ready_pids("shop");
    assert!(before.iter().all(|pid| !after.contains(pid)));
    processes::send(hung, Signal::SIGCONT);
}

#[test]
fn a_pool_that_nothing_is_forwarded_to_any_more_may_go() {
    let [front, program] = pools(1, 0);
    let prefork = Prefork::start(&[front, program]);
    let load = Load::of(Kind::KeepAlive, prefork.address("web"), 4);
    load.serves(20);
    prefork.configure(&[Pool::bundled("web", 2)]);
    let welcomed = prefork.cli(&["reload"]);
    assert_eq!(welcomed.code, 0, "{welcomed:?}");
    eventually("the pool is gone", PATIENCE, || {
        prefork
            .status()
            .pools
            .iter()
            .all(|pool| pool.name != "shop")
    });
    load.serves(20);
    load.stop_flawless();
}
