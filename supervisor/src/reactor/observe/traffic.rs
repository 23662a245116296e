//! What pools and workers serve: totals of this moment, and the last ten minutes of each
//! pool, so that whoever opens the page at night sees how it came to this.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use prefork_api::{PoolTraffic, SCHEMA, Traffic, TrafficPoint, WorkerTraffic, quantile};
use prefork_fleet::PoolView;
use prefork_proto::message::{DURATION_BOUNDS, HttpCounts};

use crate::handle::{Overview, Wanted};
use crate::reactor::{PULSE, Reactor, since_boot, unix_seconds};

/// Between two points.
const STEP: Duration = Duration::from_secs(5);

/// The points of a pool: ten minutes.
const POINTS: usize = 120;

/// How many requests the page has.
const OLDEST_REQUESTS: usize = 10;

/// How many events the page has.
const LAST_EVENTS: usize = 20;

/// What the pools have served lately. It has a bound for each pool, however many workers
/// there are.
#[derive(Debug, Default)]
pub(in crate::reactor) struct RecentTraffic {
    /// When the last points were taken.
    taken: Option<Instant>,
    pools: BTreeMap<String, Course>,
}

/// What one pool has served.
#[derive(Debug, Default)]
struct Course {
    /// The totals at the last point; none before the first look.
    counted: Option<HttpCounts>,
    points: VecDeque<TrafficPoint>,
}

/// A pool's totals at a moment.
struct Count {
    pool: String,
    http: HttpCounts,
    in_flight: u64,
}

impl RecentTraffic {
    /// Whether it is time for the next points. The pulse that looks comes a bit early or
    /// late.
    fn is_due(&self, now: Instant) -> bool {
        self.taken
            .is_none_or(|taken| now.saturating_duration_since(taken) + PULSE / 2 >= STEP)
    }

    /// Takes a point of each of these pools; others are forgotten.
    fn note(&mut self, now: Instant, at: f64, counts: Vec<Count>) {
        let passed = self
            .taken
            .replace(now)
            .map_or(Duration::ZERO, |taken| now.saturating_duration_since(taken));
        let mut before = std::mem::take(&mut self.pools);
        for count in counts {
            let mut course = before.remove(&count.pool).unwrap_or_default();
            if let Some(counted) = course.counted.replace(count.http.clone()) {
                if course.points.len() == POINTS {
                    course.points.pop_front();
                }
                let point = point(&counted, &count, at, passed);
                course.points.push_back(point);
            }
            self.pools.insert(count.pool, course);
        }
    }

    /// A pool's points, the oldest first.
    fn of(&self, pool: &str) -> Vec<TrafficPoint> {
        let course = self.pools.get(pool);
        course.map_or_else(Vec::new, |course| course.points.iter().cloned().collect())
    }
}

/// What was served between two looks.
fn point(before: &HttpCounts, now: &Count, at: f64, passed: Duration) -> TrafficPoint {
    let [.., failed_before] = before.requests;
    let [.., failed] = now.http.requests;
    let buckets = now.http.duration_buckets.iter();
    let durations: Vec<u64> = buckets
        .zip(before.duration_buckets)
        .map(|(now, before)| now.saturating_sub(before))
        .collect();
    TrafficPoint {
        at,
        seconds: passed.as_secs_f64(),
        requests: now.http.total().saturating_sub(before.total()),
        failed: failed.saturating_sub(failed_before),
        p99_seconds: quantile(&DURATION_BOUNDS, &durations, 0.99),
        in_flight: now.in_flight,
    }
}

impl Reactor {
    /// Takes the next points of the pools' history, where it is time.
    pub(in crate::reactor) fn note_traffic(&mut self) {
        let now = Instant::now();
        if !self.history.is_due(now) {
            return;
        }
        self.read_scoreboards();
        let counts = self.fleet.pools().filter_map(|pool| self.count(&pool));
        let counts = counts.collect();
        self.history.note(now, unix_seconds(), counts);
    }

    /// What a pool has served; none where its workers do not count it.
    fn count(&self, pool: &PoolView<'_>) -> Option<Count> {
        let metrics = |slot| self.metrics.known_slot(pool.name(), slot);
        let slots = pool.slots().filter_map(|slot| metrics(slot.index()));
        Some(Count {
            pool: pool.name().to_owned(),
            http: self.metrics.served_by(pool.name())?,
            in_flight: slots.map(|slot| slot.in_flight()).sum(),
        })
    }

    /// What was served, up to this moment.
    pub(in crate::reactor) fn traffic(&mut self) -> Traffic {
        self.look_at_processes();
        self.traffic_as_read()
    }

    fn traffic_as_read(&self) -> Traffic {
        Traffic {
            schema: SCHEMA,
            uptime_seconds: since_boot().since(self.began).as_secs_f64(),
            bounds: DURATION_BOUNDS.to_vec(),
            pools: self
                .fleet
                .pools()
                .map(|pool| self.pool_traffic(&pool))
                .collect(),
        }
    }

    fn pool_traffic(&self, pool: &PoolView<'_>) -> PoolTraffic {
        let worker = |slot| {
            let metrics = self.metrics.known_slot(pool.name(), slot)?;
            let http = metrics.http();
            Some(WorkerTraffic {
                slot,
                requests: http.as_ref().map(|http| http.requests),
                durations: http.map_or_else(Vec::new, |http| http.duration_buckets.to_vec()),
                cpu_seconds: metrics.cpu_seconds(),
            })
        };
        PoolTraffic {
            name: pool.name().to_owned(),
            history: self.history.of(pool.name()),
            workers: pool
                .shown()
                .filter_map(|slot| worker(slot.index()))
                .collect(),
        }
    }

    /// Everything that the page at the admin address shows.
    pub(in crate::reactor) fn overview(&mut self) -> Overview {
        let status = self.status();
        let running = self.running_requests(&Wanted::default());
        let mut requests = running.map_or_else(|_| Vec::new(), |running| running.requests);
        requests.truncate(OLDEST_REQUESTS);
        Overview {
            status,
            traffic: self.traffic_as_read(),
            requests,
            events: self.journal.last(LAST_EVENTS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(pool: &str, served: u64, failed: u64) -> Count {
        let mut http = HttpCounts {
            requests: [0, served - failed, 0, 0, failed],
            ..HttpCounts::default()
        };
        http.duration_buckets[1] = served;
        Count {
            pool: pool.to_owned(),
            http,
            in_flight: 3,
        }
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_point_has_what_was_served_since_the_one_before() {
        let mut history = RecentTraffic::default();
        let start = Instant::now();
        history.note(start, 100.0, vec![count("web", 1000, 10)]);
        assert_eq!(history.of("web"), [], "totals of before are of no interval");
        history.note(after(start, 5), 105.0, vec![count("web", 1100, 15)]);
        let [point] = &history.of("web")[..] else {
            panic!("{history:?}");
        };
        assert_eq!((point.rate(), point.failure_rate()), (20.0, 1.0));
        assert_eq!((point.at, point.in_flight), (105.0, 3));
        let p99 = point.p99_seconds.unwrap();
        assert!(p99 > 0.0005 && p99 <= 0.001, "{p99}");
    }

    #[test]
    fn it_is_due_by_the_pulse_that_is_nearest() {
        let mut history = RecentTraffic::default();
        let start = Instant::now();
        assert!(history.is_due(start));
        history.note(start, 0.0, vec![]);
        assert!(!history.is_due(after(start, 4)));
        assert!(history.is_due(start + Duration::from_millis(4990)));
    }

    #[test]
    fn it_keeps_ten_minutes_and_no_pool_that_is_gone() {
        let mut history = RecentTraffic::default();
        let start = Instant::now();
        for step in 0..=200_u64 {
            let counts = vec![count("web", step, 0), count("old", step, 0)];
            history.note(after(start, 5 * step), step as f64, counts);
        }
        let points = history.of("web");
        assert_eq!((points.len(), points[119].at), (POINTS, 200.0));
        history.note(after(start, 1005), 201.0, vec![count("web", 200, 0)]);
        assert_eq!(history.of("old"), []);
    }

    #[test]
    fn a_pool_that_comes_back_with_fewer_has_served_nothing_meanwhile() {
        let mut history = RecentTraffic::default();
        let start = Instant::now();
        history.note(start, 0.0, vec![count("web", 1000, 0)]);
        history.note(after(start, 5), 5.0, vec![count("web", 3, 0)]);
        assert_eq!(history.of("web")[0].requests, 0);
    }
}
