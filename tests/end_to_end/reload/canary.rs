//! The first workers of a reload are judged by what they serve, before the others follow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Mode, Pool, Prefork, http};

/// Clients with a new connection for each request, so that every worker has its share.
struct Clients {
    ended: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(address: SocketAddr) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let [answered, failed] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let client = |_| {
            let (ended, answered, failed) = (ended.clone(), answered.clone(), failed.clone());
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let answer = http::get(address, "/").expect("nobody is turned away");
                    answered.fetch_add(1, Ordering::Relaxed);
                    failed.fetch_add(u64::from(answer.status == 500), Ordering::Relaxed);
                }
            })
        };
        Self {
            threads: (0..4).map(client).collect(),
            ended,
            answered,
            failed,
        }
    }

    /// How many requests were answered in all, and how many of them by 500.
    fn stop(self) -> (u64, u64) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("every request was answered");
        }
        let [answered, failed] = [self.answered, self.failed].map(|it| it.load(Ordering::Relaxed));
        (answered, failed)
    }
}

/// A pool of two, of which a reload judges one like this.
fn pool(failing: &str, canary: &str) -> Pool {
    Pool::service_with("app", &["--fail-percent", failing], 2)
        .mode(Mode::PerSlot)
        .set("canary", format!("{{ {canary} }}"))
}

/// A reload has begun whose canary is being judged.
fn judged(prefork: &Prefork) {
    let begun = prefork.cli(&["reload", "--force", "--no-wait"]);
    assert_eq!(begun.code, 0, "{begun:?}");
    eventually("a canary is judged", PATIENCE, || {
        prefork.pool("app").canary.is_some()
    });
}

fn generations(prefork: &Prefork) -> Vec<Option<u64>> {
    let workers = prefork.pool("app").workers;
    workers.iter().map(|worker| worker.generation).collect()
}

#[test]
fn a_build_that_fails_its_share_of_requests_is_undone_by_itself() {
    let terms = "duration = \"10m\", min_requests = 1, max_p99_ratio = 0";
    let prefork = Prefork::start(&[pool("0", terms)]);
    let clients = Clients::start(prefork.address("app"));
    prefork.configure(&[pool("30", terms)]);
    let refused = prefork.cli(&["reload"]);
    let (answered, failed) = clients.stop();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("canary: failed, ")
            && refused.stderr.contains(" % 5xx against 0.0 %, ")
            && refused.stderr.contains("generation 1 stays in force"),
        "{refused:?}"
    );
    // No more than its share of its share, and it was there for a part of the time.
    assert!(
        (10..=answered * 3 / 10 + 1).contains(&failed),
        "{failed} of {answered}"
    );
    assert_eq!(generations(&prefork), [Some(1), Some(1)]);
    let labels = [("pool", "app"), ("verdict", "failed")];
    assert_eq!(prefork.metric("prefork_canaries_total", &labels), 1.0);
    let events = prefork.done(&["events", "--kind", "canary", "--output", "json"]);
    assert!(events.contains("canary: failed, "), "{events}");
    assert_eq!(
        http::get(prefork.address("app"), "/")
            .expect("it serves")
            .status,
        200
    );
}

#[test]
fn a_good_build_passes_by_itself() {
    let terms = "duration = \"3s\", min_requests = 1, max_p99_ratio = 0";
    let prefork = Prefork::start(&[pool("5", terms)]);
    let clients = Clients::start(prefork.address("app"));
    let done = prefork.cli(&["reload", "--force"]);
    let (answered, failed) = clients.stop();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("canary: passed, "), "{done:?}");
    assert!(failed <= answered / 10, "{failed} of {answered}");
    assert_eq!(generations(&prefork), [Some(2), Some(2)]);
}

/// Programs of which so many of a hundred answers are 500, behind a front; a reload judges
/// one of them.
fn programs(failing: &str, canary: &str) -> [Pool; 2] {
    let front = Pool::bundled("web", 2).set("app", "{ forward = \"app\" }");
    let program = Pool::behind("app", &["1000", failing], 2)
        .text("min_ready", "50ms")
        .set("canary", format!("{{ {canary} }}"));
    [front, program]
}

#[test]
fn programs_behind_a_front_are_judged_by_what_it_has_heard_of_them() {
    let terms = "duration = \"10m\", min_requests = 1, max_p99_ratio = 0";
    let prefork = Prefork::start(&programs("0", terms));
    let rehearsed = prefork.done(&["reload", "--dry-run", "--force"]);
    assert!(
        rehearsed
            .contains("pool app: 2 workers would be replaced: by --force; canary: 1 for 10m, "),
        "{rehearsed}"
    );
    let clients = Clients::start(prefork.address("web"));
    prefork.configure(&programs("30", terms));
    let refused = prefork.cli(&["reload"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("canary: failed, ")
            && refused.stderr.contains(" % 5xx against 0.0 %, "),
        "{refused:?}"
    );
    assert_eq!(generations(&prefork), [Some(1), Some(1)]);

    let terms = "duration = \"3s\", min_requests = 1, max_p99_ratio = 0";
    prefork.configure(&programs("0", terms));
    let done = prefork.cli(&["reload"]);
    let (answered, failed) = clients.stop();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stderr
            .contains("canary: passed, 0.0 % 5xx against 0.0 %, "),
        "{done:?}"
    );
    assert!(
        (10..=answered * 3 / 10 + 1).contains(&failed),
        "{failed} of {answered}"
    );
}

#[test]
fn too_few_requests_are_no_verdict() {
    let terms = "duration = \"1s\", min_requests = 500";
    let prefork = Prefork::start(&[pool("0", terms)]);
    let undone = prefork.cli(&["reload", "--force"]);
    assert_eq!(undone.code, 1, "{undone:?}");
    let why = "app: canary: no verdict, it takes 500 requests of each generation: ";
    assert!(undone.stderr.contains(why), "{undone:?}");
    assert_eq!(generations(&prefork), [Some(1), Some(1)]);

    let goes_on = format!("{terms}, on_no_verdict = \"proceed\"");
    prefork.configure(&[pool("0", &goes_on)]);
    let done = prefork.cli(&["reload", "--force"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("canary: no verdict, "), "{done:?}");
}

#[test]
fn an_operator_ends_the_trial_and_a_supervisor_that_is_killed_undoes_it() {
    let mut prefork = Prefork::start(&[pool("0", "duration = \"10m\"")]);
    let nothing = prefork.cli(&["promote"]);
    assert_eq!(nothing.code, 1, "{nothing:?}");

    judged(&prefork);
    let second = prefork.cli(&["reload"]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(
        second
            .stderr
            .contains("`prefork promote` or `prefork abort`"),
        "{second:?}"
    );
    let shown = prefork.done(&["status"]);
    assert!(shown.contains("app: canary of generation 2: "), "{shown}");
    assert_eq!(
        prefork.metric("prefork_canary_workers", &[("pool", "app")]),
        1.0
    );
    let aborted = prefork.done(&["abort"]);
    assert!(aborted.contains("generation 1 stays in force"), "{aborted}");
    assert_eq!(generations(&prefork), [Some(1), Some(1)]);
    // What was undone may still be draining, and a reload waits for that.
    eventually("another reload begins", PATIENCE, || {
        prefork.cli(&["reload", "--force", "--no-wait"]).code == 0
    });
    eventually("its canary is judged", PATIENCE, || {
        prefork.pool("app").canary.is_some()
    });
    let promoted = prefork.done(&["promote"]);
    assert!(promoted.contains(" is in force"), "{promoted}");
    let in_force = prefork.status().generation;
    assert_eq!(generations(&prefork), [Some(in_force), Some(in_force)]);

    judged(&prefork);
    prefork.killed();
    prefork.ready_again();
    eventually("nothing of the canary is left", PATIENCE, || {
        generations(&prefork) == [Some(in_force), Some(in_force)]
    });
    assert!(prefork.pool("app").canary.is_none());
    prefork.wait_until_ready();
}
