//! The suites, one file each.

mod capacity;
mod channel;
mod disruption;
mod instructions;
mod memory;
mod reload;
mod respawn;
mod scale;
mod throughput;

use std::time::Duration;

use anyhow::Result;
use prefork_fleet::{Policy, Quorum};

use crate::bench::Bench;
use crate::report::Report;

/// Something to measure.
pub(crate) struct Suite {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it measures, in a line.
    pub(crate) about: &'static str,
    /// Measures it.
    pub(crate) run: fn(&Bench) -> Result<Report>,
}

/// All of them, in the order in which `all` runs them.
pub(crate) const ALL: [Suite; 9] = [
    Suite {
        name: "throughput",
        about: "requests per second, latency and CPU time per request",
        run: throughput::run,
    },
    Suite {
        name: "disruption",
        about: "requests broken by reload, kills, upgrade and scaling",
        run: disruption::run,
    },
    Suite {
        name: "capacity",
        about: "answers in the worst 100 ms of a reload, an upgrade and a kill, against before",
        run: capacity::run,
    },
    Suite {
        name: "respawn",
        about: "from SIGKILL of a worker to its successor",
        run: respawn::run,
    },
    Suite {
        name: "reload",
        about: "time and broken requests of a rolling reload, by pool size and surge",
        run: reload::run,
    },
    Suite {
        name: "scale",
        about: "the supervisor with 10, 100 and 1,000 workers; the fleet alone with more",
        run: scale::run,
    },
    Suite {
        name: "channel",
        about: "round trips, messages and descriptors per second; socket types compared",
        run: channel::run,
    },
    Suite {
        name: "memory",
        about: "memory per idle worker and per idle connection",
        run: memory::run,
    },
    Suite {
        name: "instructions",
        about: "instructions of the two hottest paths, by callgrind; the same on any machine",
        run: instructions::run,
    },
];

/// The terms of a pool of so many workers, for a fleet by itself.
pub(crate) fn policy(workers: u32) -> Policy {
    let second = Duration::from_secs(1);
    Policy {
        name: "web".to_owned(),
        workers,
        boot_timeout: 30 * second,
        heartbeat_timeout: 10 * second,
        drain_timeout: 30 * second,
        kill_timeout: 5 * second,
        backoff_initial: second / 10,
        backoff_max: 30 * second,
        backoff_reset: 10 * second,
        max_requests: 1_000_000,
        max_requests_jitter: 0.1,
        max_rss: None,
        max_age: Some(86_400 * second),
        min_ready: Duration::ZERO,
        max_surge: 1,
        dump_on_hang: false,
        ready: Quorum::Any,
    }
}
