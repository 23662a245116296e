//! Random schedules for the fleet, on a virtual clock: worlds of processes that
//! crash, hang, boot slowly, ignore what they are told and die late, and an
//! operator who commands at random. After every step the invariants of
//! `facts` and `checks` hold.
//!
//! A schedule that fails prints its seed. `SEED=7 cargo test -p
//! prefork-fleet --test simulation` runs that one again, with a trace.

mod canary;
mod checks;
mod facts;
mod operator;
mod plan;
mod pools;
mod process;
mod reload;
mod schedule;
mod world;

use plan::Plan;
use schedule::run;

/// Says which seed a panic belongs to.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the schedule of SEED={} failed", self.0);
        }
    }
}

/// Seeds of one size of fleet lie this close together.
const SEEDS_OF_A_SIZE: u64 = 100_000;

/// Runs these seeds, or only the one that the environment names if it is of
/// their size. Returns how much happened.
#[allow(clippy::disallowed_methods)] // A person asks for one schedule by it.
fn run_all(seeds: std::ops::Range<u64>, plan: fn(u64) -> Plan) -> Happened {
    let mut happened = Happened::default();
    if let Ok(seed) = std::env::var("SEED") {
        happened.of_one_seed = true;
        let seed: u64 = seed.parse().expect("SEED is a number that a failure named");
        if seed / SEEDS_OF_A_SIZE == seeds.start / SEEDS_OF_A_SIZE {
            let _named = Seed(seed);
            happened.add(&run(&plan(seed), true));
        }
        return happened;
    }
    for seed in seeds {
        let _named = Seed(seed);
        happened.add(&run(&plan(seed), false));
    }
    happened
}

/// What schedules have in them, to see that they are no idle ones.
#[derive(Debug, Default)]
struct Happened {
    schedules: u64,
    steps: u64,
    starts: u64,
    jobs_done: u64,
    jobs_refused: u64,
    jobs_timed_out: u64,
    boots_failed: u64,
    booted_in_part: u64,
    recycled: u64,
    hung: u64,
    failed: u64,
    reloads: u64,
    committed: u64,
    rolled_back: u64,
    cut_short: u64,
    schedules_with_reloads: u64,
    canaries: u64,
    canaries_undone: u64,
    of_one_seed: bool,
}

impl Happened {
    fn add(&mut self, other: &Self) {
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.starts += other.starts;
        self.jobs_done += other.jobs_done;
        self.jobs_refused += other.jobs_refused;
        self.jobs_timed_out += other.jobs_timed_out;
        self.boots_failed += other.boots_failed;
        self.booted_in_part += other.booted_in_part;
        self.recycled += other.recycled;
        self.hung += other.hung;
        self.failed += other.failed;
        self.reloads += other.reloads;
        self.committed += other.committed;
        self.rolled_back += other.rolled_back;
        self.cut_short += other.cut_short;
        self.schedules_with_reloads += u64::from(other.reloads > 0);
        self.canaries += other.canaries;
        self.canaries_undone += other.canaries_undone;
    }

    /// Fails if the schedules did not exercise what they are to exercise.
    fn assert_lively(&self) {
        println!("{self:?}");
        if self.of_one_seed {
            return;
        }
        assert!(self.jobs_done > self.schedules, "{self:?}");
        for (what, count) in [
            ("refused jobs", self.jobs_refused),
            ("timed-out jobs", self.jobs_timed_out),
            ("failed boots", self.boots_failed),
            ("boots in part", self.booted_in_part),
            ("recycles", self.recycled),
            ("hangs", self.hung),
            ("failures", self.failed),
        ] {
            assert!(count > self.schedules / 100, "few {what}: {self:?}");
        }
    }
}

#[test]
fn small_fleets_keep_their_promises() {
    let happened = run_all(0..10_000, Plan::small);
    happened.assert_lively();
}

#[test]
fn reloads_are_put_in_force_or_rolled_back() {
    let happened = run_all(300_000..310_400, Plan::reloading);
    println!("{happened:?}");
    if happened.of_one_seed {
        return;
    }
    let ended = happened.committed + happened.rolled_back + happened.cut_short;
    assert_eq!(happened.reloads, ended, "{happened:?}");
    assert!(happened.schedules_with_reloads >= 10_000, "{happened:?}");
    assert!(happened.committed > 5_000, "{happened:?}");
    assert!(happened.rolled_back > 5_000, "{happened:?}");
    assert!(happened.cut_short > 100, "{happened:?}");
    let passed = happened.canaries - happened.canaries_undone;
    assert!(
        passed > 500 && happened.canaries_undone > 500,
        "{happened:?}"
    );
}

#[test]
fn fleets_of_a_hundred_slots_keep_their_promises() {
    run_all(100_000..100_030, Plan::medium);
}

#[test]
fn fleets_of_a_thousand_slots_keep_their_promises() {
    run_all(200_000..200_004, Plan::large);
}
