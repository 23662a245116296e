//! One schedule: boot, chaos, calm, stop.

use std::time::Duration;

use prefork_api::SlotState;
use prefork_fleet::{Command, Time};

use crate::Happened;
use crate::plan::{Faults, Plan, seconds};
use crate::world::World;

/// By then a first boot without faults is over.
const BOOT: Duration = Duration::from_secs(20);
/// By then a fleet without faults is complete: the longest heartbeat or boot
/// timeout, the longest wait, the longest answer, and a boot.
const RECOVERY: Duration = Duration::from_secs(25);
/// By then a drain, a stop, a kill and the patience with the kernel are over.
const STOP: Duration = Duration::from_secs(18);

/// Runs a schedule and checks all the way.
pub(crate) fn run(plan: &Plan, trace: bool) -> Happened {
    if trace {
        eprintln!("{plan:#?}");
    }
    let mut world = World::new(plan, trace);
    if plan.faulty_boot {
        world.faults = plan.faults;
    }
    world.start();
    for _ in 0..plan.commands {
        world.expect_operator(plan.chaos);
    }
    let end = world.now.after(BOOT + plan.chaos);
    world.run_until(end, |world| world.facts.booted || world.facts.ended);
    if world.facts.boot_failed {
        assert!(world.facts.ended, "a failed boot did not end");
        return world.facts.happened;
    }
    assert!(world.facts.booted, "the boot neither succeeded nor failed");

    world.faults = plan.faults;
    let end = world.now.after(plan.chaos);
    world.run_until(end, |_| false);
    if plan.calm {
        calm(&mut world);
    }
    stop(&mut world);
    world.facts.happened
}

/// Once nothing goes wrong any more, the fleet becomes complete and stays so,
/// and every job ends.
fn calm(world: &mut World) {
    world.faults = Faults::default();
    world.calm = true;
    let begin = world.now;
    // What is asked now is answered by then.
    world.run_until(begin.after(Duration::from_secs(6)), |_| false);
    kill_the_paused(world);
    let slots: usize = world.fleet.pools().map(|pool| pool.slots().len()).sum();
    let end = begin.after(RECOVERY);
    world.run_until(end, |world| world.fleet.is_ready());
    assert!(world.fleet.is_ready(), "the fleet did not recover");

    // A rolling restart takes a boot for each slot, a few times over.
    let jobs = Duration::from_millis(1000) * slots as u32 + RECOVERY + STOP;
    let end = world.now.after(jobs);
    world.run_until(end, |world| {
        world.facts.open_jobs.is_empty() && world.fleet.reloading().is_none()
    });
    assert_eq!(world.fleet.reloading(), None, "a reload does not end");
    assert!(
        world.facts.open_jobs.is_empty(),
        "jobs do not end: {:?}",
        world.facts.open_jobs
    );
    world.run_until(begin.after(RECOVERY), |_| false);
    let end = world.now.after(Duration::from_secs(5));
    world.run_until(end, |world| !world.fleet.is_ready());
    assert!(world.fleet.is_ready(), "a healthy fleet lost a worker");
    if world.rng.bool() {
        reload(world, jobs);
    }
}

/// Where nothing goes wrong, a reload succeeds, and the fleet is ready all the
/// while.
fn reload(world: &mut World, within: Duration) {
    let command = crate::operator::touch(world);
    let committed = world.facts.happened.committed;
    world.command(command);
    let end = world.now.after(within);
    world.run_until(end, |world| {
        assert!(world.fleet.is_ready(), "a reload costs a worker");
        world.fleet.reloading().is_none()
    });
    assert_eq!(world.facts.happened.committed, committed + 1);
}

/// Paused workers are not ready, and some of them never answer to `resume`.
fn kill_the_paused(world: &mut World) {
    let paused: Vec<(String, u32)> = world
        .fleet
        .pools()
        .flat_map(|pool| {
            let slots = pool.slots();
            slots
                .filter(|slot| slot.state() == SlotState::Paused)
                .map(move |slot| (pool.name().to_owned(), slot.index()))
        })
        .collect();
    for (pool, slot) in paused {
        world.command(Command::Kill { pool, slot });
    }
}

/// However it is asked for, and whatever state the fleet is in, it ends.
fn stop(world: &mut World) {
    let at_once = world.rng.bool();
    let begin: Time = world.now;
    world.command(Command::Stop { now: at_once });
    if world.rng.bool() && !world.facts.ended {
        let pause = seconds(&mut world.rng, 0.0, 3.0);
        world.run_until(world.now.after(pause), |world| world.facts.ended);
    }
    if world.rng.bool() && !world.facts.ended {
        world.command(Command::ScaleBy { pool: None, by: 1 });
        world.command(Command::Stop { now: false });
    }
    world.run_until(begin.after(STOP), |world| world.facts.ended);
    assert!(world.facts.ended, "the stop does not end");
    assert!(world.facts.open_jobs.is_empty());
}
