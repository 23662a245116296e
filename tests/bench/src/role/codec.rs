//! The line codec's work, as often as asked: for counting its instructions.

use std::hint::black_box;

use anyhow::{Result, bail};
use prefork_proto::channel::{self, Receive, WorkerEnd};
use prefork_proto::message::{Health, HttpCounts, ToSupervisor};

fn report() -> ToSupervisor {
    ToSupervisor::Health(Health {
        seq: 86_400,
        in_flight: 3,
        connections: 250,
        loop_lag_us: 112,
        status: String::new(),
        access_log_dropped: 0,
        handoffs: None,
        http: Some(Box::new(HttpCounts {
            requests: [0, 1_234_567, 1234, 321, 7],
            accepted: 54_321,
            received_bytes: 123_456_789,
            sent_bytes: 987_654_321,
            duration_buckets: [81_234; 15],
            duration_sum_us: 1_234_567_890,
            panics: 0,
            tls_failures: [0; 5],
        })),
    })
}

/// Over a channel: encoded, framed, sent, received, split, parsed.
pub(super) fn channel(times: usize) -> Result<()> {
    let (mut supervisor, theirs) = channel::pair()?;
    let mut worker = WorkerEnd::new(theirs);
    let report = report();
    for _ in 0..times {
        worker.queue(&report)?;
        worker.flush()?;
        match supervisor.receive()? {
            Receive::Message(received) => black_box(received.message),
            other => bail!("unexpected: {other:?}"),
        };
    }
    Ok(())
}

/// With serde alone: encoded and parsed, without a socket.
pub(super) fn bare(times: usize) -> Result<()> {
    let report = report();
    for _ in 0..times {
        let line = serde_json::to_vec(black_box(&report))?;
        black_box(serde_json::from_slice::<ToSupervisor>(&line)?);
    }
    Ok(())
}
