//! The hot paths alone: the line codec, counting in the scoreboard, a step of
//! the fleet, and the exposition. `cargo bench -p prefork-bench`

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::Criterion;
use prefork_fleet::{Action, Event, Fleet, Policy, Quorum, Time};
use prefork_proto::channel::{self, Receive, WorkerEnd};
use prefork_proto::error::ChannelError;
use prefork_proto::message::{Health, ToSupervisor};
use prefork_proto::scoreboard::Tally;
use prefork_supervisor::config::Detail;
use prefork_supervisor::metrics::Metrics;

/// A `health` report over a channel within one process: encoded, sent,
/// received, parsed.
fn codec(c: &mut Criterion) {
    let (mut supervisor, theirs) = channel::pair().expect("a socketpair");
    let mut worker = WorkerEnd::new(theirs);
    let report = ToSupervisor::Health(Health {
        seq: 86_400,
        connections: 250,
        http: Some(Box::default()),
        ..Health::default()
    });
    c.bench_function("health over a channel", |b| {
        b.iter(|| {
            worker.queue(&report).expect("the queue is empty");
            worker.flush().expect("the socket is empty");
            match supervisor.receive().expect("the line is right") {
                Receive::Message(received) => received.message,
                other => panic!("unexpected: {other:?}"),
            }
        });
    });
}

/// What a request costs in counting.
fn scoreboard(c: &mut Criterion) {
    let tally = Tally::private();
    c.bench_function("a request in the scoreboard", |b| {
        b.iter(|| {
            tally.received(black_box(80));
            tally.request_began();
            tally.answered(black_box(200), black_box(Duration::from_micros(120)));
            tally.sent(black_box(130));
            tally.request_ended();
        });
    });
}

/// A `health` report to a fleet of 1,000 workers.
fn fleet(c: &mut Criterion) {
    let second = Duration::from_secs(1);
    let policy = Policy {
        name: "web".to_owned(),
        workers: 1000,
        boot_timeout: 30 * second,
        heartbeat_timeout: 10 * second,
        drain_timeout: 30 * second,
        kill_timeout: 5 * second,
        backoff_initial: second / 10,
        backoff_max: 30 * second,
        backoff_reset: 10 * second,
        max_requests: 0,
        max_requests_jitter: 0.1,
        max_rss: None,
        max_age: None,
        min_ready: Duration::ZERO,
        max_surge: 1,
        dump_on_hang: false,
        ready: Quorum::Any,
    };
    let mut fleet = Fleet::new(1, vec![policy]);
    let mut workers = Vec::new();
    for action in fleet.start(Time::default()) {
        if let Action::Spawn { worker, .. } = action {
            fleet.step(Time::default(), Event::Spawned { worker, pid: 7 });
            fleet.step(Time::default(), Event::Ready { worker });
            workers.push(worker);
        }
    }
    assert!(fleet.is_ready(), "the fleet is up");
    let mut now = Duration::from_secs(1);
    let mut turn = workers.into_iter().cycle();
    c.bench_function("a health report to the fleet", |b| {
        b.iter(|| {
            now += Duration::from_micros(1);
            let event = Event::Health {
                worker: turn.next().expect("it never ends"),
                requests: 10,
                in_flight: 1,
            };
            fleet.step(Time(now), event)
        });
    });
}

/// The exposition by both details.
fn exposition(c: &mut Criterion) {
    let now = SystemTime::now();
    let (decode, send) = (ChannelError::DECODE_REASONS, ChannelError::SEND_REASONS);
    for slots in [2, 64, 1000] {
        let mut metrics = Metrics::new("0.1.0", now, decode, send);
        metrics.pool("web");
        for index in 0..slots {
            let slot = metrics.slot("web", index);
            slot.started(1, 4711, 1, now);
        }
        for (name, detail) in [("slot", Detail::Slot), ("pool", Detail::Pool)] {
            metrics.set_detail(detail);
            let name = format!("the exposition of {slots} slots by {name}");
            c.bench_function(&name, |b| b.iter(|| metrics.encode()));
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for bench in [codec, scoreboard, fleet, exposition] {
        bench(&mut criterion);
    }
    criterion.final_summary();
}
