//! What a schedule is made of, drawn from its seed.

use std::time::Duration;

use prefork_fleet::{Policy, Quorum};

/// A schedule's ingredients.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) pools: Vec<Policy>,
    /// How likely things go wrong, each from 0 to 1.
    pub(crate) faults: Faults,
    /// Whether things go wrong from the start, or only after the boot.
    pub(crate) faulty_boot: bool,
    /// Whether one pool that fails to come up is the end.
    pub(crate) strict_boot: bool,
    /// How long things go wrong and commands come.
    pub(crate) chaos: Duration,
    /// How many commands come.
    pub(crate) commands: u32,
    /// How many of the commands are reloads, as a ratio.
    pub(crate) reloads: f64,
    /// Whether things stop going wrong before the end.
    pub(crate) calm: bool,
    /// From one report of a worker to the next.
    pub(crate) heartbeat: Duration,
}

/// How likely things go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) spawn_fails: f64,
    pub(crate) boot_crash: f64,
    pub(crate) boot_hang: f64,
    pub(crate) boot_slow: f64,
    /// Each of these for one process in its life.
    pub(crate) crash: f64,
    pub(crate) hang: f64,
    pub(crate) misbehave: f64,
    pub(crate) grow: f64,
    pub(crate) ignore_drain: f64,
    pub(crate) ignore_stop: f64,
    pub(crate) ignore_ask: f64,
    pub(crate) unkillable: f64,
    pub(crate) late_event: f64,
    /// For one process in its life: it fails every other request.
    pub(crate) failing: f64,
}

impl Plan {
    /// One to three pools of a few slots.
    pub(crate) fn small(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let pools = rng.u32(1..=3);
        let sizes: Vec<u32> = (0..pools).map(|_| rng.u32(1..=4)).collect();
        Self::draw(seed, rng, &sizes, 12)
    }

    /// One to three pools of a few slots, reloaded again and again while few
    /// other things go wrong.
    pub(crate) fn reloading(seed: u64) -> Self {
        let mut plan = Self::small(seed);
        let mut rng = fastrand::Rng::with_seed(seed ^ 0xae10);
        plan.faulty_boot = false;
        plan.faults = plan.faults.milder(rng.f64());
        plan.commands = rng.u32(2..=6);
        plan.reloads = 0.7;
        plan.calm = rng.u8(0..4) == 0;
        plan.chaos = seconds(&mut rng, 3.0, 10.0);
        plan
    }

    /// About a hundred slots.
    pub(crate) fn medium(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let sizes = [rng.u32(20..=80), rng.u32(20..=80)];
        Self::draw(seed, rng, &sizes, 40)
    }

    /// A thousand slots.
    pub(crate) fn large(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let mut plan = Self::draw(seed, rng, &[400, 500, 100], 60);
        plan.faulty_boot = false;
        plan
    }

    fn draw(seed: u64, mut rng: fastrand::Rng, sizes: &[u32], commands: u32) -> Self {
        let pools: Vec<Policy> = sizes
            .iter()
            .zip(["web", "api", "jobs"])
            .map(|(workers, name)| policy(&mut rng, name, *workers))
            .collect();
        Self {
            seed,
            pools,
            faults: Faults::draw(&mut rng),
            faulty_boot: rng.f64() < 0.1,
            strict_boot: seed.is_multiple_of(3),
            chaos: seconds(&mut rng, 3.0, 15.0),
            commands: rng.u32(0..=commands),
            reloads: 0.1,
            calm: rng.u8(0..3) > 0,
            heartbeat: Duration::from_millis(900),
        }
    }
}

impl Faults {
    /// Each kind is absent, rare or frequent, so that schedules differ.
    fn draw(rng: &mut fastrand::Rng) -> Self {
        let mut level = || match rng.u8(0..4) {
            0 => 0.0,
            1 | 2 => 0.15,
            _ => 0.7,
        };
        Self {
            spawn_fails: level(),
            boot_crash: level(),
            boot_hang: level() / 2.0,
            boot_slow: level(),
            crash: level(),
            hang: level(),
            misbehave: level() / 2.0,
            grow: level(),
            ignore_drain: level(),
            ignore_stop: level(),
            ignore_ask: level(),
            unkillable: level() / 2.0,
            late_event: level(),
            failing: level(),
        }
    }

    /// The same in a lower measure.
    fn milder(self, by: f64) -> Self {
        Self {
            spawn_fails: self.spawn_fails * by,
            boot_crash: self.boot_crash * by,
            boot_hang: self.boot_hang * by,
            boot_slow: self.boot_slow * by,
            crash: self.crash * by,
            hang: self.hang * by,
            misbehave: self.misbehave * by,
            ..self
        }
    }
}

pub(crate) fn policy(rng: &mut fastrand::Rng, name: &str, workers: u32) -> Policy {
    Policy {
        name: name.to_owned(),
        workers,
        boot_timeout: seconds(rng, 1.0, 5.0),
        heartbeat_timeout: seconds(rng, 2.0, 5.0),
        drain_timeout: seconds(rng, 1.0, 5.0),
        kill_timeout: seconds(rng, 0.2, 1.0),
        backoff_initial: seconds(rng, 0.02, 0.2),
        backoff_max: seconds(rng, 1.0, 5.0),
        backoff_reset: seconds(rng, 1.0, 8.0),
        max_requests: if rng.bool() { rng.u64(20..200) } else { 0 },
        max_requests_jitter: 0.2,
        max_rss: rng.bool().then_some(1 << 30),
        max_age: rng.bool().then(|| seconds(rng, 3.0, 20.0)),
        min_ready: if rng.u8(0..3) == 0 {
            seconds(rng, 0.1, 3.0)
        } else {
            Duration::ZERO
        },
        max_surge: rng.u32(1..=3),
        dump_on_hang: rng.bool(),
        ready: match rng.u8(0..3) {
            0 => Quorum::Any,
            1 => Quorum::All,
            _ => Quorum::Percent(rng.u8(1..=100)),
        },
    }
}

/// A time between two, in seconds.
pub(crate) fn seconds(rng: &mut fastrand::Rng, from: f64, to: f64) -> Duration {
    Duration::from_secs_f64(from + (to - from) * rng.f64())
}
