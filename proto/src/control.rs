//! The control API's types: what `control.sock` and `/status.json` speak.
//!
//! Shapes only ever grow: a field once published keeps its name and meaning.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the shapes in this module.
pub const SCHEMA: u32 = 1;

/// The whole process tree at one moment: `GET /v1/status`, `/status.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The supervisor's version.
    pub version: String,
    /// The supervisor's process id.
    pub pid: i32,
    /// Seconds since the supervisor started.
    pub uptime_seconds: f64,
    /// The generation that is in force.
    pub generation: u64,
    /// Whether [`Self::readiness`] is `ready`: no worker is missing.
    pub ready: bool,
    /// How far the service is ready, as every probe and exit code says it; absent
    /// from supervisors that know only `ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
    /// Whether the supervisor is on its way out.
    #[serde(default)]
    pub stopping: bool,
    /// How often another program has taken the supervisor's place in the same
    /// process.
    #[serde(default)]
    pub upgrades: u64,
    /// How the last reload went; absent before the first.
    pub last_reload: Option<LastReload>,
    /// The pools, in the order of the configuration.
    pub pools: Vec<PoolStatus>,
}

impl Status {
    /// How far the service is ready.
    pub fn readiness(&self) -> Readiness {
        let whole = match self.ready {
            true => Readiness::Ready,
            false => Readiness::NotReady,
        };
        self.readiness.unwrap_or(whole)
    }
}

/// How far a pool is ready, or the service, which is as ready as the least of its
/// pools. The order is from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Fewer workers accept connections than are needed, or the first start is not over.
    NotReady,
    /// Enough accept connections, and not all that should.
    Degraded,
    /// All accept connections that should.
    Ready,
}

impl Readiness {
    /// For people: `ready`, `degraded`, `not ready`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "not ready",
            Self::Degraded => "degraded",
            Self::Ready => "ready",
        }
    }

    /// Whether clients are to be sent here.
    pub fn serves(self) -> bool {
        self >= Self::Degraded
    }
}

/// How the last reload went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastReload {
    /// Whether it was committed.
    pub ok: bool,
    /// When it ended, in seconds since the Unix epoch.
    pub at: f64,
    /// The generation in force after it.
    pub generation: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// The pool's name.
    pub name: String,
    /// How many workers it should have.
    pub desired: u32,
    /// How many the configuration in force says, of which an operator may have scaled it
    /// away; absent from supervisors that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured: Option<u32>,
    /// How many are ready.
    pub ready: u32,
    /// How many of the others an operator has paused; they are not missed.
    #[serde(default)]
    pub paused: u32,
    /// How many have to be ready for the pool to serve, by its `ready` setting; absent
    /// from supervisors that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<u32>,
    /// What that comes to; absent from supervisors that do not tell. A pool that a
    /// reload adds is not missed before it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
    /// The sockets its workers accept from.
    pub listeners: Vec<ListenerStatus>,
    /// How the program's file on disk differs from what runs: `changed` or
    /// `removed`; absent where it doesn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_on_disk: Option<String>,
    /// What a reload would take from the disk, and a restart doesn't: a sentence for
    /// people; absent where nothing has changed since the generation began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disk: Option<String>,
    /// Its slots, by index.
    pub workers: Vec<WorkerStatus>,
}

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name as configured.
    pub name: String,
    /// What it is bound to; the real port where the configuration says 0.
    pub address: String,
    /// `shared` or `per-slot`.
    pub mode: String,
    /// Connections that wait to be accepted; absent where the kernel does not say.
    pub backlog: Option<u64>,
    /// How many may wait.
    pub backlog_limit: Option<u64>,
    /// What its connections speak TLS with; absent where they don't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStatus>,
    /// The permission bits of a unix socket's file as they are now, `0660`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
    /// The group of a unix socket's file as it is now: by name where the configuration
    /// names it, otherwise its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Why no client can come to it, and what mends that; absent where all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What a listener speaks TLS with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TlsStatus {
    /// The oldest version that is spoken: `1.2` or `1.3`.
    pub min_version: String,
    /// Its certificates, the first for clients that name no server.
    pub certificates: Vec<CertificateStatus>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The names that it is for.
    pub names: Vec<String>,
    /// Its SHA-256, in hexadecimal.
    pub fingerprint: String,
    /// Until when it is valid, in seconds since the Unix epoch.
    pub not_after: i64,
}

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Its process has been started and is not ready yet.
    Starting,
    /// It accepts connections.
    Ready,
    /// It finishes what is in flight, then leaves.
    Draining,
    /// It has been told to leave at once.
    Stopping,
    /// It has no process: it waits before the next start.
    Backoff,
    /// It is alive and accepts nothing, by an operator's wish.
    Paused,
    /// It should have no process and has none.
    Empty,
}

impl SlotState {
    /// Every state, in the order in which they are documented.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Ready,
        Self::Draining,
        Self::Stopping,
        Self::Backoff,
        Self::Paused,
        Self::Empty,
    ];

    /// The name used in JSON, metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Paused => "paused",
            Self::Empty => "empty",
        }
    }
}

/// One slot and the process in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The slot's index.
    pub slot: u32,
    /// What it is doing.
    pub state: SlotState,
    /// Its process; absent in `backoff` and `empty`.
    pub pid: Option<i32>,
    /// The generation of its process.
    pub generation: Option<u64>,
    /// How many processes the slot has had.
    pub incarnation: u64,
    /// Seconds since the process started.
    pub uptime_seconds: Option<f64>,
    /// Starts beyond the first, whatever was the reason.
    pub restarts: u64,
    /// How many of the slot's processes ended by themselves, by no fault of an operator or
    /// a limit: crashes, signals, hangs, boots that came to nothing.
    #[serde(default)]
    pub crashes: u64,
    /// Requests in flight, by its last report.
    pub in_flight: u64,
    /// Open connections, by its last report.
    pub connections: u64,
    /// Requests served by all of the slot's processes; absent where its worker counts none.
    pub requests: Option<u64>,
    /// Resident memory of the process.
    pub resident_bytes: Option<u64>,
    /// What the application says of itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Where its process takes what a front forwards, for a program behind one:
    /// `unix:/PATH` or `ADDRESS:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Seconds until the next start, in `backoff`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_seconds: Option<f64>,
    /// Predecessors that still finish what they had.
    pub draining: Vec<DrainingStatus>,
    /// How the slot's last process ended.
    pub last_exit: Option<Exit>,
}

/// A predecessor that still finishes what it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainingStatus {
    /// Its process id.
    pub pid: i32,
    /// Its generation.
    pub generation: u64,
    /// Requests in flight, by its last report.
    pub in_flight: u64,
}

/// Who or what caused an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// Replaced by a newer generation.
    Reload,
    /// The pool was made smaller.
    ScaleDown,
    /// It had served its number of requests.
    MaxRequests,
    /// It had grown over its memory limit.
    MaxRss,
    /// It had reached its age limit.
    MaxAge,
    /// An operator asked for it: restart, drain, kill or stop.
    Operator,
    /// It left by itself with exit code 0.
    Clean,
    /// It left by itself with another exit code, or could not be executed.
    Crash,
    /// A signal ended it that the supervisor did not send.
    Signal,
    /// The kernel ended it for want of memory.
    Oom,
    /// It was not ready in time.
    BootTimeout,
    /// It did not answer the check of new workers as it should.
    CheckFailed,
    /// It stopped reporting.
    HeartbeatTimeout,
    /// It did not finish draining in time.
    DrainTimeout,
    /// It broke the channel protocol.
    ProtocolError,
}

impl ExitReason {
    /// Whether it is a failure of the process: nothing that anybody asked for, or that
    /// its pool's limits say.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Crash
                | Self::Signal
                | Self::Oom
                | Self::BootTimeout
                | Self::CheckFailed
                | Self::HeartbeatTimeout
                | Self::ProtocolError
        )
    }

    /// Every reason, in the order in which they are documented.
    pub const ALL: [Self; 15] = [
        Self::Reload,
        Self::ScaleDown,
        Self::MaxRequests,
        Self::MaxRss,
        Self::MaxAge,
        Self::Operator,
        Self::Clean,
        Self::Crash,
        Self::Signal,
        Self::Oom,
        Self::BootTimeout,
        Self::CheckFailed,
        Self::HeartbeatTimeout,
        Self::DrainTimeout,
        Self::ProtocolError,
    ];

    /// The name used in JSON, metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::ScaleDown => "scale_down",
            Self::MaxRequests => "max_requests",
            Self::MaxRss => "max_rss",
            Self::MaxAge => "max_age",
            Self::Operator => "operator",
            Self::Clean => "clean",
            Self::Crash => "crash",
            Self::Signal => "signal",
            Self::Oom => "oom",
            Self::BootTimeout => "boot_timeout",
            Self::CheckFailed => "check_failed",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::DrainTimeout => "drain_timeout",
            Self::ProtocolError => "protocol_error",
        }
    }
}

/// A death certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Who or what caused it.
    pub reason: ExitReason,
    /// The exit code, where it exited.
    pub code: Option<i32>,
    /// The signal, where one ended it.
    pub signal: Option<i32>,
    /// The process id it had.
    pub pid: i32,
    /// Its generation.
    pub generation: u64,
    /// Its number in its slot.
    pub incarnation: u64,
    /// When it ended, in seconds since the Unix epoch.
    pub at: f64,
    /// How long it lived.
    pub uptime_seconds: f64,
    /// Requests it served, by its last report.
    pub requests: u64,
    /// Whether it counted no requests, so that `requests` says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncounted: bool,
    /// The most resident memory it had.
    pub peak_memory_bytes: u64,
    /// One sentence more: the broken rule, the errno, what `bye` said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The last of what it wrote to stderr, 8 KiB at most.
    pub stderr: String,
    /// The requests that it was serving when it ended, the oldest first, 16 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_flight: Vec<RunningRequest>,
    /// Further requests that it was serving.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub in_flight_unlisted: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Exit {
    /// Requests it served; none where it counted none.
    #[must_use]
    pub fn served(&self) -> Option<u64> {
        (!self.uncounted).then_some(self.requests)
    }
}

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
    /// [`SCHEMA`].
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

/// One slot in full: `GET /v1/workers/{pool}/{slot}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Describe {
    /// The pool's name.
    pub pool: String,
    /// The slot as `status` has it.
    pub worker: WorkerStatus,
    /// What runs: the program and its arguments.
    pub program: Vec<String>,
    /// How the program's file on disk differs from what runs, as in [`PoolStatus`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_on_disk: Option<String>,
    /// What a reload would take from the disk, as in [`PoolStatus`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disk: Option<String>,
    /// What `hello` said: program name and version.
    pub hello: Option<String>,
    /// What `hello` said the worker can do.
    pub capabilities: Vec<String>,
    /// The slot's channel.
    pub channel: ChannelStatus,
    /// The last exits, newest first, 10 at most.
    pub exits: Vec<Exit>,
    /// The requests that the slot's processes are serving, the oldest first; absent where
    /// they note none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Vec<WorkerRequest>>,
    /// Requests beside them that there was no room to note.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests_unlisted: u64,
}

/// The channels of all slots: `GET /v1/channels`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Channels {
    /// [`SCHEMA`].
    pub schema: u32,
    /// A row per slot.
    pub channels: Vec<ChannelStatus>,
}

/// One slot's channel; counters cover all of the slot's processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// The pool's name.
    pub pool: String,
    /// The slot's index.
    pub slot: u32,
    /// Whether the channel is open and past its handshake.
    pub up: bool,
    /// Messages sent.
    pub messages_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Descriptors sent.
    pub fds_sent: u64,
    /// Descriptors received and claimed by a line.
    pub fds_received: u64,
    /// Descriptors received that no line claimed.
    pub fds_rejected: u64,
    /// Lines that could not be understood.
    pub decode_errors: u64,
    /// Sends that failed.
    pub send_errors: u64,
    /// Bytes that wait to be sent.
    pub send_queue_bytes: u64,
    /// The last round trip.
    pub round_trip_seconds: Option<f64>,
    /// When the last `health` came, in seconds since the Unix epoch.
    pub last_heartbeat_at: Option<f64>,
    /// Reports that did not come in time.
    pub heartbeats_missed: u64,
}

/// Something that happened: a line of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with each event.
    pub seq: u64,
    /// Seconds since the Unix epoch.
    pub at: f64,
    /// What happened: `starting`, `ready`, `exit`, `backoff`, `drain`, `scale`, `command`, …
    pub kind: String,
    /// The pool it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The slot it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The process it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// One sentence for people.
    pub message: String,
    /// The death certificate, for an `exit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

/// A line of a job's answer. A job streams these and ends with [`JobLine::Result`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum JobLine {
    /// A step was made.
    Progress {
        /// The pool it concerns.
        pool: String,
        /// The slot it concerns.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<u32>,
        /// One sentence for people.
        message: String,
    },
    /// One worker's answer to `tell`.
    Reply(TellReply),
    /// Something that a reload would change: a line of `reload --dry-run`. Of an
    /// upgrade, that the program is the one that ran before.
    Change {
        /// `setting`, `listener`, `pool` or `workers`; `program` of an upgrade.
        what: String,
        /// One sentence for people.
        message: String,
    },
    /// The end.
    Result(JobResult),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// Whether it was done.
    pub ok: bool,
    /// One sentence for people; what was done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The generation in force after a reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// One worker's answer to `tell`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TellReply {
    /// The pool's name.
    pub pool: String,
    /// The slot's index.
    pub slot: u32,
    /// The process that was asked; absent where the slot had none.
    pub pid: Option<i32>,
    /// `ok`, `failed` (the worker said no), `timeout` (it stayed silent) or `gone` (it is not there).
    pub outcome: TellOutcome,
    /// What the worker answered.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long the answer took.
    pub seconds: f64,
}

/// How one worker took a `tell`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TellOutcome {
    /// It did it.
    Ok,
    /// It said no.
    Failed,
    /// It stayed silent.
    Timeout,
    /// It was not there, or left before it answered.
    Gone,
}

/// Why the API did not do what was asked; the body of every answer over 399.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong, where, what would be right.
    pub message: String,
    /// The death certificate's stderr, where a worker is the reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
}

impl ApiError {
    /// An error without a worker's stderr.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            stderr: String::new(),
        }
    }
}

/// The kinds of refusal; each has one exit code and one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Refused, or tried and failed.
    Failed,
    /// The request itself is wrong.
    Usage,
    /// No such pool, slot or path.
    NotFound,
    /// It was not done in time.
    TimedOut,
    /// The peer may not.
    Permission,
    /// The configuration is invalid.
    Config,
}

impl ErrorCode {
    /// The command line's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 4,
            Self::TimedOut => 5,
            Self::Permission => 77,
            Self::Config => 78,
        }
    }

    /// The HTTP status of an answer that is this error.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Failed => 409,
            Self::Usage => 400,
            Self::NotFound => 404,
            Self::TimedOut => 504,
            Self::Permission => 403,
            Self::Config => 422,
        }
    }
}

/// Body of `POST /v1/pools/{pool}/scale`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleBody {
    /// How many workers the pool is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// How many more it is to have than it has, or fewer; in the place of `workers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<i32>,
    /// Whether it is to have as many as configured; in the place of both.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub file: bool,
}

/// Body of `POST /v1/pools/{pool}/tell` and `POST /v1/workers/{pool}/{slot}/tell`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TellBody {
    /// The application command.
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Value,
    /// How long a worker may take to answer, in milliseconds.
    #[serde(default = "default_tell_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_tell_timeout_ms() -> u64 {
    10_000
}

/// Body of `POST /v1/reload`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadBody {
    /// Whether to say what would change and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The pools that are taken from the configuration; all of it where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    /// Whether workers are replaced also where nothing has changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Body of `POST /v1/upgrade`. The job ends with a result only where the upgrade
/// is refused or fails. Where it is done the connection ends without one, and
/// the status document counts one more of `upgrades`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeBody {
    /// The program's absolute path; by default where the one that runs was found.
    #[serde(default)]
    pub program: Option<std::path::PathBuf>,
}

/// Body of `POST /v1/stop`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopBody {
    /// Whether to kill what is in flight instead of draining it.
    #[serde(default)]
    pub now: bool,
}

/// Body of `POST /v1/log-level`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevelBody {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}
