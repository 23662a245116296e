//! The fleet alone: no process, no socket, only its decisions.

use std::time::{Duration, Instant};

use prefork_fleet::{Action, Death, Event, Fleet, Signal, Time, Worker};

use crate::bench::Bench;
use crate::report::{Cell, Table};
use crate::suite::policy;

pub(super) fn table(bench: &Bench) -> Table {
    let mut table = Table::new(
        "The fleet alone, in simulation",
        &[
            "slots",
            "boot ns/slot",
            "health report ns",
            "crash and replacement ns",
        ],
    );
    for slots in bench
        .pick(&[1000, 10_000, 100_000][..], &[1000][..])
        .iter()
        .copied()
    {
        let mut fleet = Fleet::new(1, vec![policy(slots)]);
        let per_slot = |took: Duration| Cell::Number(took.as_nanos() as f64 / f64::from(slots), 0);
        let (workers, boot) = boot(&mut fleet);
        let health = report_all(&mut fleet, &workers);
        let crash = crash_all(&mut fleet, &workers);
        table.row([
            Cell::from(u64::from(slots)),
            per_slot(boot),
            per_slot(health),
            per_slot(crash),
        ]);
    }
    table
}

fn spawned(actions: &[Action]) -> Vec<Worker> {
    let spawned = actions.iter().filter_map(|action| match action {
        Action::Spawn { worker, .. } => Some(*worker),
        _ => None,
    });
    spawned.collect()
}

fn boot(fleet: &mut Fleet) -> (Vec<Worker>, Duration) {
    let begun = Instant::now();
    let workers = spawned(&fleet.start(Time::default()));
    for (worker, pid) in workers.iter().copied().zip(100..) {
        fleet.step(Time::default(), Event::Spawned { worker, pid });
        fleet.step(Time::default(), Event::Ready { worker });
    }
    assert!(fleet.is_ready(), "the fleet is up");
    (workers, begun.elapsed())
}

fn report_all(fleet: &mut Fleet, workers: &[Worker]) -> Duration {
    let now = Time(Duration::from_secs(1));
    let begun = Instant::now();
    for worker in workers.iter().copied() {
        let event = Event::Health {
            worker,
            requests: 10,
            in_flight: 1,
        };
        fleet.step(now, event);
    }
    begun.elapsed()
}

fn crash_all(fleet: &mut Fleet, workers: &[Worker]) -> Duration {
    let now = Time(Duration::from_secs(2));
    let begun = Instant::now();
    for worker in workers.iter().copied() {
        let exit = Death {
            signal: Some(Signal(9)),
            ..Death::default()
        };
        for worker in spawned(&fleet.step(now, Event::Exited { worker, exit })) {
            fleet.step(now, Event::Spawned { worker, pid: 99 });
            fleet.step(now, Event::Ready { worker });
        }
    }
    begun.elapsed()
}
