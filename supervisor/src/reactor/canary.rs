//! Canaries: what they and the old generation have served is read for the fleet, and how
//! they stand is told.

use prefork_api::{CanaryStatus, GenerationCounts};
use prefork_proto::message::{DURATION_BOUNDS, HttpCounts};
use prefork_proto::upstream_counts::Answers;
use tracing::{info, warn};

use super::Reactor;
use super::observe::events::About;
use super::worker_process::handle::Grip;
use prefork_fleet::{Event, PoolId, PoolView, Traffic, Verdict, Worker};

impl Reactor {
    /// Answers every count that the fleet has asked for.
    pub(super) fn count_traffic(&mut self) {
        while let Some(pool) = self.counts.pop_front() {
            let members = self.processes.iter().filter(|(it, _)| it.pool == pool);
            let tallies =
                members.filter_map(|(worker, grip)| Some((*worker, self.served(*worker, grip)?)));
            let tallies = tallies.collect();
            self.feed(counted(pool, tallies));
        }
    }

    /// What a process that has ended has served up to its end, where that is compared.
    pub(super) fn last_traffic(&self, worker: Worker, grip: &Grip) -> Option<Event> {
        self.fleet.pool(worker.pool)?.canary()?;
        Some(counted(
            worker.pool,
            vec![(worker, self.served(worker, grip)?)],
        ))
    }

    /// What a process has served: as its fronts count it, or by its scoreboard, or else by
    /// its last report.
    fn served(&self, worker: Worker, grip: &Grip) -> Option<Traffic> {
        if grip.upstream.is_some() {
            return self.answered(worker).map(traffic_behind);
        }
        let vitals = grip.vitals.borrow();
        let counted = vitals.counted();
        let http = match &counted {
            Some(counted) => &counted.http,
            None => vitals.health.as_ref()?.http.as_ref()?,
        };
        Some(traffic_of(http))
    }

    /// How a pool's canary stands, if one is being judged.
    pub(super) fn canary_status(&self, pool: &PoolView<'_>) -> Option<CanaryStatus> {
        let canary = pool.canary()?;
        let [old, new] = canary.traffic();
        let [old_p99, new_p99] = canary.p99().map(|it| it.map(|p99| p99.as_secs_f64()));
        Some(CanaryStatus {
            generation: self.fleet.reloading()?,
            workers: canary.workers(),
            seconds_left: canary.ends().since(self.now()).as_secs_f64(),
            new: counts(new, new_p99),
            old: counts(old, old_p99),
        })
    }

    pub(super) fn canary_begun(&mut self, pool: PoolId, workers: u32) {
        let message = match workers {
            1 => "1 worker of the new generation is judged".to_owned(),
            _ => format!("{workers} workers of the new generation are judged"),
        };
        self.tell_of_pool("canary", pool, message);
    }

    pub(super) fn canary_ended(&mut self, pool: PoolId, verdict: Verdict, message: String) {
        let name = self.fleet.pool(pool).map(|pool| pool.name().to_owned());
        if let Some(name) = &name {
            self.metrics.pool(name).judged(verdict);
        }
        match verdict {
            Verdict::Passed | Verdict::Promoted => {
                self.tell_of_pool("canary", pool, message);
            }
            Verdict::Failed | Verdict::None | Verdict::Aborted => {
                warn!(pool = name, "{message}");
                self.note_of_pool("canary", name, message);
            }
        }
    }

    fn tell_of_pool(&mut self, kind: &str, pool: PoolId, message: String) {
        let name = self.fleet.pool(pool).map(|pool| pool.name().to_owned());
        info!(pool = name, "{message}");
        self.note_of_pool(kind, name, message);
    }

    fn note_of_pool(&mut self, kind: &str, pool: Option<String>, message: String) {
        let about = About {
            pool,
            ..About::default()
        };
        self.journal.note(kind, about, message);
    }
}

fn counted(pool: PoolId, tallies: Vec<(Worker, Traffic)>) -> Event {
    Event::Counted {
        pool,
        bounds: &DURATION_BOUNDS,
        tallies,
    }
}

fn traffic_of(http: &HttpCounts) -> Traffic {
    let [.., failed] = http.requests;
    Traffic {
        requests: http.total(),
        failed,
        panics: http.panics,
        durations: http.duration_buckets.to_vec(),
    }
}

fn traffic_behind(answers: Answers) -> Traffic {
    Traffic {
        requests: answers.requests,
        failed: answers.failed,
        panics: 0,
        durations: answers.durations.to_vec(),
    }
}

fn counts(traffic: &Traffic, p99_seconds: Option<f64>) -> GenerationCounts {
    GenerationCounts {
        requests: traffic.requests,
        failed: traffic.failed,
        panics: traffic.panics,
        p99_seconds,
    }
}
