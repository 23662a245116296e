//! Drives a fleet by hand in tests: time passes when it is told to, and
//! processes do what they are told to.

use std::time::Duration;

use prefork_proto::control::{Exit, SlotState};

use super::{
    Action, Command, Death, Event, Fleet, JobId, Policy, PoolId, Refusal, Report, SlotView, Time,
    Worker,
};

/// The default policy, without limits.
pub(super) fn policy(name: &str, workers: u32) -> Policy {
    Policy {
        name: name.to_owned(),
        workers,
        boot_timeout: Duration::from_secs(30),
        heartbeat_timeout: Duration::from_secs(10),
        drain_timeout: Duration::from_secs(30),
        kill_timeout: Duration::from_secs(5),
        backoff_initial: Duration::from_millis(100),
        backoff_max: Duration::from_secs(30),
        backoff_reset: Duration::from_secs(10),
        max_requests: 0,
        max_requests_jitter: 0.1,
        max_rss: None,
        max_age: None,
        max_surge: 1,
        dump_on_hang: false,
    }
}
