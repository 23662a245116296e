#![doc = include_str!("../README.md")]

mod channels;
mod command;
mod error;
mod event;
mod exit;
mod job;
mod listener;
mod log;
mod requests;
mod status;
mod thread_dump;
mod traffic;
mod worker;

pub use channels::{ChannelStatus, Channels};
pub use command::{
    LogLevelBody, ReloadBody, RollbackBody, ScaleBody, StopBody, TellBody, UpgradeBody,
};
pub use error::{ApiError, ErrorCode};
pub use event::Event;
pub use exit::{Exit, ExitReason};
pub use job::{JobLine, JobResult, TellOutcome, TellReply};
pub use listener::{CertificateStatus, ListenerStatus, TlsStatus};
pub use log::LogEntry;
pub use requests::{RequestStage, Requests, RunningRequest, WorkerRequest};
pub use status::{CanaryStatus, GenerationCounts, LastReload, PoolStatus, Readiness, Status};
pub use thread_dump::{StackFrame, ThreadDump, ThreadStack};
pub use traffic::{PoolTraffic, Traffic, TrafficPoint, WorkerTraffic, quantile};
pub use worker::{Describe, DrainingStatus, SlotState, WorkerStatus};

/// The version of the shapes in this crate.
pub const SCHEMA: u32 = 1;

/// A slot by its name, or the pool where no slot is named.
fn whom(pool: Option<&str>, slot: Option<u32>) -> Option<String> {
    Some(match (pool?, slot) {
        (pool, Some(slot)) => format!("{pool}/{slot}"),
        (pool, None) => pool.to_owned(),
    })
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
