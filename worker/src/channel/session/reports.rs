//! Reports of a ready worker: health, and the application's metrics.

use std::time::Duration;

use prefork_proto::message::{Health, ToSupervisor};
use tokio::time::Instant;

use crate::channel::uplink::Uplink;

use super::{Course, Session};

impl Session {
    /// Reports health, unless the supervisor has not taken the last report.
    pub(super) fn report(&mut self, course: &mut Course) {
        let now = Instant::now();
        let late = now.saturating_duration_since(course.next_report);
        course.next_report = now + self.pace.heartbeat;
        if self.uplink.is_clear() {
            let health = self.health(late, course);
            self.say(&ToSupervisor::Health(health), course);
        }
        self.report_metrics(course);
    }

    /// Reports the application's metrics as far as the link takes them; health
    /// goes first, and the rest waits for the next time.
    pub(super) fn report_metrics(&mut self, course: &mut Course) {
        while let Uplink::Link(link) = &self.uplink
            && let Some(message) = self.metrics.next(link)
        {
            self.say(&message, course);
        }
    }

    /// The last report on the application's metrics, for which the link is
    /// waited for.
    pub(super) async fn report_last_metrics(&mut self, course: &mut Course) {
        self.metrics.conclude();
        self.report_metrics(course);
        while let Uplink::Link(link) = &mut self.uplink
            && !link.is_clear()
        {
            link.finish().await;
            if !link.is_clear() {
                return;
            }
            self.report_metrics(course);
        }
    }

    pub(super) fn health(&self, late: Duration, course: &mut Course) -> Health {
        course.seq += 1;
        let tally = &self.serving.tally;
        Health {
            seq: course.seq,
            in_flight: tally.in_flight(),
            connections: self.serving.open(),
            loop_lag_us: u64::try_from(late.as_micros()).unwrap_or(u64::MAX),
            status: self.context.status(),
            // In a scoreboard the supervisor sees them anyway.
            http: tally.memory().is_none().then(|| Box::new(tally.totals())),
            access_log_dropped: self.serving.access_log.dropped(),
            handoffs: (self.serving.drain.is_on())
                .then(|| Box::new(self.serving.handoffs.counts())),
        }
    }
}
