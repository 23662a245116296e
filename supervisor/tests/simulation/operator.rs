//! An operator who commands at random, with typing errors.

use prefork_supervisor::fleet::{Command, PoolId};

use crate::world::World;

/// The next command. Never `stop`, which a schedule ends with.
pub(crate) fn think(world: &mut World) -> Command {
    let pools = world.fleet.pools().len() as u32;
    let id = PoolId(world.rng.u32(0..pools));
    let view = world.fleet.pool(id).expect("there are so many pools");
    let (desired, initial) = (view.desired(), world.facts.initial(id));
    let rng = &mut world.rng;
    let pool = if rng.u8(0..30) == 0 {
        "wbe".to_owned()
    } else {
        view.name().to_owned()
    };
    // One in so many slots does not exist.
    let slot = rng.u32(0..desired + 1);
    match rng.u8(0..16) {
        0..=2 => Command::Scale {
            pool,
            workers: rng.u32(0..=initial * 2),
        },
        3 => Command::ScaleBy {
            by: if rng.bool() { 1 } else { -1 },
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
