//! The order to stop, and `stop_delay` between it and the drain.
//!
//! While the delay lasts only the answer to probes is another one: the fleet knows of
//! nothing yet, so that whatever dies is replaced and whoever comes is served.

use std::time::{Duration, Instant};

use prefork_api::JobLine;
use prefork_fleet::Command;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use crate::config;
use crate::reactor::Reactor;

/// Within this time of an order to stop another one means the same: a terminal, a
/// wrapper and a service manager all pass it on.
const ONE_ORDER: Duration = Duration::from_millis(500);

/// How far the end has come.
#[derive(Debug, Default)]
pub(super) struct StopOrder {
    /// When the last step was made.
    stepped: Option<Instant>,
    /// The delay, while it lasts.
    delay: Option<Delay>,
}

#[derive(Debug)]
struct Delay {
    ends: Instant,
    /// Who waits for the end of everything.
    askers: Vec<UnboundedSender<JobLine>>,
}

/// What an order to stop leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Probes are told no, and all is served for this long.
    Announce(Duration),
    /// What is in flight is finished.
    Drain,
    /// What is in flight is cut.
    End,
}

impl StopOrder {
    /// When the delay is over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.delay.as_ref().map(|delay| delay.ends)
    }

    /// Whether an order that comes now is the last one again.
    pub(super) fn is_one_order(&self) -> bool {
        let last = self.stepped;
        last.is_some_and(|stepped| stepped.elapsed() < ONE_ORDER)
    }

    /// Notes that the drain has begun, or is cut short.
    pub(super) fn drains(&mut self) {
        self.stepped = Some(Instant::now());
    }
}

impl Reactor {
    /// Whether the supervisor is on its way out, drains or will.
    pub(super) fn is_told_to_stop(&self) -> bool {
        self.stop.delay.is_some() || self.fleet.stopping()
    }

    /// Warns of an engine that kills before a stop is over.
    pub(super) fn warn_of_grace_period(&self) {
        let told = std::env::var(config::GRACE_PERIOD).ok();
        if let Some(warning) = config::outlasts_grace_period(&self.config, told.as_deref()) {
            warn!("{warning}");
        }
    }

    /// What one more order to stop leads to.
    pub(super) fn next_step(&self, now: bool) -> Step {
        let delay = self.config.supervisor.stop_delay;
        if now || self.fleet.stopping() {
            return Step::End;
        }
        // Before the first start is over nobody is sent here.
        let waits = self.stop.delay.is_none() && !delay.is_zero() && self.fleet.booted();
        match waits {
            true => Step::Announce(delay),
            false => Step::Drain,
        }
    }

    /// Makes the next step to the end.
    pub(super) fn order_stop(&mut self, now: bool, asker: Option<UnboundedSender<JobLine>>) {
        match self.next_step(now) {
            Step::Announce(delay) => self.announce_stop(delay, asker),
            Step::Drain | Step::End => self.drain_all(now, asker),
        }
    }

    fn announce_stop(&mut self, delay: Duration, asker: Option<UnboundedSender<JobLine>>) {
        if let Some(asker) = &asker {
            let after = config::show_duration(delay);
            let message = format!("serves for {after} more, then drains; again drains at once");
            // Who asked may have left.
            let _ = asker.send(JobLine::step("", message));
        }
        let begun = Instant::now();
        self.stop.stepped = Some(begun);
        self.stop.delay = Some(Delay {
            ends: begun + delay,
            askers: asker.into_iter().collect(),
        });
    }

    /// Begins the drain, or ends what drains.
    pub(super) fn drain_all(&mut self, now: bool, asker: Option<UnboundedSender<JobLine>>) {
        let delay = self.stop.delay.take();
        let mut askers = delay.map_or_else(Vec::new, |delay| delay.askers);
        askers.extend(asker);
        self.command(Command::Stop { now }, askers);
    }
}
