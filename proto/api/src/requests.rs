//! Requests that are being served: `GET /v1/requests`.

use serde::{Deserialize, Serialize};

/// What is being done about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestStage {
    /// It waits for its turn.
    Queued,
    /// The application has it and has not answered.
    Working,
    /// Its response is on its way to the client.
    Responding,
}

impl RequestStage {
    /// The name used in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Working => "working",
            Self::Responding => "responding",
        }
    }
}

/// A request that a worker was serving at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningRequest {
    /// Its method.
    pub method: String,
    /// Its target, without the query unless `[requests] query` is set. Of a longer one the
    /// first 128 bytes, and `…`.
    pub target: String,
    /// Who it came from, `ADDRESS:PORT`; absent for a client of a unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// What it goes by (`x-request-id`), its first 48 bytes; absent where its worker gives
    /// out none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is being done.
    pub stage: RequestStage,
    /// Milliseconds since it came.
    pub age_ms: u64,
    /// Bytes of the response's body that were given out.
    pub sent_bytes: u64,
}

/// A request and the worker that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRequest {
    /// The worker's pool.
    pub pool: String,
    /// The worker's slot.
    pub slot: u32,
    /// The worker's process id.
    pub pid: i32,
    /// The request.
    #[serde(flatten)]
    pub request: RunningRequest,
}

/// The requests that are being served: `GET /v1/requests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// [`SCHEMA`](crate::SCHEMA).
    pub schema: u32,
    /// The requests, the oldest first, 1,000 at most.
    pub requests: Vec<WorkerRequest>,
    /// Further ones that were asked for, all of them younger.
    pub more: u64,
    /// Requests that their workers had no room to note, whatever their age.
    pub unlisted: u64,
    /// Workers that were asked for and note no requests.
    pub silent_workers: u64,
}
