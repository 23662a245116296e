//! Whether canaries are judged rightly: thousands of rollouts whose requests fail and
//! dawdle by lot, each through the fleet with its clock. How often one that is as good
//! as the old generation is undone, and after how many requests one is found that fails
//! twice as often, is printed (`-- --nocapture`) and held to what is promised.

use std::collections::BTreeMap;
use std::time::Duration;

use prefork_fleet::{
    Action, Canary, Command, Event, Fate, Fleet, JobId, Plan, PlannedPool, Policy, PoolId, Quorum,
    Report, Time, Traffic, Verdict, Worker,
};

/// The upper bounds of the duration buckets, in seconds.
const BOUNDS: [f64; 5] = [0.001, 0.0025, 0.005, 0.01, 0.025];

/// Slots of the pool; one of them is the canary's.
const WORKERS: u32 = 4;

/// How the requests of a generation go.
#[derive(Debug, Clone, Copy)]
struct Nature {
    /// The share that fails.
    failing: f64,
    /// The share that takes longer than all but a few.
    slow: f64,
}

/// A service as it usually is.
const USUAL: Nature = Nature {
    failing: 0.01,
    slow: 0.002,
};

/// How a rollout ended.
struct Ended {
    verdict: Verdict,
    /// Requests that the canary had served by then.
    requests: u64,
}

/// A rollout in the making.
struct Rollout {
    rng: fastrand::Rng,
    fleet: Fleet,
    now: Time,
    served: BTreeMap<Worker, Traffic>,
    verdict: Option<Verdict>,
}

impl Rollout {
    /// A pool that is ready, and a reload whose canary is ready as well.
    fn begin(seed: u64) -> Self {
        let mut rollout = Self {
            rng: fastrand::Rng::with_seed(seed),
            fleet: Fleet::new(seed, vec![policy()]),
            now: Time::default(),
            served: BTreeMap::new(),
            verdict: None,
        };
        let actions = rollout.fleet.start(rollout.now);
        rollout.take(actions);
        for slot in 0..WORKERS {
            rollout.step(Event::Ready {
                worker: worker(slot, 1),
            });
        }
        let planned = PlannedPool {
            policy: policy(),
            fate: Fate::Replaced,
            canary: Some(Canary {
                duration: Duration::from_secs(30),
                ..Canary::default()
            }),
        };
        let plan = Plan {
            generation: 2,
            pools: vec![planned],
        };
        rollout.step(Event::Command {
            job: JobId(1),
            command: Command::Reload(plan),
        });
        rollout.step(Event::Ready {
            worker: worker(0, 2),
        });
        rollout
    }

    fn step(&mut self, event: Event) {
        let actions = self.fleet.step(self.now, event);
        self.take(actions);
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn { worker, .. } => self.step(Event::Spawned { worker, pid: 1 }),
                Action::Drain { worker, .. } => self.step(Event::Shut { worker }),
                Action::Count { pool } => {
                    let tallies = self.served.iter();
                    let tallies = tallies.map(|(worker, it)| (*worker, it.clone())).collect();
                    self.step(Event::Counted {
                        pool,
                        bounds: &BOUNDS,
                        tallies,
                    });
                }
                Action::Report(Report::CanaryEnded { verdict, .. }) => {
                    self.verdict.get_or_insert(verdict);
                }
                _ => {}
            }
        }
    }

    /// A second passes in which the worker serves about so many requests.
    fn serve(&mut self, worker: Worker, rate: u64, nature: Nature) {
        let requests = self.rng.u64(rate / 2..=rate * 3 / 2);
        let failed = drawn(&mut self.rng, requests, nature.failing);
        let slow = drawn(&mut self.rng, requests, nature.slow);
        let traffic = self.served.entry(worker).or_default();
        traffic.durations.resize(BOUNDS.len() + 1, 0);
        traffic.requests += requests;
        traffic.failed += failed;
        traffic.durations[0] += requests - slow;
        traffic.durations[4] += slow;
    }

    /// Lets both generations serve until there is a verdict.
    fn end(mut self, rate: u64, old: Nature, new: Nature) -> Ended {
        loop {
            // What all suffer together comes and goes: nobody is undone for that.
            let trouble = if self.rng.u8(..) < 8 { 10.0 } else { 1.0 };
            let troubled = |nature: Nature| Nature {
                failing: (nature.failing * trouble).min(1.0),
                ..nature
            };
            self.serve(worker(0, 2), rate, troubled(new));
            for slot in 1..WORKERS {
                self.serve(worker(slot, 1), rate, troubled(old));
            }
            self.now = self.now.after(Duration::from_secs(1));
            self.step(Event::Tick);
            if let Some(verdict) = self.verdict {
                let requests = self.served[&worker(0, 2)].requests;
                return Ended { verdict, requests };
            }
        }
    }
}

fn worker(slot: u32, incarnation: u64) -> Worker {
    Worker {
        pool: PoolId(0),
        slot,
        incarnation,
    }
}

/// Deadlines that nothing reaches: nobody dies here.
fn policy() -> Policy {
    let never = Duration::from_secs(3600);
    Policy {
        name: "web".to_owned(),
        workers: WORKERS,
        boot_timeout: never,
        heartbeat_timeout: never,
        drain_timeout: never,
        kill_timeout: never,
        backoff_initial: never,
        backoff_max: never,
        backoff_reset: never,
        max_requests: 0,
        max_requests_jitter: 0.0,
        max_rss: None,
        max_age: None,
        min_ready: Duration::ZERO,
        max_surge: 1,
        dump_on_hang: false,
        ready: Quorum::Any,
    }
}

/// How many of `trials` happen that happen with a probability of `share` each: by the
/// number of those in between, which is geometric.
fn drawn(rng: &mut fastrand::Rng, trials: u64, share: f64) -> u64 {
    if share <= 0.0 || share >= 1.0 {
        return if share > 0.0 { trials } else { 0 };
    }
    let (mut hits, mut at) = (0, 0.0);
    loop {
        at += 1.0 + ((1.0 - rng.f64()).ln() / (1.0 - share).ln()).floor();
        if at > trials as f64 {
            return hits;
        }
        hits += 1;
    }
}

#[test]
fn a_canary_as_good_as_the_old_generation_is_undone_in_one_of_a_hundred_rollouts_at_most() {
    const ROLLOUTS: u64 = 10_000;
    let natures = [
        USUAL,
        Nature {
            failing: 0.0005,
            slow: 0.008,
        },
        Nature {
            failing: 0.2,
            slow: 0.0,
        },
    ];
    let mut undone = 0;
    for seed in 0..ROLLOUTS {
        let nature = natures[seed as usize % natures.len()];
        let ended = Rollout::begin(seed).end(40, nature, nature);
        assert!(matches!(ended.verdict, Verdict::Passed | Verdict::Failed));
        undone += u64::from(ended.verdict == Verdict::Failed);
    }
    let percent = undone as f64 * 100.0 / ROLLOUTS as f64;
    println!("of {ROLLOUTS} equal rollouts {undone} were undone: {percent:.2} %");
    assert!(percent <= 1.0, "{undone} of {ROLLOUTS}");
}

/// The requests after which nine of ten canaries were found that are worse in this way.
fn found_after(worse: Nature) -> u64 {
    const ROLLOUTS: u64 = 400;
    let found = (0..ROLLOUTS).map(|seed| Rollout::begin(seed).end(400, USUAL, worse));
    let mut requests: Vec<u64> = found
        .map(|ended| match ended.verdict {
            Verdict::Failed => ended.requests,
            _ => u64::MAX,
        })
        .collect();
    requests.sort_unstable();
    let (half, most) = (requests.len() / 2, requests.len() * 9 / 10);
    println!(
        "{worse:?} against {USUAL:?}: half of the canaries are found within {} requests, \
         nine of ten within {}",
        requests[half], requests[most]
    );
    requests[most]
}

#[test]
fn a_canary_that_fails_twice_as_often_is_found_within_six_thousand_requests() {
    let doubled = Nature {
        failing: 2.0 * USUAL.failing,
        ..USUAL
    };
    assert!(found_after(doubled) <= 6_000);
    let much_worse = Nature {
        failing: 0.3,
        ..USUAL
    };
    assert!(found_after(much_worse) <= 1_000);
}

#[test]
fn a_canary_with_more_slow_requests_than_one_of_a_hundred_is_found() {
    let slower = Nature {
        slow: 0.03,
        ..USUAL
    };
    assert!(found_after(slower) <= 6_000);
}
