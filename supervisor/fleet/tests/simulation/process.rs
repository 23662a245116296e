//! A process of the world, and how it takes what life and the fleet give it.

use std::time::Duration;

use prefork_fleet::{Death, Signal, Time, Traffic};

use crate::plan::{Faults, seconds};

/// A process that has been asked for and not been reaped.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) born: bool,
    pub(crate) ready_at: Option<Time>,
    /// When the fleet wanted to know last what it waits for.
    pub(crate) looked: Option<Time>,
    /// It says nothing any more.
    pub(crate) silent: bool,
    /// It was told to leave, gently or not.
    pub(crate) dismissed: bool,
    pub(crate) killed_at: Option<Time>,
    pub(crate) requests: u64,
    /// What it has served, where somebody compares that.
    served: Traffic,
    /// The generation whose settings it has, whatever the fleet believes.
    pub(crate) settings: u64,
    pub(crate) temper: Temper,
}

/// How a process is going to behave, drawn at its birth.
#[derive(Debug)]
pub(crate) struct Temper {
    pub(crate) boot: Boot,
    pub(crate) fate: Option<(Duration, Fate)>,
    pub(crate) ignores_drain: bool,
    pub(crate) ignores_stop: bool,
    pub(crate) ignores_ask: bool,
    /// The share of its requests that fail.
    pub(crate) failing: f64,
    /// From SIGKILL to the reaping.
    pub(crate) dying: Duration,
}

/// How its boot goes.
#[derive(Debug)]
pub(crate) enum Boot {
    SpawnFails,
    Ready(Duration),
    Crash(Duration),
    Hang,
}

/// What goes wrong in its life.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    Crash,
    Hang,
    Misbehave,
    Grow,
}

impl Process {
    pub(crate) fn new(temper: Temper, generation: u64) -> Self {
        Self {
            settings: generation,
            born: false,
            ready_at: None,
            looked: None,
            silent: false,
            dismissed: false,
            killed_at: None,
            requests: 0,
            served: Traffic::default(),
            temper,
        }
    }
}

impl Process {
    /// Serves some more; all that it has served.
    pub(crate) fn serve(&mut self, rng: &mut fastrand::Rng) -> Traffic {
        let served = &mut self.served;
        let requests = rng.u64(0..60);
        let failed = (0..requests).filter(|_| rng.f64() < self.temper.failing);
        served.requests += requests;
        served.failed += failed.count() as u64;
        served.panics += u64::from(rng.u8(0..100) == 0);
        served.durations.resize(3, 0);
        for _ in 0..requests {
            served.durations[usize::from(rng.u8(0..200) == 0)] += 1;
        }
        served.clone()
    }
}

impl Temper {
    pub(crate) fn draw(rng: &mut fastrand::Rng, faults: &Faults) -> Self {
        let fate = match rng.u8(0..4) {
            0 => (faults.crash, Fate::Crash),
            1 => (faults.hang, Fate::Hang),
            2 => (faults.misbehave, Fate::Misbehave),
            _ => (faults.grow, Fate::Grow),
        };
        let within = if rng.bool() { 0.5 } else { 10.0 };
        let fate = (rng.f64() < fate.0).then(|| (seconds(rng, 0.0, within), fate.1));
        Self {
            boot: Boot::draw(rng, faults),
            fate,
            ignores_drain: rng.f64() < faults.ignore_drain,
            ignores_stop: rng.f64() < faults.ignore_stop,
            ignores_ask: rng.f64() < faults.ignore_ask,
            failing: if rng.f64() < faults.failing {
                0.5
            } else {
                0.01
            },
            dying: if rng.f64() < faults.unkillable {
                seconds(rng, 1.0, 120.0)
            } else {
                seconds(rng, 0.0, 0.01)
            },
        }
    }
}

impl Boot {
    fn draw(rng: &mut fastrand::Rng, faults: &Faults) -> Self {
        if rng.f64() < faults.spawn_fails {
            Self::SpawnFails
        } else if rng.f64() < faults.boot_crash {
            Self::Crash(seconds(rng, 0.0, 0.5))
        } else if rng.f64() < faults.boot_hang {
            Self::Hang
        } else if rng.f64() < faults.boot_slow {
            // The longest of these are over every boot timeout.
            Self::Ready(seconds(rng, 0.5, 6.0))
        } else {
            Self::Ready(seconds(rng, 0.001, 0.2))
        }
    }
}

pub(crate) fn exit(code: i32) -> Death {
    Death {
        code: Some(code),
        ..Death::default()
    }
}

pub(crate) fn signal(signal: i32) -> Death {
    Death {
        signal: Some(Signal(signal)),
        ..Death::default()
    }
}
