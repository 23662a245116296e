//! An operator who commands at random, with typing errors.

use std::time::Duration;

use prefork_fleet::{Canary, Command, Fate, NoVerdict, Plan, PlannedPool, Policy};

use crate::plan::policy;
use crate::world::World;

/// The next command. Never `stop`, which a schedule ends with.
pub(crate) fn think(world: &mut World) -> Command {
    if world.rng.f64() < world.reloads {
        return Command::Reload(edit(world));
    }
    if world.fleet.has_canaries() && world.rng.bool() {
        return match world.rng.bool() {
            true => Command::Promote,
            false => Command::Abort,
        };
    }
    let pools = world.fleet.pools().len();
    let chosen = world.rng.usize(0..pools);
    let view = world.fleet.pools().nth(chosen).expect("there are so many");
    let (desired, initial) = (view.desired(), world.facts.initial(view.id()));
    let rng = &mut world.rng;
    let pool = if rng.u8(0..30) == 0 {
        "wbe".to_owned()
    } else {
        view.name().to_owned()
    };
    // One in so many slots does not exist.
    let slot = rng.u32(0..desired + 1);
    match rng.u8(0..18) {
        0..=2 => Command::Scale {
            pool,
            workers: rng.u32(0..=initial * 2),
        },
        3 => Command::ScaleBy {
            pool: rng.bool().then_some(pool),
            by: rng.i32(-2..=2),
        },
        16 => Command::ScaleAsConfigured { pool },
        17 => match rng.bool() {
            true => Command::Promote,
            false => Command::Abort,
        },
        4..=5 => Command::Restart { pool, slot: None },
        6..=7 => Command::Restart {
            pool,
            slot: Some(slot),
        },
        8..=9 => Command::Pause { pool, slot },
        10..=11 => Command::Resume { pool, slot },
        12..=13 => Command::Drain { pool, slot },
        _ => Command::Kill { pool, slot },
    }
}

/// A new configuration: pools come and go, change their size, their numbers,
/// their order, or only what their workers can take in place.
fn edit(world: &mut World) -> Plan {
    let generation = world.next_generation();
    let mut pools = world.facts.configured(&world.fleet);
    let rng = &mut world.rng;
    if pools.len() > 1 && rng.u8(0..4) == 0 {
        pools.remove(rng.usize(0..pools.len()));
    }
    if pools.len() < 4 && rng.u8(0..4) == 0 {
        let names = ["web", "api", "jobs", "mail", "cron"];
        let free = |name: &&str| pools.iter().all(|pool| pool.name != **name);
        let name = names.into_iter().find(free).expect("there are five");
        let workers = rng.u32(1..=4);
        pools.push(policy(rng, name, workers));
    }
    if rng.bool() {
        rng.shuffle(&mut pools);
    }
    let pools = pools.into_iter().map(|pool| planned(rng, pool)).collect();
    Plan { generation, pools }
}

fn planned(rng: &mut fastrand::Rng, mut pool: Policy) -> PlannedPool {
    if rng.u8(0..3) == 0 {
        pool.workers = rng.u32(pool.workers.div_ceil(2)..=pool.workers.div_ceil(2) * 3);
        pool.workers = pool.workers.min(1000);
    }
    let others = rng.u8(0..3) == 0;
    if others {
        pool = policy(rng, &pool.name, pool.workers);
    }
    PlannedPool {
        policy: pool,
        fate: match rng.u8(0..4) {
            0 => Fate::InPlace,
            // Its workers have the same settings, or are not the same.
            1 if !others => Fate::Kept,
            _ => Fate::Replaced,
        },
        canary: (rng.u8(0..4) == 0).then(|| canary(rng)),
    }
}

fn canary(rng: &mut fastrand::Rng) -> Canary {
    Canary {
        workers: rng.u32(1..=3),
        duration: Duration::from_secs(rng.u64(1..=5)),
        min_requests: rng.u64(1..=100),
        max_p99_ratio: if rng.bool() { 2.0 } else { 0.0 },
        on_no_verdict: match rng.bool() {
            true => NoVerdict::Proceed,
            false => NoVerdict::Undo,
        },
    }
}

/// A reload that is bound to succeed where nothing goes wrong: every worker is
/// replaced, and every pool keeps its size.
pub(crate) fn touch(world: &mut World) -> Command {
    let generation = world.next_generation();
    let pools = world.facts.configured(&world.fleet).into_iter();
    let pools = pools.map(|policy| PlannedPool {
        policy,
        fate: Fate::Replaced,
        canary: None,
    });
    Command::Reload(Plan {
        generation,
        pools: pools.collect(),
    })
}
