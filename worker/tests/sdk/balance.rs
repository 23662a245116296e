//! Several workers on one listener.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use prefork_proto::message::ToWorker;

use prefork_testkit::client::Client;
use prefork_testkit::supervisor::{Orders, Worker};

/// After this long a worker that nobody woke looks for itself, or a little later.
const LOOK: Duration = Duration::from_millis(900);

/// How long the workers and this thread have waited for a processor
/// (`/proc/PID/schedstat`): on a busy machine they are late without waiting for a look.
fn starved(workers: &[Worker]) -> Duration {
    let pids = workers
        .iter()
        .map(|worker| worker.process.pid().to_string());
    let nanoseconds = pids.chain(["thread-self".to_owned()]).map(|who| {
        let schedule = std::fs::read_to_string(format!("/proc/{who}/schedstat")).unwrap();
        let waited = schedule.split_whitespace().nth(1).unwrap();
        waited.parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Whether this takes as long as a look is away, and not for want of a processor.
fn waits_for_a_look(workers: &mut [Worker], what: impl FnOnce(&mut [Worker])) -> bool {
    let (begun, before) = (Instant::now(), starved(workers));
    what(workers);
    let took = begun.elapsed();
    took.saturating_sub(starved(workers) - before) >= LOOK
}

fn workers(count: usize) -> Vec<Worker> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (0..count)
        .map(|_| {
            let mut orders = Orders::default();
            // Far enough apart to be no wake-ups worth counting.
            orders.welcome.heartbeat_ms = 600_000;
            Worker::beside(orders, listener.try_clone().unwrap())
        })
        .collect()
}

/// How often the process slept until something woke it.
fn wake_ups(worker: &Worker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.process.pid()));
    let status = status.unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

fn accepted(worker: &mut Worker) -> u64 {
    worker.say(&ToWorker::Stop { id: 999 });
    let (health, _) = worker.last_words();
    health.http.unwrap().accepted
}

#[test]
fn connections_spread_evenly_and_each_wakes_one_worker() {
    const WORKERS: usize = 8;
    const CONNECTIONS: u64 = 80;
    let mut workers = workers(WORKERS);
    let before: u64 = workers.iter().map(wake_ups).sum();
    let open: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = Client::connect(workers[0].address);
            assert_eq!(client.get("/").status, 200);
            client
        })
        .collect();
    let after: u64 = workers.iter().map(wake_ups).sum();
    // One for the connection and one for its request, and some for the clock;
    // nine if it woke everyone.
    let each = (after - before) as f64 / CONNECTIONS as f64;
    assert!(each < 5.0, "{each} wake-ups for a connection");
    drop(open);
    let shares: Vec<u64> = workers.iter_mut().map(accepted).collect();
    assert_eq!(shares.iter().sum::<u64>(), CONNECTIONS);
    let fair = CONNECTIONS / WORKERS as u64;
    for share in &shares {
        assert!((fair / 2..=fair * 2).contains(share), "{shares:?}");
    }
}

#[test]
fn a_worker_that_is_stopped_holds_up_no_connection() {
    let mut workers = workers(4);
    for worker in [&workers[0], &workers[2]] {
        worker.process.signal(Signal::SIGSTOP);
        worker.process.until_stopped();
    }
    // If some of them waited until a worker looks for itself, that would be in each
    // round; a machine that is busy can only spoil some.
    let is_held_up = |_| {
        waits_for_a_look(&mut workers, |workers| {
            for _ in 0..20 {
                assert_eq!(Client::connect(workers[1].address).get("/").status, 200);
            }
        })
    };
    assert!(!(0..10).all(is_held_up));
}

#[test]
fn a_worker_that_is_paused_leaves_no_connection_without_its_wake_up() {
    const TURNS: u32 = 20;
    let mut workers = workers(2);
    let address = workers[0].address;
    let mut waited = 0;
    for _ in 0..TURNS {
        for paused in 0..workers.len() {
            let late = waits_for_a_look(&mut workers, |workers| {
                // The two meet in the worker that is next in the row.
                let worker = &mut workers[paused];
                worker.say(&ToWorker::Pause { id: 0 });
                let mut client = Client::connect(address);
                worker.say(&ToWorker::Resume { id: 0 });
                worker.say(&ToWorker::Pause { id: 0 });
                assert_eq!(client.get("/").status, 200);
            });
            waited += u32::from(late);
            assert!(workers[paused].ask(|id| ToWorker::Resume { id }).ok);
        }
    }
    // Without a wake-up all of them would have waited for a look.
    assert!(waited < TURNS / 2, "{waited}");
}
