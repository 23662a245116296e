//! A health report's whole way, as often as asked, but for the event loop:
//! encoded, sent, received, parsed, counted for its slot and judged by the
//! fleet. The supervisor itself does not run under callgrind, which knows no
//! pidfds.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use prefork_fleet::{Action, Event, Fleet, Policy, Time, Worker};
use prefork_proto::channel::{self, Receive, WorkerEnd};
use prefork_proto::error::ChannelError;
use prefork_proto::message::{Health, ToSupervisor};
use prefork_supervisor::metrics::Metrics;

use crate::suite::policy;

pub(super) fn send(times: usize) -> Result<()> {
    let (mut supervisor, theirs) = channel::pair()?;
    let mut worker = WorkerEnd::new(theirs);
    let (mut fleet, who) = booted(policy(1))?;
    let (decode, send) = (ChannelError::DECODE_REASONS, ChannelError::SEND_REASONS);
    let now = SystemTime::now();
    let mut metrics = Metrics::new("0", now, decode, send);
    let slot = metrics.slot("web", 0);
    slot.started(who.incarnation, 7, 1, now);
    for seq in 1..=times as u64 {
        let health = Health {
            seq,
            in_flight: seq % 7,
            connections: 250,
            loop_lag_us: 112,
            ..Health::default()
        };
        worker.queue(&ToSupervisor::Health(health))?;
        worker.flush()?;
        let health = match supervisor.receive()? {
            Receive::Message(received) => match received.message {
                ToSupervisor::Health(health) => health,
                other => bail!("unexpected: {other:?}"),
            },
            other => bail!("unexpected: {other:?}"),
        };
        slot.health(who.incarnation, &health, now);
        slot.channel_counters(who.incarnation, supervisor.counters());
        let event = Event::Health {
            worker: who,
            requests: 10 * seq,
            in_flight: health.in_flight,
        };
        fleet.step(Time(Duration::from_secs(seq)), event);
    }
    Ok(())
}

/// A fleet of one worker that is ready.
fn booted(policy: Policy) -> Result<(Fleet, Worker)> {
    let mut fleet = Fleet::new(1, vec![policy]);
    let actions = fleet.start(Time::default());
    let spawned = actions.iter().find_map(|action| match action {
        Action::Spawn { worker, .. } => Some(*worker),
        _ => None,
    });
    let worker = spawned.context("the fleet starts nobody")?;
    fleet.step(Time::default(), Event::Spawned { worker, pid: 7 });
    fleet.step(Time::default(), Event::Ready { worker });
    Ok((fleet, worker))
}
